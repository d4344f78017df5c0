"""Standard output of a real process: what is on it, in which bytes, and what becomes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.waits import PATIENCE_S
from tfos_job import cli
from tfos_job.commands import parser
from tfos_job.host import signals
from tfos_job.host.results import to_json

PROGRAM = """
import os, sys
from tfos_job.host.results import ReaderGone, Results
value = {{"characters": "汉𠀀", "path": os.fsdecode(b"caf\\xe9.png")}}
with Results() as results:
    {body}
{then}
"""


def run(body: str = "results.add(value)", then: str = "", **settings: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", PROGRAM.format(body=body, then=then)]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    return subprocess.run(command, timeout=PATIENCE_S, check=False, **settings)


@pytest.mark.parametrize(
    ("encoding", "characters"),
    [("utf-8", "汉𠀀".encode()), ("UTF8:strict", "汉𠀀".encode())]
    + [(name, rb"\u6c49\ud840\udc00") for name in ("ascii", "ascii:strict", "gbk", "latin-1")],
)
def test_every_locale_gets_json_that_every_reader_takes(encoding: str, characters: bytes) -> None:
    done = run(env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert characters in line
    value = json.loads(line.decode("utf-8"))
    assert value == {"characters": "汉𠀀", "path": os.fsdecode(b"caf\xe9.png")}


def test_a_value_that_is_escaped_is_the_same_value() -> None:
    value = {"b": "\udce9", "a": ["汉", "\n", '"', "\\udce9"]}
    assert json.loads(to_json(value, "utf-8")) == json.loads(to_json(value, None)) == value
    assert "\n" not in to_json(value, "utf-8")


def test_nothing_but_results_is_on_standard_output() -> None:
    body = "print('{}'); os.write(1, b'{}\\n'); os.system('echo {}'); results.add(1); print('{}')"
    done = run(body, "print('after')")
    assert done.stdout.split() == [b"1", b"after"]
    assert done.stderr.split() == [b"{}"] * 4


def test_who_reads_no_more_is_told_from_other_broken_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    body = "try: results.add(1)\n    except ReaderGone: os.write(2, b'gone')"
    try:
        assert run(body, stdout=writing).stderr.startswith(b"gone")
    finally:
        os.close(writing)

    def fail(*_: object) -> None:
        raise BrokenPipeError("of a child that has ended")

    monkeypatch.setitem(cli.COMMANDS, "report", dataclasses.replace(cli.COMMANDS["report"], run=fail))
    line = parser.parse(cli.COMMANDS, ["report", "--train_dir", "d"])
    with signals.raised():
        code, error = cli._run(line, context=None)  # type: ignore[arg-type]
    assert (code, str(error).partition(":")[0]) == (70, "BrokenPipeError")


@pytest.mark.parametrize(
    ("close", "code"),
    [
        (lambda: os.close(1), 0),
        (lambda: (os.close(1), os.close(2)), 0),
        (lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1), 1),
    ],
    ids=["no stdout", "neither stdout nor stderr", "a full disk"],
)
def test_a_standard_output_that_takes_nothing(close: Callable[[], object], code: int) -> None:
    done = run(stdout=None, preexec_fn=close)
    assert done.returncode == code
    if code:
        assert b"StorageError: standard output: cannot write the results: No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("words", "sink", "code", "said"),
    [
        ("train --help", "cat", 0, b""),
        ("predict --help", "cat", 0, b""),
        ("--print_completion zsh", "cat", 0, b""),
        ("--print_completion zsh", "true", 141, b""),
        ("--epoch 1", "cat", 2, b"tfos-job: error: --epoch stands before the command"),
    ],
)
def test_texts_for_people_are_printed_in_every_locale(words: str, sink: str, code: int, said: bytes) -> None:
    line = f"{sys.executable} -m tfos_job {words} | {{ {sink}; }}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr[: len(said) or None]) == (code, said)


def test_a_text_for_a_full_disk_and_a_word_for_a_closed_stderr() -> None:
    command = [sys.executable, "-m", "tfos_job"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, "--version"], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False
        )
    assert done.returncode == 74
    assert done.stderr.startswith(b"tfos-job: error: standard output: cannot write the results: No space left")
    closed = f"{shlex.join(command)} train --epoch 0 2>&-"
    assert subprocess.run(["bash", "-c", closed], timeout=PATIENCE_S, check=False).returncode == 2
