"""The process that says what training sees; all but one of these are other programs in its place."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.unit.conftest import png_bytes
from tfos_job.errors import JobError, NodeDiedError
from tfos_job.formats import decoder
from tfos_job.formats.decoder import Decoder
from tfos_job.input import decoder_process

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
ANSWERS = """
asker = socket.socket(fileno=order["descriptor"])
asker.recv(99)
asker.sendall(bytes([1]) + (2).to_bytes(8, "little") + b"ab")
asker.recv(1)
"""
Program = Callable[..., Decoder]


def running_children(module: str) -> list[psutil.Process]:
    """This process's children that run `module`. Other tests may have left one of theirs that nobody has waited for."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.ZombieProcess):
            if module in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A decoder whose process is another program."""

    def make(code: str, **options: Any) -> Decoder:
        begin = (
            "import os, signal, socket, sys, time\nfrom tfos_job.host.parent import Parent\norder = Parent().hear()\n"
        )
        (tmp_path / "other_program.py").write_text(begin + code)
        monkeypatch.syspath_prepend(str(tmp_path))
        return Decoder("other_program", **options)

    return make


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = Decoder()
    yield found
    found.close()


def test_a_process_decodes_until_whoever_asks_has_gone(asked: Decoder, tmp_path: Path) -> None:
    assert asked.digest(png_bytes(PIXELS), "png") == decoder.digest(PIXELS)
    with pytest.raises(ValueError, match="Unknown image file format"):
        asked.digest(b"no picture", "png")
    grey = PIXELS[:, :, 0]
    assert asked.digest(png_bytes(grey), "png") == decoder.digest(np.repeat(grey[:, :, np.newaxis], 3, axis=2))
    (process,) = running_children("decoder_process")
    asked._socket.close()
    assert process.wait(60) in (0, None)
    assert not list(tmp_path.iterdir())  # TensorFlow may leave files for the end of a process to remove


def test_nothing_printed_gets_among_the_answers(program: Program) -> None:
    talker = program('print("a line", flush=True)' + ANSWERS)
    assert talker.digest(b"x", "png") == b"ab"
    talker.close()


@pytest.mark.parametrize(
    ("code", "kind", "fact"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", NodeDiedError, "was killed by SIGKILL.*ran out of memory"),
        ('sys.exit("no TensorFlow")', JobError, "ended with exit code 1: no TensorFlow"),
        ("pass", JobError, "ends at once"),
    ],
)
def test_a_death_is_told_in_words(program: Program, code: str, kind: type[JobError], fact: str) -> None:
    dead = program(code)
    for _ in range(2):  # the next question finds another process
        with pytest.raises(kind, match=fact):
            dead.digest(bytes(1 << 20), "png")


def test_one_that_does_not_answer_is_ended(program: Program) -> None:
    silent = program("time.sleep(600)", patience_s=0.5)
    with pytest.raises(NodeDiedError, match=r"did not answer within 0\.5 s"):
        silent.digest(b"x", "png")
    assert not running_children("other_program")


def test_it_gives_its_memory_back_where_nobody_asks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        began_s = time.monotonic()
        decoder_process.serve(theirs, 0.05)
        assert time.monotonic() - began_s >= 0.05
        ours.close()
        decoder_process.serve(theirs, 600.0)


def test_the_next_question_after_a_pause_is_answered(program: Program, tmp_path: Path) -> None:
    """The first process ends as one does that nobody asks; the second one answers."""
    mark = tmp_path / "was here"
    first = f"if not os.path.exists({str(mark)!r}):\n    open({str(mark)!r}, 'w').close()\n    os._exit(0)\n"
    pausing = program(first + ANSWERS)
    assert pausing.digest(b"x", "png") == b"ab"
    pausing.close()
