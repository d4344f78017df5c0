"""Trains some steps by all-reduce on real nodes, and the same on all their images at once in this process.

Prints what it found. A program of its own, since TensorFlow binds a process to a cluster.
Usage: DATASET_DIR FOLDER NUM_GPUS. Of the GPUs there are none: each is a CPU of its own to TensorFlow (`--allow_cpu`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.cluster.resume_every_step import end_nodes, free_address, largest_difference, of_gradients, start_node
from tests.plan import PLAN
from tfos_job.config import BFLOAT16
from tfos_job.formats import manifest
from tfos_job.layout import DatasetLayout
from tfos_job.networks import registry
from tfos_job.networks.variables import all_variables
from tfos_job.protocol.topology import CHIEF, INPUT_FILE, WORKER, WorkerInput
from tfos_job.run.plan import TrainPlan
from tfos_job.training.all_reduce import AllReduceEngine
from tfos_job.training.optimizer import build_optimizer
from tfos_job.training.step import train_step
from tfos_job.training.worker_graphs import worker_dataset

NUM_WORKERS, NUM_STEPS, BATCH_SIZE, PUSH_EVERY = 2, 3, 8, 2
RATE = 1e-3


def plan_of(model_name: str, keep_prob: float = 1.0, **changes: Any) -> TrainPlan:
    return dataclasses.replace(
        PLAN,
        model=dataclasses.replace(PLAN.model, model_name=model_name, keep_prob=keep_prob),
        input=dataclasses.replace(PLAN.input, batch_size=BATCH_SIZE, shuffle_buffer=20),
        learning_rate=dataclasses.replace(PLAN.learning_rate, learning_rate=RATE),
        push_every=PUSH_EVERY,
        num_workers=NUM_WORKERS,
        **changes,
    )


def streams(folders: list[Path], plan: TrainPlan, engine: AllReduceEngine) -> Iterator[list[tuple[Any, Any]]]:
    """The batches of each step, of all workers, read here."""
    iterators = []
    for folder in folders:
        os.chdir(folder)
        iterators.append(iter(worker_dataset(plan, engine._normalization)))
    while True:
        yield [next(iterator)[0][:2] for iterator in iterators for _ in range(engine._per_worker * PUSH_EVERY)]


def at_once(plan: TrainPlan, batches: Iterator[list[tuple[Any, Any]]]) -> tuple[list[float], dict[str, np.ndarray]]:
    """The losses of steps of one batch that has the images of all, and the variables after them."""
    model, optimizer = registry.build(**vars(plan.model), seed=plan.seed), build_optimizer(plan.learning_rate)
    optimizer.build(model.trainable_variables)
    step = tf.function(lambda images, labels: train_step(model, optimizer, images, labels).loss)
    losses = []
    for _, of_step in zip(range(NUM_STEPS), batches, strict=False):
        images, labels = (tf.concat(each, axis=0) for each in zip(*of_step, strict=True))
        losses.append(float(step(images, labels)))
    return losses, {name: variable.numpy() for name, variable in all_variables(model, optimizer).items()}


def differing(engine: AllReduceEngine) -> list[str]:
    """The variables that are not the same in all replicas, but for moving statistics and random numbers."""
    wrong = []
    for replica in engine._replicas[1:]:
        first = engine._replicas[0]
        pairs = zip(first.model.trainable_variables, replica.model.trainable_variables, strict=True)
        slots = zip(first.optimizer.variables, replica.optimizer.variables, strict=True)
        wrong += [one.path for one, other in [*pairs, *slots] if not np.array_equal(one.numpy(), other.numpy())]
    return wrong


def check_gradients(engine: AllReduceEngine, folders: list[Path]) -> dict[str, Any]:
    plan = plan_of("chinese_rec")
    engine.start(plan, None)
    blocks = [engine.run(1), engine.run(NUM_STEPS - 1)]
    trained = engine.snapshot()
    losses, expected = at_once(plan, streams(folders, plan, engine))
    shards = [str(path) for folder in folders for path in (folder / INPUT_FILE).read_text().split("\n")[4:]]
    counts = engine.evaluate(shards, (1, 3), lambda: False)
    assert counts is not None
    found = {
        "num_replicas": len(engine._replicas),
        "steps": [sum(block.steps for block in blocks), engine.global_step],
        "images": [block.images for block in blocks],
        "positions": blocks[-1].positions,
        "workers": sorted(blocks[-1].worker_step_s),
        "losses": [blocks[0].loss, losses[0], blocks[1].loss, float(np.mean(losses[1:]))],
        "same_names": list(trained) == list(expected),
        "gradients": largest_difference(of_gradients(trained), of_gradients(expected)),
        "weights": largest_difference(trained, expected),
        "differing": differing(engine),
        "counted": counts.num_examples,
        "stopped": engine.evaluate(shards, (1, 3), lambda: True) is None,
        "compute_s": engine.measure_compute(),
        "step_bytes": engine.step_bytes,
    }
    engine.start(dataclasses.replace(plan, wire_dtype=BFLOAT16), None)
    rounded = [engine.run(1).loss, engine.run(NUM_STEPS - 1).loss]
    found["bfloat16"] = {"losses": rounded, "step_bytes": engine.step_bytes, "differing": differing(engine)}
    return found


def check_statistics(engine: AllReduceEngine) -> dict[str, Any]:
    """Of a network with dropout and batch normalisation, whose states are each replica's own until a checkpoint."""
    plan = plan_of("hanzi_net", keep_prob=0.8)
    engine.start(plan, None)
    engine.run(2)
    moving = [
        {v.path: v.numpy() for v in replica.model.non_trainable_variables if "moving" in v.path}
        for replica in engine._replicas
    ]
    apart = max(float(np.abs(moving[0][path] - moving[-1][path]).max()) for path in moving[0])
    means = {f"model/{path}": np.mean([each[path] for each in moving], axis=0) for path in moving[0]}
    taken = engine.snapshot()
    again = engine.snapshot()
    engine.start(plan, taken)  # as another attempt would
    states = [
        v.numpy().tolist()
        for replica in engine._replicas
        for v in replica.model.non_trainable_variables
        if "random" in v.path
    ]
    return {
        "resumed": [largest_difference(engine.snapshot(), taken), engine.global_step],
        "random": [[seed - states[0][0], count] for seed, count in states],
        "apart": apart,
        "from_mean": largest_difference({name: taken[name] for name in means}, means),
        "again": largest_difference(again, taken),
        "differing": differing(engine),
    }


def main(dataset_dir: str, folder: str, num_gpus: int) -> None:
    split = DatasetLayout(dataset_dir).split("train")
    contents = manifest.load(split)
    shards = tuple(map(os.path.abspath, manifest.shard_paths(split, contents)))
    cluster = {CHIEF: [free_address()], WORKER: [free_address() for _ in range(NUM_WORKERS)]}
    folders = [Path(folder).resolve() / f"{WORKER}-{index}" for index in range(NUM_WORKERS)]
    processes = [start_node(cluster, WORKER, each, index, num_gpus) for index, each in enumerate(folders)]
    for index, each in enumerate(folders):
        own = shards[index::NUM_WORKERS]
        records = sum(shard.num_records for shard in contents.shards[index::NUM_WORKERS])
        given = WorkerInput(worker=index, seed=1 + index, start_record=0, num_records=records, shards=own)
        (each / INPUT_FILE).write_text(given.to_text())
    engine = AllReduceEngine(cluster)
    result = {"gradients": check_gradients(engine, folders), "statistics": check_statistics(engine)}
    print(json.dumps(result), flush=True)
    end_nodes(processes)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
