"""The driver's child that directs a training: a process of its own for each attempt, so that it can be killed.

TensorFlow's coordinator cannot be stopped from outside once a worker has died under it, and its port cannot be used
again; inside the driver it would take the job's end with it. It is a `host.child.Child` with CUDA hidden, is told its
task (`Assignment`), and reports through the control line like every node. Results: files under `--train_dir`, messages
to the driver.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from msgspec.structs import asdict

from tfos_job.host import stacks
from tfos_job.host.imports import without
from tfos_job.host.parent import Parent, go_on_without_parent

if __name__ == "__main__":  # TensorFlow's import takes seconds, and may stand still, too
    go_on_without_parent()
    stacks.register()
with without("matplotlib"):  # Keras, which TensorFlow imports, would import it for pictures of its own
    import tensorflow as tf

from tfos_job import lock_file
from tfos_job.errors import JobError, NodeDiedError
from tfos_job.host import container, logs
from tfos_job.inference.evaluation import Counts, write_evaluation
from tfos_job.input.damage import data_errors
from tfos_job.layout import RunLayout
from tfos_job.protocol import failures, messages
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.line import NodeLine, call_driver, own_address
from tfos_job.protocol.topology import CHIEF
from tfos_job.run import checkpoints
from tfos_job.run.assignment import Assignment, RunAssignment
from tfos_job.run.handover import ATTEMPT
from tfos_job.run.json_values import from_json, to_json
from tfos_job.run.retention import Retention
from tfos_job.training.bottleneck import StepProfile
from tfos_job.training.engine import StepBlock
from tfos_job.training.loop import Loop
from tfos_job.training.parameter_server import ParameterServerEngine
from tfos_job.training.summaries import Summaries

_NO_SCALARS = ("step", "bound", "seconds", "worker_step_s")
# The errors that TensorFlow raises when another process of the cluster has gone.
_CONNECTION_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class _Reporter:
    """The loop's listener: files under the run's folder, messages to the driver."""

    def __init__(self, assignment: RunAssignment, attempt: int, line: NodeLine, stop: threading.Event) -> None:
        self._line = line
        self._stop = stop
        self._run = RunLayout(assignment.train_dir)
        self._attempt = attempt
        # A driver that was cut off from the file system may learn of a loss after this process can write again.
        self._guard = functools.partial(
            lock_file.require, self._run.lock, assignment.lock_token, "tfos-job train", **{ATTEMPT: attempt}
        )
        self._retention = Retention(self._run, self._guard, attempt)
        self._meta = to_json(assignment.meta)
        self._split_name = assignment.validation_split_name or ""
        self._summaries = {kind: Summaries(self._run, kind) for kind in ("train", "validation")}
        self._metrics: dict[str, float] = {}
        self._block_ended_s = time.monotonic()
        # Training continues while a checkpoint is written; one at a time, in order.
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._publishing: Future[None] | None = None

    def on_block(self, step: int, block: StepBlock, learning_rate: float, profile: StepProfile) -> None:
        self._block_ended_s = time.monotonic()
        if self._publishing is not None and self._publishing.done():
            self._publishing.result()  # A training that cannot save must end.
        progress = messages.Progress(
            step=step,
            loss=block.loss,
            top_1=block.top_1,
            learning_rate=learning_rate,
            images_per_second=block.images / block.seconds,
            input_wait_fraction=block.input_wait_s / block.step_s,
            bound=messages.Bottleneck(**profile.to_json()),
        )
        self._metrics = {"loss": block.loss, "top_1": block.top_1}
        scalars = {name: value for name, value in asdict(progress).items() if name not in _NO_SCALARS}
        self._summaries["train"].write(step, scalars)
        self._line.send(progress)

    def on_checkpoint(self, step: int, variables: Mapping[str, np.ndarray], positions: tuple[int, ...]) -> None:
        self._wait_for_publisher()
        position = {"records_read": list(positions), "order": self._meta["order"]}
        meta = {**self._meta, "input_position": position, "metrics": self._metrics}
        self._line.send(messages.CheckpointBegun(step))
        self._publishing = self._publisher.submit(self._publish, step, variables, meta, self._block_ended_s)

    def _publish(
        self, step: int, variables: Mapping[str, np.ndarray], meta: Mapping[str, Any], block_ended_s: float
    ) -> None:
        path = checkpoints.publish(self._run, step, variables, meta, self._guard, self._attempt)
        self._retention.trust(path)
        self._line.send(messages.CheckpointPublished(step, path, time.monotonic() - block_ended_s))
        if not self._stop.is_set():  # The user waits, so the other checkpoints are verified next time.
            self._retention.apply()
        for summaries in self._summaries.values():
            summaries.flush()

    def on_evaluating(self, step: int, num_examples: int) -> None:
        self._line.send(messages.Evaluating(step, num_examples))

    def on_evaluation(self, step: int, counts: Counts) -> None:
        self._wait_for_publisher()
        metrics = counts.metrics()
        write_evaluation(self._run, step, self._split_name, metrics)
        self._summaries["validation"].write(step, {k: float(v) for k, v in metrics.items() if k != "num_examples"})
        self._line.send(messages.Evaluated(step, self._split_name, dict(metrics)))

    def _wait_for_publisher(self) -> None:
        if self._publishing is not None:
            self._publishing.result()

    def finish_publishing(self) -> None:
        """Waits for the checkpoint in progress: its variables are complete, even if nodes have failed meanwhile."""
        self._publisher.shutdown(wait=True)

    def close(self) -> None:
        """Waits for the last checkpoint; raises what its publication raised."""
        self.finish_publishing()
        self._wait_for_publisher()
        for summaries in self._summaries.values():
            summaries.close()


def run(assignment: Assignment, line: NodeLine, stop: threading.Event) -> messages.Finished:
    """Connects, trains, and returns how far it came; raises what stopped it."""
    plan, checkpoint = assignment.run.plan, assignment.run.checkpoint
    engine = ParameterServerEngine(assignment.cluster)

    def on_search(shard: str) -> None:
        line.send(messages.Searching(shard))

    with data_errors(assignment.run.shards, with_network=True, on_search=on_search):
        # Read once, and not held any longer than it is needed.
        engine.start(plan, checkpoints.read(RunLayout(assignment.run.train_dir), checkpoint)[1] if checkpoint else None)
        line.send(messages.Built(*engine.num_parameters))
        line.send(messages.Ready(os.getpid()))
        reporter = _Reporter(assignment.run, assignment.attempt, line, stop)
        try:
            end = Loop(engine, plan, reporter, stop.is_set).run()
        finally:
            reporter.finish_publishing()
    reporter.close()
    return messages.Finished(
        step=end.step,
        interrupted=end.interrupted,
        seconds=end.seconds,
        images=end.images,
        records_read=list(end.positions),
        bound=messages.Bottleneck(**end.profile.to_json()) if end.profile else None,
    )


def to_failure(error: Exception) -> Failure:
    """The failure that is reported to the driver for an exception."""
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, JobError):
        return failures.of_error(error)
    first_line = (str(error).strip() or "no message").splitlines()[0]
    name = type(error).__name__
    cause = f"{name}: {first_line}"
    if isinstance(error, _CONNECTION_ERRORS):
        return Failure(Kind.CONSEQUENCE, cause, NodeDiedError.exit_code, detail=detail, exception=name)
    return Failure(Kind.RAISED, cause, JobError.exit_code, detail=detail, exception=name)


def main() -> None:
    logs.text_to_stderr()
    orders = Parent().hear()
    if orders is None:
        sys.exit(1)  # The driver has gone before its orders came.
    assignment = from_json(Assignment, orders)
    driver = assignment.driver
    stop = threading.Event()
    hello = messages.Hello(
        CHIEF,
        0,
        own_address(driver),
        os.getpid(),
        container=container.container_id(),
        attempt=assignment.attempt,
    )
    line = call_driver(driver, bytes.fromhex(assignment.key), hello)

    def listen() -> None:
        try:
            while not isinstance(line.receive(), messages.Stop):
                pass
            stop.set()
            line.receive()
        except LineClosed:
            # Without a driver nobody holds the run's lock any more: nothing may be written.
            shutil.rmtree(assignment.scratch, ignore_errors=True)
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    last_word: messages.ToDriver
    try:
        last_word = run(assignment, line, stop)
    except Exception as e:  # noqa: BLE001 - whatever it was, the driver must hear of it
        traceback.print_exc()
        last_word = to_failure(e)
    line.send(last_word)
    # TensorFlow's own end would wait for servers that are being stopped.
    sys.stderr.flush()
    os._exit(0 if isinstance(last_word, messages.Finished) else 1)


if __name__ == "__main__":
    main()
