"""Trains some steps on a real cluster, then from each of their checkpoints on; prints the differences at the end.

So for each network, on one cluster: a program of its own, since TensorFlow's coordinator binds a process to it.
Usage: DATASET_DIR TRAIN_DIR.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.plan import PLAN
from tfos_job.config import COSINE, EXPONENTIAL, FILES, PRELOADED, AugmentationConfig
from tfos_job.formats import manifest
from tfos_job.host.child import Child, child_environment
from tfos_job.inference.evaluation import Counts
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.protocol.server import STOP, ServerSpec
from tfos_job.protocol.topology import CHIEF, INPUT_FILE, PS, WORKER, WorkerInput
from tfos_job.run import checkpoints
from tfos_job.run.plan import TrainPlan
from tfos_job.training.bottleneck import StepProfile
from tfos_job.training.engine import StepBlock
from tfos_job.training.loop import Loop
from tfos_job.training.parameter_server import ParameterServerEngine

NUM_STEPS = 4
# What the two recipes differ in, beside the network.
DECAYS: dict[str, dict[str, Any]] = {
    "chinese_rec": {"decay_type": EXPONENTIAL},
    "hanzi_net": {"decay_type": COSINE, "warmup_steps": 2},
}
LABEL_SMOOTHING = {"chinese_rec": 0.0, "hanzi_net": 0.1}
INPUT_MODES = {"chinese_rec": FILES, "hanzi_net": PRELOADED}
AUGMENTATION = AugmentationConfig(
    random_flip_up_down=True,
    random_brightness=0.3,
    random_contrast=0.2,
    random_rotation=10.0,
    elastic_distortion=0.02,
)
PUSH_EVERY = {"chinese_rec": 2, "hanzi_net": 1}
# 80 records, 32 in a step: the border of an epoch lies within the third step, with two before and one behind it.
STEP_IMAGES = 32
# Of the unbroken run and of what is left after each step.
NUM_IMAGES = len(INPUT_MODES) * STEP_IMAGES * NUM_STEPS * (NUM_STEPS + 1) // 2


class Recorder:
    """Publishes every checkpoint under `run`."""

    def __init__(self, run: RunLayout) -> None:
        self.run = run

    def on_block(self, step: int, block: StepBlock, learning_rate: float, profile: StepProfile) -> None:
        pass

    def is_evaluated(self, step: int) -> bool:
        return True

    def on_evaluating(self, step: int, num_examples: int) -> None:
        pass

    def on_evaluation(self, step: int, counts: Counts) -> None:
        pass

    def has_room(self) -> bool:
        return True

    def wait_for_room(self) -> None:
        pass

    def on_checkpoint(
        self, step: int, variables: Mapping[str, np.ndarray], positions: tuple[int, ...], held_s: float
    ) -> None:
        meta: dict[str, Any] = dict.fromkeys(checkpoints.META_KEYS)
        checkpoints.publish(self.run, step, variables, {**meta, "input_position": {"records_read": positions}})


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def start_node(cluster: dict[str, list[str]], role: str, folder: Path, index: int = 0, num_gpus: int = 0) -> Child:
    """A TensorFlow server in a process of its own; of GPUs that this host does not have it makes CPUs."""
    folder.mkdir(parents=True)
    node = Child("tfos_job.training.server_process", name=role, env=child_environment(""), cwd=str(folder))
    spec = ServerSpec(
        cluster=cluster,
        role=role,
        index=index,
        num_gpus=num_gpus,
        orphaned_pids=[],
        folders=[str(folder)],
        allow_cpu=True,
    )
    node.tell(dataclasses.asdict(spec))
    while (said := node.hear())["type"] == "Notice":
        pass
    assert said["type"] == "Ready", said
    return node


def after_a_break(engine: ParameterServerEngine, should_stop: Callable[[], bool] | None) -> tuple[int, str]:
    """How often a closure is run whose connection breaks the first time, and what is raised where it is waited for."""
    runs = []

    def breaks() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise tf.errors.UnavailableError(None, None, "/job:worker/replica:0/task:0: connection reset by peer")

    engine._coordinator._cluster.schedule(breaks, args=(), kwargs={})  # `schedule` takes graphs alone
    try:
        engine._join(should_stop)
    except tf.errors.OpError as error:
        return len(runs), type(error).__name__
    return len(runs), ""


def plan_for(model_name: str, start_step: int, position: int) -> TrainPlan:
    return dataclasses.replace(
        PLAN,
        model=dataclasses.replace(PLAN.model, model_name=model_name),
        seed=1,
        input=dataclasses.replace(
            PLAN.input,
            mode=INPUT_MODES[model_name],
            batch_size=STEP_IMAGES // PUSH_EVERY[model_name],
            shuffle_buffer=32,
            augmentation=AUGMENTATION,
        ),
        learning_rate=dataclasses.replace(
            PLAN.learning_rate,
            learning_rate=1e-3,
            decay_factor=0.5,
            decay_steps=3,
            total_steps=NUM_STEPS,
            **DECAYS[model_name],
        ),
        label_smoothing=LABEL_SMOOTHING[model_name],
        push_every=PUSH_EVERY[model_name],
        start_step=start_step,
        total_steps=NUM_STEPS,
        positions=(position,),
        save_steps=1 if start_step == 0 else None,
    )


def differences(
    train: Callable[[RunLayout, int, Mapping[str, np.ndarray] | None, int], None], train_dir: str
) -> dict[str, Any]:
    """Of the variables in the end, by the step that a run goes on from; and how far they move without a break."""
    unbroken = RunLayout(f"{train_dir}/unbroken")
    train(unbroken, 0, None, 0)
    expected = checkpoints.load(checkpoints.verify(unbroken.checkpoint(NUM_STEPS)))
    found = {}
    for step in range(1, NUM_STEPS):
        info = checkpoints.verify(unbroken.checkpoint(step))
        resumed = RunLayout(f"{train_dir}/resumed-{step}")
        train(resumed, step, checkpoints.load(info), info.input_position["records_read"][0])
        found[step] = largest_difference(checkpoints.load(checkpoints.verify(resumed.checkpoint(NUM_STEPS))), expected)
    start = checkpoints.load(checkpoints.verify(unbroken.checkpoint(1)))
    return {"differences": found, "moved": largest_difference(start, expected)}


def largest_difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in other)


def of_gradients(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The slots that are linear in gradients; weights are not: Adam makes whole steps of rounding."""
    return {name: array for name, array in arrays.items() if name.endswith("_momentum")}


