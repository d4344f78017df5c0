"""Trains some steps on a real cluster with several parameter servers in each placement; prints what it found.

A program of its own, since TensorFlow's coordinator binds a process to a cluster.
Usage: DATASET_DIR FOLDER NUM_PS_TASKS.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.cluster.resume_every_step import end_nodes, free_address, largest_difference, of_gradients, start_node
from tests.plan import PLAN
from tfos_job.config.defaults import PS_PLACEMENTS
from tfos_job.formats import manifest
from tfos_job.layout import DatasetLayout
from tfos_job.networks import registry
from tfos_job.networks.variables import all_variables, assign_all
from tfos_job.protocol.topology import CHIEF, INPUT_FILE, PS, WORKER, WorkerInput
from tfos_job.run.network_variables import known_variables
from tfos_job.run.placement import part_path, place
from tfos_job.run.plan import TrainPlan
from tfos_job.training.optimizer import build_optimizer
from tfos_job.training.parameter_server import ParameterServerEngine
from tfos_job.training.placed_network import server_of

NUM_STEPS, BATCH_SIZE = 6, 16  # behind the first step a closure of several, and one of a single step
Checkpoint = Mapping[str, np.ndarray]
PLAN_HERE = dataclasses.replace(
    PLAN,
    model=dataclasses.replace(PLAN.model, keep_prob=1.0),
    input=dataclasses.replace(PLAN.input, batch_size=BATCH_SIZE),
    learning_rate=dataclasses.replace(PLAN.learning_rate, learning_rate=1e-3),
)


def on_one_server(plan: TrainPlan, arrays: Checkpoint | None = None) -> dict[str, np.ndarray]:
    """What a checkpoint has that is written with one parameter server, where no variable is placed.

    Begun with the arrays of another checkpoint, or fresh.
    """
    model, optimizer = registry.build(**vars(plan.model), seed=plan.seed), build_optimizer(plan.learning_rate)
    optimizer.build(model.trainable_variables)
    if arrays is not None:
        assign_all(model, optimizer, arrays)
    return {name: variable.numpy() for name, variable in all_variables(model, optimizer).items()}


def misplaced(engine: ParameterServerEngine, plan: TrainPlan, num_ps_tasks: int) -> list[str]:
    """The variables that do not lie where the plan's placement, made without TensorFlow, has them."""
    variables = known_variables(plan.model, plan.trainable_scopes, plan.wire_dtype)
    assert variables is not None
    expected = place(variables, num_ps_tasks, plan.ps_placement)
    model = {variable.path: server_of(variable.value) for variable in engine._model.variables}
    wrong = [path for path in model.keys() | expected.owners.keys() if model.get(path) != expected.owners.get(path)]
    wrong += [path for path, parts in expected.parts.items() if part_path(path, len(parts) - 1) not in model]
    slots = engine._optimizer.variables[1:]
    for at, variable in enumerate(engine._model.trainable_variables):
        wrong += [it.path for it in slots[2 * at : 2 * at + 2] if server_of(it.value) != server_of(variable.value)]
    return wrong + ([] if engine.step_bytes == expected.step_bytes else [f"{engine.step_bytes} {expected.step_bytes}"])


def check(engine: ParameterServerEngine, plan: TrainPlan, num_ps_tasks: int) -> tuple[dict[str, Any], list[Checkpoint]]:
    """What was found with fresh variables, and the checkpoints after the first and the last step."""
    fresh = on_one_server(plan)
    engine.start(plan, None)
    begun = engine.snapshot()
    blocks = [engine.run(1)]
    after_one = engine.snapshot()
    blocks.append(engine.run(NUM_STEPS - 1))
    trained = engine.snapshot()
    found = {
        "misplaced": misplaced(engine, plan, num_ps_tasks),
        "same_names": list(begun) == list(trained) == list(fresh),
        "fresh": largest_difference(begun, fresh),
        "moved": largest_difference(of_gradients(after_one), of_gradients(begun)),
        "on_one_server": largest_difference(on_one_server(plan, trained), trained),
        "steps": [sum(block.steps for block in blocks), engine.global_step],
        "images": [sum(block.images for block in blocks), blocks[-1].positions[0]],
        "losses": [block.loss for block in blocks],
        "step_bytes": engine.step_bytes,
    }
    return found, [after_one, trained]


def main(dataset_dir: str, folder: str, num_ps_tasks: int) -> None:
    split = DatasetLayout(dataset_dir).split("train")
    contents = manifest.load(split)
    cluster = {CHIEF: [free_address()], PS: [free_address() for _ in range(num_ps_tasks)], WORKER: [free_address()]}
    nodes = Path(folder)
    tasks = [*((PS, index) for index in range(num_ps_tasks)), (WORKER, 0)]
    processes = [start_node(cluster, role, nodes / f"{role}-{index}", index) for role, index in tasks]
    shards = tuple(manifest.shard_paths(split, contents))
    worker_input = WorkerInput(worker=0, seed=1, start_record=0, num_records=contents.num_records, shards=shards)
    (nodes / f"{WORKER}-0" / INPUT_FILE).write_text(worker_input.to_text())
    engine = ParameterServerEngine(cluster)
    result, first = {}, None
    for ps_placement in PS_PLACEMENTS:
        plan = dataclasses.replace(PLAN_HERE, ps_placement=ps_placement)
        result[ps_placement], made = check(engine, plan, num_ps_tasks)
        first = first or made
        result[ps_placement]["gradients"] = largest_difference(of_gradients(made[0]), of_gradients(first[0]))
    assert first is not None
    engine.start(plan, first[-1])  # a checkpoint of another placement, in the last one
    resumed = {"difference": largest_difference(engine.snapshot(), first[-1])}
    result["resumed"] = resumed | {"steps": [engine.run(1).steps, engine.global_step]}
    print(json.dumps(result), flush=True)
    end_nodes(processes)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
