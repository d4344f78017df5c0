from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.unit.small_checkpoints import META, arrays, publish, record_evaluation, step_names
from tfos_job import storage
from tfos_job.errors import BusyError, DivergedError, StorageError
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoint_files, checkpoints
from tfos_job.run.publisher import Publisher
from tfos_job.run.retention import Retention


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path / "run"))


class Gate:
    """A guard that lets the storage take its time: each call waits until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.opened.acquire()
        if self.error is not None:
            raise self.error

    def open(self, times: int = 1000) -> None:
        self.opened.release(times)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def nothing(path: str) -> None:
    pass


def test_checkpoints_are_published_in_order_while_steps_go_on(run: RunLayout, gate: Gate) -> None:
    published: list[str] = []
    publisher = Publisher(run, guard=gate, attempt=3)
    publisher.publish(1, arrays(1), META, published.append)
    assert publisher.has_room()
    publisher.publish(2, arrays(2), META, published.append)
    assert not publisher.has_room()  # a third snapshot would be too much
    assert published == []
    gate.open()
    publisher.wait_for_room()
    publisher.publish(3, arrays(3), META, published.append)
    publisher.close()
    assert published == [run.checkpoint(step) for step in (1, 2, 3)]
    assert step_names(run) == ["step-00000002", "step-00000003"]


def test_an_evaluation_is_recorded_when_its_checkpoint_stands(run: RunLayout, gate: Gate) -> None:
    storage.make_dirs(run.root)
    storage.write_json(run.config, {"validation_split_name": "val"})
    publisher, seen = Publisher(run, guard=gate), []

    def record() -> None:
        seen.append(storage.exists(run.checkpoint(1)))
        record_evaluation(run, 1, "val", 0.9)

    publisher.publish(1, arrays(1), META, nothing)
    publisher.record(record)  # does not wait
    assert seen == []
    gate.open()
    publisher.close()
    assert seen == [True]
    assert checkpoints.resolve(run, "best").step == 1


@pytest.mark.parametrize("error", [BusyError("taken over"), StorageError("the disk is full")], ids=str)
def test_after_a_failure_nothing_is_written_or_recorded_and_training_ends(
    run: RunLayout, gate: Gate, error: Exception
) -> None:
    publisher, seen = Publisher(run, guard=gate), []
    gate.error = error
    publisher.publish(1, arrays(1), META, nothing)
    publisher.record(lambda: seen.append("evaluation"))
    publisher.publish(2, arrays(2), META, seen.append)
    publisher.check()  # not known yet
    gate.open()
    publisher.finish_writing()
    for ask in (publisher.check, publisher.wait_for_room, publisher.close):
        with pytest.raises(type(error), match=str(error)):
            ask()
    assert seen == []
    assert step_names(run) == []


def test_variables_that_are_not_finite_end_the_training(run: RunLayout) -> None:
    publisher = Publisher(run)
    publisher.publish(1, {"x": np.array([np.nan], np.float32)}, META, nothing)
    publisher.finish_writing()
    with pytest.raises(DivergedError):
        publisher.check()


def test_a_save_does_not_wait_for_the_removal_of_others(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end, applied, apply = threading.Event(), threading.Event(), [], Retention.apply

    def slow(self: Retention) -> list[str]:
        applied.append(len(checkpoints.candidates(run)))
        begun.set()
        may_end.wait(60)
        return apply(self)

    monkeypatch.setattr(Retention, "apply", slow)
    publisher = Publisher(run)
    publisher.publish(1, arrays(1), META, nothing)
    assert begun.wait(60)
    for step in (2, 3, 4):
        publisher.wait_for_room()
        publisher.publish(step, arrays(step), META, nothing)
    publisher.finish_writing()
    assert step_names(run) == [f"step-0000000{step}" for step in (1, 2, 3, 4)]
    may_end.set()
    publisher.close()
    assert step_names(run) == ["step-00000003", "step-00000004"]
    assert applied == [1, 2]  # those that had not begun are one, after the first has left two


def test_a_removal_that_fails_is_a_warning_and_made_up_for_by_the_next(
    run: RunLayout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(run, 1, 2)
    failed: list[str] = []
    discard_dir = storage.discard_dir

    def discard(path: str) -> None:
        if not failed:
            failed.append(path)
            raise StorageError("no answer", place=path)
        discard_dir(path)

    monkeypatch.setattr(storage, "discard_dir", discard)
    publisher = Publisher(run)
    publisher.publish(3, arrays(3), META, nothing)
    publisher.close()
    assert "checkpoints that are not needed any more were not removed" in caplog.text
    assert len(step_names(run)) == 3
    after = Publisher(run)
    after.publish(4, arrays(4), META, nothing)
    after.close()
    assert step_names(run) == ["step-00000003", "step-00000004"]


def test_who_waits_for_the_end_does_not_wait_for_the_removal(run: RunLayout) -> None:
    publish(run, 1, 2)
    publisher = Publisher(run, is_hurried=lambda: True)
    publisher.publish(3, arrays(3), META, nothing)
    publisher.close()
    assert len(step_names(run)) == 3


def test_the_checkpoint_that_training_began_with_is_not_read_again(
    run: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(run, 1)
    proved: list[str] = []
    monkeypatch.setattr(checkpoint_files, "prove", proved.append)
    publisher = Publisher(run)
    publisher.trust(run.checkpoint(1))
    publisher.publish(2, arrays(2), META, nothing)
    publisher.close()
    assert proved == []
    other = Publisher(run)
    other.publish(3, arrays(3), META, nothing)
    other.close()
    assert proved == [run.checkpoint(2)]