def end_nodes(nodes: Iterable[Child]) -> None:
    for node in nodes:
        node.tell(STOP)
        node.end(grace_s=30)


def main(dataset_dir: str, train_dir: str) -> None:
    split = DatasetLayout(dataset_dir).split("train")
    contents = manifest.load(split)
    cluster = {role: [free_address()] for role in (CHIEF, PS, WORKER)}
    nodes = Path(train_dir) / "nodes"
    processes = [start_node(cluster, role, nodes / role) for role in (PS, WORKER)]
    engine = ParameterServerEngine(cluster)

    def train(
        model_name: str, run: RunLayout, start_step: int, variables: Mapping[str, np.ndarray] | None, position: int
    ) -> None:
        worker_input = WorkerInput(
            worker=0,
            seed=1,
            start_record=position,
            num_records=contents.num_records,
            shards=tuple(manifest.shard_paths(split, contents)),
        )
        (nodes / WORKER / INPUT_FILE).write_text(worker_input.to_text())
        plan = plan_for(model_name, start_step, position)
        engine.start(plan, variables)
        Loop(engine, plan, Recorder(run), should_stop=lambda: False).run()

    result = {name: differences(functools.partial(train, name), f"{train_dir}/{name}") for name in INPUT_MODES}
    breaks = [after_a_break(engine, should_stop) for should_stop in (None, lambda: False)]
    print(json.dumps({"networks": result, "after_a_break": breaks}), flush=True)
    end_nodes(processes)


if __name__ == "__main__":
    main(*sys.argv[1:])
