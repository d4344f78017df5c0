"""When the loop saves, evaluates and stops, with an engine that counts instead of computing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tests.plan import PLAN
from tfos_job.errors import DivergedError, JobError
from tfos_job.inference.evaluation import Counts
from tfos_job.run.plan import TrainPlan
from tfos_job.training.bottleneck import StepProfile
from tfos_job.training.engine import StepBlock
from tfos_job.training.loop import Loop


class CountingEngine:
    """The same interface as an engine; each step takes `step_s` on its own clock."""

    learning_rate = 0.5
    steps_at_once = 1

    def __init__(self, plan: TrainPlan, step_s: float = 1.0, nan_from: int | None = None) -> None:
        self.global_step = plan.start_step
        self.now_s = 0.0
        self.step_s = step_s
        self.nan_from = nan_from
        self.blocks: list[int] = []
        self.measurements = 0
        self.evaluated_shards = 0

    def start(self, plan: TrainPlan, variables: Mapping[str, np.ndarray] | None) -> None:
        raise NotImplementedError

    def run(self, num_steps: int) -> StepBlock:
        self.global_step += num_steps
        self.now_s += num_steps * self.step_s
        self.blocks.append(num_steps)
        loss = float("nan") if self.nan_from is not None and self.global_step >= self.nan_from else 1.0
        images = num_steps * 10
        times = (num_steps * self.step_s * share for share in (1.0, 0.01, 0.02, 0.9))
        return StepBlock(num_steps, images, loss, 0.5, *times, {0: self.global_step * 10})

    def evaluate(self, shards: Sequence[str], ks: tuple[int, ...], should_stop: Callable[[], bool]) -> Counts | None:
        self.evaluated_shards += len(shards)
        return None if should_stop() else Counts(len(shards), 1.0, dict.fromkeys(ks, 1))

    def measure_compute(self) -> float:
        self.measurements += 1
        return 0.6 * self.step_s

    def snapshot(self) -> dict[str, np.ndarray]:
        self.now_s += 0.25
        return {"step": np.array(self.global_step)}


class Diary:
    def __init__(self) -> None:
        self.entries: list[tuple[str, int]] = []
        self.positions: dict[int, tuple[int, ...]] = {}
        self.evaluating: list[int] = []
        self.measured_before: int | None = None
        self.held_s: list[float] = []
        self.room_from = 0  # the step from which on there is room
        self.waited: list[int] = []
        self.evaluated: set[int] = set()  # by an attempt before
        self.step = 0

    def on_block(self, step: int, block: StepBlock, learning_rate: float, profile: StepProfile) -> None:
        assert profile.steps <= step
        self.step = step
        if profile.compute_s is not None and self.measured_before is None:
            self.measured_before = step

    def has_room(self) -> bool:
        return self.step >= self.room_from

    def wait_for_room(self) -> None:
        if not self.has_room():
            self.waited.append(self.step)

    def on_checkpoint(
        self, step: int, variables: Mapping[str, np.ndarray], positions: tuple[int, ...], held_s: float
    ) -> None:
        assert variables["step"] == step
        self.held_s.append(held_s)
        self.entries.append(("save", step))
        self.positions[step] = positions

    def is_evaluated(self, step: int) -> bool:
        return step in self.evaluated

    def on_evaluating(self, step: int, num_examples: int) -> None:
        self.evaluating.append(num_examples)

    def on_evaluation(self, step: int, counts: Counts) -> None:
        self.entries.append(("evaluate", step))


def loop(engine: CountingEngine, diary: Diary, stop_at: int | None = None, **changes: Any) -> Loop:
    plan = dataclasses.replace(PLAN, **changes)
    engine.global_step = plan.start_step
    should_stop = (lambda: engine.global_step >= stop_at) if stop_at is not None else (lambda: False)
    return Loop(engine, plan, diary, should_stop, clock=lambda: engine.now_s)


@pytest.mark.parametrize(
    ("changes", "entries"),
    [
        ({}, [("save", 20)]),
        ({"save_steps": 8}, [("save", 8), ("save", 16), ("save", 20)]),
        ({"save_steps": 10}, [("save", 10), ("save", 20)]),
        ({"save_seconds": 9}, [("save", 9), ("save", 18), ("save", 20)]),
        (
            {"eval_steps": 15, "validation_shards": ("v",)},
            [("save", 15), ("evaluate", 15), ("save", 20), ("evaluate", 20)],
        ),
        (
            {"eval_steps": 10, "save_steps": 10, "validation_shards": ("v",)},
            [("save", 10), ("evaluate", 10), ("save", 20), ("evaluate", 20)],
        ),
        ({"eval_steps": 0, "validation_shards": ("v",)}, [("save", 20), ("evaluate", 20)]),
        ({"start_step": 20, "validation_shards": ("v",)}, [("evaluate", 20)]),
        ({"start_step": 20}, []),
    ],
)
def test_what_happens_when(changes: dict[str, Any], entries: list[tuple[str, int]]) -> None:
    diary = Diary()
    end = loop(CountingEngine(PLAN), diary, **changes).run()
    assert diary.entries == entries
    assert (end.step, end.interrupted) == (20, False)


@pytest.mark.parametrize("step_s", [0.0001, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("steps_at_once", [1, 3])
def test_exactly_the_steps_that_were_asked_for(step_s: float, steps_at_once: int) -> None:
    engine = CountingEngine(PLAN, step_s)
    engine.steps_at_once = steps_at_once
    end = loop(engine, Diary(), total_steps=1234, num_workers=3, positions=(0, 0, 0)).run()
    assert engine.global_step == end.step == sum(engine.blocks) == 1234
    assert end.images == 12340
    # Blocks are short in time, so that a stop is answered soon.
    assert max(engine.blocks) * step_s <= max(6.0, 3 * step_s)
    # No worker is idle at the end of one.
    assert all(steps % steps_at_once == 0 for steps in engine.blocks[:-1])


def test_a_save_without_room_is_made_later_and_the_steps_go_on() -> None:
    diary = Diary()
    diary.room_from = 9
    loop(CountingEngine(PLAN), diary, save_steps=4).run()
    assert diary.entries == [("save", 9), ("save", 12), ("save", 16), ("save", 20)]
    assert diary.waited == []
    by_time = Diary()
    by_time.room_from = 9
    loop(CountingEngine(PLAN), by_time, save_seconds=5).run()
    assert by_time.entries[0] == ("save", 9)


def test_the_saves_of_an_evaluation_and_of_the_end_wait_for_room() -> None:
    diary = Diary()
    diary.room_from = 100
    loop(CountingEngine(PLAN), diary, save_steps=4, eval_steps=15, validation_shards=("v",)).run()
    assert diary.entries == [("save", 15), ("evaluate", 15), ("save", 20), ("evaluate", 20)]
    assert diary.waited == [15, 20]
    stopped = Diary()
    stopped.room_from = 100
    loop(CountingEngine(PLAN), stopped, stop_at=7, save_steps=4).run()
    assert (stopped.entries, stopped.waited) == ([("save", 7)], [7])


def test_a_save_tells_how_long_the_steps_have_waited() -> None:
    diary = Diary()
    loop(CountingEngine(PLAN), diary, save_steps=10).run()
    assert diary.held_s == [0.25, 0.25]


def test_an_evaluation_tells_that_it_is_alive() -> None:
    diary = Diary()
    loop(CountingEngine(PLAN), diary, num_workers=2, positions=(0, 0), validation_shards=tuple("abcde")).run()
    assert diary.evaluating == [2, 4, 5]
    assert diary.entries == [("save", 20), ("evaluate", 20)]


def test_a_stop_saves_where_it_is_and_does_not_evaluate() -> None:
    diary = Diary()
    end = loop(CountingEngine(PLAN), diary, stop_at=7, validation_shards=("v",)).run()
    assert (end.step, end.interrupted) == (7, True)
    assert diary.entries == [("save", 7)]
    assert diary.positions == {7: (70,)}


@pytest.mark.parametrize("was_evaluated", [True, False])
def test_an_evaluation_that_the_attempt_before_has_not_done_comes_first(*, was_evaluated: bool) -> None:
    diary = Diary()
    diary.evaluated = {10} if was_evaluated else set()
    loop(CountingEngine(PLAN), diary, start_step=10, eval_steps=10, validation_shards=("v",)).run()
    end = [("save", 20), ("evaluate", 20)]
    assert diary.entries == (end if was_evaluated else [("evaluate", 10), *end])


def test_a_stop_interrupts_an_evaluation_within_training_and_at_its_end() -> None:
    for eval_steps in (5, 0):
        engine, diary = CountingEngine(PLAN), Diary()
        plan = dataclasses.replace(PLAN, eval_steps=eval_steps, validation_shards=tuple("abcde"))
        # Once the second shard has been begun.
        end = Loop(engine, plan, diary, lambda engine=engine: engine.evaluated_shards >= 2).run()  # type: ignore[misc]
        step = eval_steps or 20
        assert (end.step, end.interrupted, engine.evaluated_shards) == (step, True, 2)
        assert diary.entries == [("save", step)]
        assert engine.measurements == 0


def test_a_loss_that_is_no_number_ends_it_without_a_checkpoint_of_it() -> None:
    diary = Diary()
    with pytest.raises(DivergedError, match="before step 13"):
        loop(CountingEngine(PLAN, nan_from=13), diary, save_steps=6).run()
    assert diary.entries == [("save", 6), ("save", 12)]


def test_a_validation_loss_that_is_no_number_ends_it_and_is_no_evaluation() -> None:
    engine, diary = CountingEngine(PLAN), Diary()
    engine.evaluate = lambda shards, ks, _: Counts(len(shards), math.nan, dict.fromkeys(ks, 0))  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="the loss on the validation split is nan at step 5"):
        loop(engine, diary, eval_steps=5, validation_shards=("a",)).run()
    assert diary.entries == [("save", 5)]


def test_compute_is_measured_once_when_it_costs_a_hundredth_or_at_the_end() -> None:
    engine, diary = CountingEngine(PLAN), Diary()
    end = loop(engine, diary, total_steps=1000).run()
    # Tracing and two steps, 3 s by this engine's clock.
    assert diary.measured_before is not None
    assert 300 <= diary.measured_before <= 310
    assert engine.measurements == 1
    assert end.profile is not None
    assert end.profile.by == "compute"
    short = CountingEngine(PLAN)
    end = loop(short, Diary()).run()
    assert end.profile is not None
    assert (end.profile.by, end.profile.steps) == ("compute", 19)
    assert short.measurements == 1
    # A network's tracing takes longer than a handful of steps.
    handful = CountingEngine(PLAN)
    end = loop(handful, Diary(), start_step=12).run()
    assert end.profile is not None
    assert (handful.measurements, end.profile.compute_s) == (0, None)


def test_nobody_waits_for_a_measurement_after_a_stop() -> None:
    engine = CountingEngine(PLAN)
    end = loop(engine, Diary(), stop_at=7).run()
    assert engine.measurements == 0
    assert end.profile is not None
    assert end.profile.compute_s is None
    assert loop(CountingEngine(PLAN), Diary(), start_step=20).run().profile is None


def test_an_engine_that_loses_a_step_is_found_out() -> None:
    class Forgetful(CountingEngine):
        def run(self, num_steps: int) -> StepBlock:
            block = super().run(num_steps)
            self.global_step -= 1
            return block

    with pytest.raises(JobError, match="20 steps were run, the optimizer counts"):
        loop(Forgetful(PLAN), Diary(), save_steps=100).run()
