"""Progress on a real terminal, and on a standard error that is none."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import termios
from typing import Any

import pytest

from tfos_job.config.process import ProcessConfig
from tfos_job.driver import progress
from tfos_job.driver.progress import ProgressLine
from tfos_job.host import bar
from tfos_job.host.bar import Bar
from tfos_job.host.logs import LogLines
from tfos_job.protocol.messages import Bottleneck, Built, CheckpointPublished, Evaluating, Finished, Progress

BOUND = Bottleneck("network", {"network": 1.0}, 10, 0.1, 0.0, 0.1, 0.0, None)


class Terminal:
    """A terminal in place of stderr, during a `with` block."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._master, slave = os.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        self._stderr = os.fdopen(slave, "w")
        self._seen = b""

    def __enter__(self) -> Terminal:
        os.set_blocking(self._master, False)
        # Not in a fixture: pytest puts its own stderr in place again before the test's body.
        self._monkeypatch.setattr(sys, "stderr", self._stderr)
        return self

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.undo()
        self._stderr.close()
        os.close(self._master)

    @property
    def states(self) -> list[str]:
        """All lines so far, and all states of the last one."""
        self._stderr.flush()
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self._master, 1 << 16):
                self._seen += block
        return [state for state in self._seen.decode().replace("\r", "\n").split("\n") if state.strip()]


def at(step: int, **changes: Any) -> Progress:
    values = {"loss": 1.0, "top_1": 0.5, "learning_rate": 0.1, "images_per_second": 320.0} | changes
    return Progress(step=step, input_wait_fraction=0.0, bound=BOUND, **values)


def finished(step: int) -> Finished:
    return Finished(step, False, 1.0, 320, [320], BOUND)


def test_a_bar_has_no_time_left_before_there_is_a_rate_and_ends_at_100_percent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Terminal(monkeypatch) as terminal, LogLines("train", ()):
        with Bar("convert", total=4, unit="task") as shown:
            assert "convert:   0%" in terminal.states[-1]
            shown.refresh()
            assert "?" not in "".join(terminal.states)
            shown.show(1)
            shown.refresh()
            assert "<" in terminal.states[-1]
            shown.show(4)
        assert "convert: 100%" in terminal.states[-1]
        assert "4/4" in terminal.states[-1]


def test_training_on_a_terminal_takes_its_rate_from_what_follows_the_first_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Terminal(monkeypatch) as terminal, LogLines("train", ()):
        with ProgressLine(start_step=10, total_steps=40) as line:
            assert terminal.states == []  # nodes start
            line.on_message(Built(1_234_567, 1_234_567, (9,)))
            assert "INFO The network has 1,234,567 parameters" in terminal.states[0]
            assert " 25%|" in terminal.states[-1]
            line.on_message(at(20))
            assert "20/40" in terminal.states[-1]
            assert "?" not in "".join(terminal.states)
            assert "<" not in "".join(terminal.states)
            line.on_message(CheckpointPublished(20, "run/checkpoints/step-00000020", held_s=0.0625))
            told = "step 20: checkpoint run/checkpoints/step-00000020; steps waited 0.06 s"
            assert told in "".join(terminal.states)
            line.on_message(at(40))
            line.on_message(finished(40))
        assert "train: 100%" in terminal.states[-1]
        assert "40/40" in terminal.states[-1]


def test_training_elsewhere_is_told_in_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "tfos_job")
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressLine(start_step=0, total_steps=100) as line:
        line.on_message(Built(1_234_567, 1_000_000, (9,)))
        for step, seconds in ((1, 60.0), (11, 1.0), (21, 9.5), (31, 0.5), (90, 1.0), (100, 1.0)):
            now[0] += seconds
            line.on_message(at(step))
        line.on_message(Evaluating(100, 64))
        now[0] += 10.5
        line.on_message(Evaluating(100, 640))
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("The network has 1,234,567 parameters, of which 1,000,000 are trained. ")
    assert [text.partition(":")[0] for text in said[1:]] == [
        "step 1 of 100",  # the first step at once, and without a time left: it took a minute for the graph
        "step 21 of 100",
        "step 100 of 100",
        "step 100",
    ]
    assert [text.rpartition(", ")[2] for text in said[1:4]] == ["input wait 0.0%", "41 s left", "input wait 0.0%"]
    assert said[4] == "step 100: evaluating, 640 images so far"


def test_a_restart_is_told_as_such(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "tfos_job")
    with ProgressLine(40, 100, attempt=2) as line:
        line.on_message(Built(1, 1, (9,)))
        line.on_message(at(41))
    assert caplog.messages[-1].startswith("attempt 2, step 41 of 100: loss ")
    with Terminal(monkeypatch) as terminal, LogLines("train", ()), ProgressLine(40, 100, attempt=2) as line:
        line.on_message(Built(1, 1, (9,)))
        assert terminal.states[-1].startswith("attempt 2, train:  40%|")


def test_counted_work_elsewhere_is_told_every_ten_seconds_and_at_its_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "tfos_job")
    with Bar("verify", total=9, unit="task") as quick:
        quick.show(9)
    assert caplog.messages == []
    monkeypatch.setattr(bar, "LOG_EVERY_S", 0.0)
    with Bar("verify", total=9, unit="task") as shown:
        for done in (0, 4, 4):
            shown.show(done)
        monkeypatch.setattr(bar, "LOG_EVERY_S", 3600.0)
        for done in (5, 9):
            shown.show(done)
    assert caplog.messages == ["verify: 4 of 9 tasks", "verify: 9 of 9 tasks"]


def test_no_progress_where_only_warnings_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Terminal(monkeypatch) as terminal, LogLines("train", ()) as lines:
        lines.use(ProcessConfig(quiet=True))
        with Bar("convert", total=4, unit="task") as shown:
            shown.show(4)
        with ProgressLine(0, 1) as line:
            line.on_message(Built(1, 1, (9,)))
            line.on_message(at(1))
            line.on_message(finished(1))
        assert terminal.states == []
