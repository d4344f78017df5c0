"""The loop that decides when a training saves, evaluates and stops, whatever the engine."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfos_job.errors import DivergedError, JobError
from tfos_job.inference.evaluation import Counts
from tfos_job.run.plan import TrainPlan
from tfos_job.training.bottleneck import StepProfile, StepProfiler
from tfos_job.training.engine import Engine, StepBlock

EVALUATION_KS = (1, 3, 5)
_log = logging.getLogger(__name__)
# A block is the time between two looks at the clock, at the stop flag and at the results: long enough that waiting for
# its last step costs little, short enough that Ctrl-C is answered.
_BLOCK_S = 1.5
_MAX_BLOCK_STEPS = 200
_MEASUREMENT_SHARE = 0.01
_MEASURED_STEPS = 10  # fewer are over before the measurement is, and say little of what bounds them
_TRACING_S = 1.0


class Listener(Protocol):
    """The receiver of the loop's results."""

    def on_block(self, step: int, block: StepBlock, learning_rate: float, profile: StepProfile) -> None: ...

    def has_room(self) -> bool:
        """True if a checkpoint can be taken now without waiting for earlier ones to be written."""

    def wait_for_room(self) -> None:
        """Waits until `has_room`."""

    def on_checkpoint(
        self, step: int, variables: Mapping[str, np.ndarray], positions: tuple[int, ...], held_s: float
    ) -> None:
        """Takes a checkpoint, for which the steps have waited `held_s`; writes it while training goes on."""

    def is_evaluated(self, step: int) -> bool:
        """True if the run has the evaluation of this step already."""

    def on_evaluating(self, step: int, num_examples: int) -> None: ...

    def on_evaluation(self, step: int, counts: Counts) -> None: ...


@dataclass(frozen=True)
class TrainingEnd:
    """The end of a training. `images` and `seconds` are of the steps alone, without saving and evaluating.

    `profile` is None if no step was done.
    """

    step: int
    interrupted: bool
    images: int
    seconds: float
    positions: tuple[int, ...]
    profile: StepProfile | None


