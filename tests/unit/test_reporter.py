"""The files and messages of a training, with an engine's results but no engine."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tensorflow as tf

from tests.plan import PLAN
from tests.unit.small_checkpoints import META, arrays, step_names
from tfos_job import storage
from tfos_job.errors import BusyError, StorageError
from tfos_job.inference.evaluation import Counts
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.protocol import messages
from tfos_job.protocol.line import NodeLine
from tfos_job.run import checkpoints
from tfos_job.run.assignment import CheckpointMeta, RunAssignment
from tfos_job.run.handover import take_over
from tfos_job.training.bottleneck import StepProfiler
from tfos_job.training.coordinator import to_failure
from tfos_job.training.engine import StepBlock
from tfos_job.training.loop import EVALUATION_KS
from tfos_job.training.reporter import Reporter

BLOCK = StepBlock(4, 40, 1.5, 0.25, 2.0, 0.4, 0.2, 6.0, {0: 20, 1: 20}, {0: 1.0, 1: 2.0})


class Line:
    """The driver's end hears everything."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def send(self, message: Any) -> None:
        self.said.append(messages.decode(messages.encode(message), messages.ToDriver))

    def names(self) -> list[str]:
        return [type(message).__name__ for message in self.said]


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path / "run"))


@pytest.fixture
def lease(run: RunLayout) -> Iterator[Lease]:
    with Lease(run.lock, "tfos-job train") as lease:
        storage.write_json(run.config, {"validation_split_name": "val"})
        yield lease


def reporter_of(run: RunLayout, lease: Lease, line: Line, attempt: int) -> Reporter:
    meta = CheckpointMeta(
        model=PLAN.model,
        characters=META["characters"],
        dataset_name="gnt",
        charset_digest=META["charset_digest"],
        dataset_digest=META["dataset_digest"],
        trainable_scopes=(),
        order={"num_workers": 2},
        normalization=PLAN.input.normalization,
    )
    assignment = RunAssignment(
        train_dir=run.root,
        lock_token=lease.token,
        plan=PLAN,
        checkpoint=None,
        shards=(),
        validation_split_name="val",
        meta=meta,
    )
    return Reporter(assignment, attempt, cast(NodeLine, line), threading.Event())


def on_block(reporter: Reporter, step: int) -> None:
    profiler = StepProfiler(2)
    profiler.add(BLOCK)
    assert profiler.profile is not None
    reporter.on_block(step, BLOCK, 0.1, profiler.profile)


def test_what_happens_is_told_to_the_driver_and_is_in_the_runs_folder(run: RunLayout, lease: Lease) -> None:
    take_over(run, lease, 1)
    line = Line()
    reporter = reporter_of(run, lease, line, 1)
    on_block(reporter, 4)
    reporter.on_checkpoint(4, arrays(4), (20, 20), 0.125)
    assert not reporter.is_evaluated(4)
    reporter.on_evaluation(4, Counts(10, 1.0, dict.fromkeys(EVALUATION_KS, 5)))
    reporter.close()
    assert reporter.is_evaluated(4)
    assert line.names() == ["Progress", "CheckpointBegun", "CheckpointPublished", "Evaluated"]
    progress, _, published, evaluated = line.said
    assert (progress.step, progress.images_per_second, progress.seconds) == (4, 20.0, 2.0)
    assert progress.worker_step_s == {"0": 1.0, "1": 2.0}
    assert (published.path, published.held_s) == (run.checkpoint(4), 0.125)
    assert published.seconds > 0
    assert evaluated.metrics["top_1"] == 0.5
    info = checkpoints.resolve(run, "best")
    assert (info.step, info.input_position["records_read"]) == (4, [20, 20])
    assert info.document["metrics"] == {"loss": 1.5, "top_1": 0.25}
    np.testing.assert_array_equal(checkpoints.load(info)["global_step"], 4)


def test_an_attempt_that_another_one_has_followed_ends_and_publishes_nothing(run: RunLayout, lease: Lease) -> None:
    take_over(run, lease, 1)
    line = Line()
    reporter = reporter_of(run, lease, line, 1)
    take_over(run, lease, 2)
    reporter.on_checkpoint(4, arrays(4), (20, 20), 0.1)
    reporter.on_evaluation(4, Counts(10, 1.0, dict.fromkeys(EVALUATION_KS, 5)))
    reporter.finish_writing()
    with pytest.raises(BusyError, match="this is attempt 1, and attempt 2 has begun"):
        on_block(reporter, 8)
    assert line.names() == ["CheckpointBegun"]
    assert step_names(run) == []
    assert not storage.exists(run.evaluation(4, "val"))


def test_the_user_is_told_once_that_checkpoints_are_due_too_soon(
    run: RunLayout, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    publish = checkpoints.publish

    def slow(*args: Any) -> str:
        may_write.wait(60)
        return publish(*args)

    monkeypatch.setattr(checkpoints, "publish", slow)
    line = Line()
    reporter = reporter_of(run, lease, line, 1)
    for step in (1, 2):
        assert reporter.has_room()
        reporter.on_checkpoint(step, arrays(step), (0, 0), 0.1)
    assert [reporter.has_room() for _ in range(3)] == [False] * 3
    may_write.set()
    reporter.wait_for_room()
    reporter.close()
    notices = [message for message in line.said if isinstance(message, messages.Notice)]
    assert len(notices) == 1
    assert notices[0].is_warning
    assert "Raise --save_steps or --save_seconds" in notices[0].text


def test_an_error_within_a_graph_is_told_by_its_cause() -> None:
    @tf.function
    def step(text: tf.Tensor) -> tf.Tensor:
        return tf.strings.to_number(text)

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        step(tf.constant("no number"))
    failure = to_failure(caught.value)
    assert failure.cause.startswith("InvalidArgumentError: StringToNumberOp could not correctly convert string")
    assert to_failure(ValueError("a\nb")).cause == "ValueError: a"
    assert to_failure(ValueError()).cause == "ValueError: no message"


def test_a_full_disk_is_no_bug() -> None:
    of_python = to_failure(OSError(errno.ENOSPC, "No space left on device", "/tmp/trace"))
    of_tensorflow = to_failure(tf.errors.ResourceExhaustedError(None, None, "/run/events; No space left on device"))
    assert of_python.exit_code == of_tensorflow.exit_code == StorageError.exit_code
    assert of_python.place == "/tmp/trace"
    assert "No space left on device" in of_tensorflow.cause
    assert of_tensorflow.detail


def test_the_cause_of_what_fails_while_a_graph_is_made() -> None:
    @tf.function
    def step() -> tf.Tensor:
        return tf.convert_to_tensor(None)  # as of a variable without a gradient

    with pytest.raises(ValueError, match="in user code:") as caught:
        step()
    assert to_failure(caught.value).cause == "ValueError: None values not supported."
