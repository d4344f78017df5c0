"""The loop's listener in the coordinator: files under the run's folder, messages to the driver."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping

import numpy as np
from msgspec.structs import asdict

from tfos_job import lock_file, storage
from tfos_job.inference.evaluation import Counts, write_evaluation
from tfos_job.layout import RunLayout
from tfos_job.protocol import messages
from tfos_job.protocol.line import NodeLine
from tfos_job.run.assignment import RunAssignment
from tfos_job.run.handover import ATTEMPT
from tfos_job.run.json_values import to_json
from tfos_job.run.publisher import MAX_HELD, Publisher
from tfos_job.training.bottleneck import StepProfile
from tfos_job.training.engine import StepBlock
from tfos_job.training.summaries import Summaries

_NO_SCALARS = ("step", "bound", "seconds", "worker_step_s")


class Reporter:
    """See `loop.Listener`. Training continues while a checkpoint is written."""

    def __init__(self, assignment: RunAssignment, attempt: int, line: NodeLine, stop: threading.Event) -> None:
        """Opens the run's summaries.

        Args:
          assignment: the part of the coordinator's that is about the run.
          attempt: the attempt's number.
          line: to the driver.
          stop: set when the user waits for the end.
        """
        self._line = line
        self._run = RunLayout(assignment.train_dir)
        self._meta = to_json(assignment.meta)
        self._split_name = assignment.validation_split_name or ""
        self._summaries = {kind: Summaries(self._run, kind) for kind in ("train", "validation")}
        self._metrics: dict[str, float] = {}
        self._block_ended_s = time.monotonic()
        self._has_warned = False
        # A driver that was cut off from the file system may learn of a loss after this process can write again.
        guard = functools.partial(
            lock_file.require, self._run.lock, assignment.lock_token, "tfos-job train", **{ATTEMPT: attempt}
        )
        self._publisher = Publisher(self._run, guard=guard, attempt=attempt, is_hurried=stop.is_set)
        if assignment.checkpoint is not None:
            self._publisher.trust(assignment.checkpoint)

    def on_block(self, step: int, block: StepBlock, learning_rate: float, profile: StepProfile) -> None:
        self._block_ended_s = time.monotonic()
        self._publisher.check()
        progress = messages.Progress(
            step=step,
            loss=block.loss,
            top_1=block.top_1,
            learning_rate=learning_rate,
            images_per_second=block.images / block.seconds,
            input_wait_fraction=block.input_wait_s / block.step_s,
            bound=messages.Bottleneck(**profile.to_json()),
            seconds=block.seconds,
            worker_step_s={str(worker): seconds for worker, seconds in block.worker_step_s.items()},
        )
        self._metrics = {"loss": block.loss, "top_1": block.top_1}
        scalars = {name: value for name, value in asdict(progress).items() if name not in _NO_SCALARS}
        self._summaries["train"].write(step, scalars)
        self._line.send(progress)

    def has_room(self) -> bool:
        has_room = self._publisher.has_room()
        if not has_room and not self._has_warned:
            self._has_warned = True
            text = (
                f"checkpoints are due sooner than they can be written: {MAX_HELD} are on their way, so the next one is "
                "saved later than it should be. Raise --save_steps or --save_seconds"
            )
            self._line.send(messages.Notice(text, is_warning=True))
        return has_room

    def wait_for_room(self) -> None:
        self._publisher.wait_for_room()

    def on_checkpoint(
        self, step: int, variables: Mapping[str, np.ndarray], positions: tuple[int, ...], held_s: float
    ) -> None:
        position = {"records_read": list(positions), "order": self._meta["order"]}
        meta = {**self._meta, "input_position": position, "metrics": self._metrics}
        ended_s = self._block_ended_s

        def tell(path: str) -> None:
            self._line.send(messages.CheckpointPublished(step, path, time.monotonic() - ended_s, held_s))
            for summaries in self._summaries.values():
                summaries.flush()

        self._line.send(messages.CheckpointBegun(step))
        self._publisher.publish(step, variables, meta, tell)

    def is_evaluated(self, step: int) -> bool:
        return storage.exists(self._run.evaluation(step, self._split_name))

    def on_evaluating(self, step: int, num_examples: int) -> None:
        self._line.send(messages.Evaluating(step, num_examples))

    def on_evaluation(self, step: int, counts: Counts) -> None:
        metrics = counts.metrics()

        def record() -> None:
            write_evaluation(self._run, step, self._split_name, metrics)
            self._summaries["validation"].write(step, {k: float(v) for k, v in metrics.items() if k != "num_examples"})
            self._line.send(messages.Evaluated(step, self._split_name, dict(metrics)))

        self._publisher.record(record)

    def finish_writing(self) -> None:
        """Waits for the checkpoints in progress: their variables are here, even if nodes have failed meanwhile."""
        self._publisher.finish_writing()

    def close(self) -> None:
        """Waits for everything; raises what a publication raised."""
        self._publisher.close()
        for summaries in self._summaries.values():
            summaries.close()