class Loop:
    """Runs an engine from `plan.start_step` to `plan.total_steps`, or until asked to stop.

    Saves every `save_steps` and `save_seconds`, and at the end; evaluates every `eval_steps`, and at the end. A
    checkpoint always precedes the evaluation of the same step, so that what was evaluated is on disk; an evaluation
    that an attempt has not come to is the first work of the next one, which begins with its checkpoint. If checkpoints
    are due sooner than they can be written, one is taken as soon as there is room for it, and training does not wait;
    only those of an evaluation and of the last step are waited for. It measures a
    step's computing time once: when that costs less than a hundredth of the time that the steps have taken, or at the
    end, if they were not too few.
    """

    def __init__(
        self,
        engine: Engine,
        plan: TrainPlan,
        listener: Listener,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._listener = listener
        self._should_stop = should_stop
        self._clock = clock
        self._step = plan.start_step
        self._positions = list(plan.positions)
        self._block_steps = engine.steps_at_once
        self._saved_step = plan.start_step
        self._saved_time = clock()
        self._evaluated_step = -1
        self._profiler = StepProfiler(engine.steps_at_once)
        self._may_measure = True
        self._images = 0
        self._seconds = 0.0

    def run(self) -> TrainingEnd:
        """Raises DivergedError if the loss is no finite number; earlier checkpoints stay."""
        if self._step and self._evaluation_is_due() and not self._listener.is_evaluated(self._step):
            self._evaluate()  # the attempt before has ended between this checkpoint and its evaluation
        while self._step < self._plan.total_steps and not self._should_stop():
            self._run_block()
            if self._evaluation_is_due() or (self._save_is_due() and self._listener.has_room()):
                self._save()  # before an evaluation in any case, or `best` could name a step without a checkpoint
            if self._evaluation_is_due():
                self._evaluate()
            if self._measurement_is_cheap() and not self._should_stop():
                self._measure_compute()
        self._save()
        interrupted = self._step < self._plan.total_steps
        if not interrupted:
            interrupted = not self._evaluate()
        profile = self._profiler.profile
        if not interrupted and profile and profile.compute_s is None and profile.steps >= _MEASURED_STEPS:
            self._measure_compute()
        return TrainingEnd(
            self._step, interrupted, self._images, self._seconds, tuple(self._positions), self._profiler.profile
        )

    def _measure_compute(self) -> None:
        """Measures a figure for the report; training goes on without it if that fails."""
        try:
            self._profiler.compute_s = self._engine.measure_compute()
        except tf.errors.OpError as e:
            _log.warning("compute was not measured: %s", e)
            self._may_measure = False

    def _measurement_is_cheap(self) -> bool:
        profile = self._profiler.profile
        if profile is None or profile.compute_s is not None or not self._may_measure:
            return False
        return _MEASUREMENT_SHARE * self._seconds >= _TRACING_S + 2 * profile.step_s

    def _run_block(self) -> None:
        block = self._engine.run(self._steps_to_next_stop())
        self._step += block.steps
        self._images += block.images
        self._seconds += block.seconds
        for worker, position in block.positions.items():
            self._positions[worker] = max(self._positions[worker], position)
        if not math.isfinite(block.loss):
            raise DivergedError(
                f"the loss is {block.loss} within the {block.steps} steps before step {self._step}",
                next_step="Lower --learning_rate and train again; a checkpoint, where there is one, is from before",
            )
        # A multiple of the workers, where each makes its own steps, so that none is idle at the end of a block.
        at_once = self._engine.steps_at_once
        per_worker = _BLOCK_S / max(block.seconds, 1e-3) * block.steps / at_once
        self._block_steps = at_once * max(1, min(_MAX_BLOCK_STEPS, int(per_worker)))
        self._profiler.add(block)
        assert self._profiler.profile is not None
        self._listener.on_block(self._step, block, self._engine.learning_rate, self._profiler.profile)

    def _steps_to_next_stop(self) -> int:
        plan = self._plan
        stops = [plan.total_steps]
        stops += [(self._step // n + 1) * n for n in (plan.save_steps, plan.eval_steps) if n]
        return min(self._block_steps, min(stops) - self._step)

    def _save_is_due(self) -> bool:
        plan = self._plan
        # The last one may have been taken late.
        by_steps = plan.save_steps is not None and self._step // plan.save_steps > self._saved_step // plan.save_steps
        by_time = plan.save_seconds is not None and self._clock() - self._saved_time >= plan.save_seconds
        return by_steps or by_time

    def _evaluation_is_due(self) -> bool:
        return bool(self._plan.validation_shards and self._plan.eval_steps and self._step % self._plan.eval_steps == 0)

    def _save(self) -> None:
        if self._step == self._saved_step:
            return
        began_s = self._clock()
        self._listener.wait_for_room()
        counted = self._engine.global_step
        if counted != self._step:
            raise JobError(f"{self._step} steps were run, the optimizer counts {counted}", next_step="Report this bug")
        variables = self._engine.snapshot()
        self._listener.on_checkpoint(self._step, variables, tuple(self._positions), self._clock() - began_s)
        self._saved_step = self._step
        self._saved_time = self._clock()

    def _evaluate(self) -> bool:
        """False if it had to stop before the end; the listener hears nothing of it then.

        Raises:
          DivergedError: the loss is no finite number.
        """
        if not self._plan.validation_shards or self._step == self._evaluated_step:
            return True
        counts = Counts.zero(EVALUATION_KS)
        shards = self._plan.validation_shards
        for begin in range(0, len(shards), self._plan.num_workers):
            part = shards[begin : begin + self._plan.num_workers]
            counted = None if self._should_stop() else self._engine.evaluate(part, EVALUATION_KS, self._should_stop)
            if counted is None:
                return False
            counts += counted
            self._listener.on_evaluating(self._step, counts.num_examples)
        if not math.isfinite(counts.loss_sum):
            raise DivergedError(
                f"the loss on the validation split is {counts.loss_sum} at step {self._step}",
                next_step="Lower --learning_rate and train again; an earlier checkpoint may be right",
            )
        self._listener.on_evaluation(self._step, counts)
        self._evaluated_step = self._step
        return True
