"""What a save costs: seconds that the steps of a training wait for a checkpoint, over two peers in the same run.

One parameter server and one worker, each TensorFlow's own server in a process, and the training engine in this one. The
ways take turns: a few steps, then a save, whose seconds count until steps could go on. What is written behind the steps
is waited for before the next way's turn.

- `ours`: the engine's snapshot, in one call, handed to the publisher as the coordinator does.
- `one_by_one`: the same publisher, with each variable read for itself (what this package did before).
- `tf_checkpoint`: `tf.train.Checkpoint.write` on the coordinator's disk, without hashing or a rename (what a plain
  program with TensorFlow's strategy does).

    python benchmarks/checkpoint.py

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from steps.noise import ENDLESS, Noise, fresh_plan
from steps.sides import versions

from tfos_job.config import TrainConfig
from tfos_job.host.child import Child, child_environment
from tfos_job.layout import RunLayout
from tfos_job.protocol.server import STOP, ServerSpec
from tfos_job.protocol.topology import CHIEF, INPUT_FILE, PS, WORKER
from tfos_job.run import checkpoints
from tfos_job.run.publisher import Publisher
from tfos_job.run.worker_inputs import worker_inputs

NETWORKS = ("hanzi_net", "chinese_rec")
WAYS = ("ours", "one_by_one", "tf_checkpoint")
_END_S = 10.0
_MB = 1e6


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[dict[str, list[str]]]:
    """A parameter server and a worker, for the length of a `with`; yields all addresses, the coordinator's too."""
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in (CHIEF, PS, WORKER)]
        cluster = {
            role: ["{}:{}".format(*sock.getsockname())] for role, sock in zip((CHIEF, PS, WORKER), found, strict=True)
        }
    children = []
    for role in (PS, WORKER):
        place = folder / role
        place.mkdir()
        child = Child("tfos_job.training.server_process", name=role, env=child_environment(""), cwd=str(place))
        children.append(child)
        spec = ServerSpec(cluster=cluster, role=role, index=0, num_gpus=0, orphaned_pids=[], folders=[str(place)])
        child.tell(dataclasses.asdict(spec))
    try:
        for child in children:
            while child.hear()["type"] != "Ready":
                pass
        yield cluster
    finally:
        for child in children:
            child.tell(STOP)
            child.end(_END_S)


class Saver:
    """A training's variables, and the three ways to save them; each has a run of its own in the folder."""

    def __init__(self, engine: Any, folder: Path) -> None:
        import tensorflow as tf

        from tfos_job.networks.variables import all_variables

        self._engine = engine
        self._folder = folder
        self._variables = all_variables(engine._model, engine._optimizer)
        values = {f"v{number}": variable.value for number, variable in enumerate(self._variables.values())}
        self._checkpoint = tf.train.Checkpoint(**values)
        # Without it each parameter server writes to its own disk.
        self._options = tf.train.CheckpointOptions(experimental_io_device=f"/job:{CHIEF}")
        self.num_variables = len(values)
        self.num_bytes = sum(value.dtype.size * math.prod(value.shape) for value in values.values())

    def save(self, way: str, step: int) -> float:
        """Saves, and waits for what is behind the steps; returns the seconds that the steps wait."""
        publisher = Publisher(RunLayout(str(self._folder / way)))
        ways: dict[str, Callable[[], None]] = {
            "ours": lambda: self._publish(publisher, step, self._engine.snapshot()),
            "one_by_one": lambda: self._publish(publisher, step, {k: v.numpy() for k, v in self._variables.items()}),
            "tf_checkpoint": lambda: self._write(step),
        }
        began_s = time.perf_counter()
        ways[way]()
        held_s = time.perf_counter() - began_s
        publisher.close()
        return held_s

    def _publish(self, publisher: Publisher, step: int, arrays: dict[str, Any]) -> None:
        publisher.wait_for_room()
        publisher.publish(step, arrays, dict.fromkeys(checkpoints.META_KEYS), lambda path: None)

    def _write(self, step: int) -> None:
        prefix = self._folder / "tf_checkpoint" / f"{step}"
        self._checkpoint.write(str(prefix), self._options)
        for file in prefix.parent.glob(f"{step - 1}.*"):
            file.unlink()


def measure(args: argparse.Namespace, engine: Any, noise: Noise, model_name: str, folder: Path) -> dict[str, Any]:
    """The seconds of each way in each round, for one network."""
    config = config_of(args, model_name, folder)
    engine.start(fresh_plan(config, noise.data(config)), None)
    place = folder / model_name
    (place / "tf_checkpoint").mkdir(parents=True)
    saver = Saver(engine, place)
    engine.run(args.block_steps)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(args.rounds):
        turn = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
        for way in turn:
            engine.run(args.block_steps)
            seconds[way].append(round(saver.save(way, number + 1), 4))
        said = ", ".join(f"{way} {values[-1]:.3f}" for way, values in seconds.items())
        print(f"{model_name}, round {number + 1} of {args.rounds}, seconds held: {said}", file=sys.stderr)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "held_s": {way: round(median, 3) for way, median in medians.items()},
        "first_s": {way: values[0] for way, values in seconds.items()},
        "ratio": {way: round(medians["ours"] / medians[way], 3) for way in WAYS[1:]},
        "rounds_s": seconds,
        "mb": round(saver.num_bytes / _MB, 1),
        "num_variables": saver.num_variables,
    }


def config_of(args: argparse.Namespace, model_name: str, folder: Path) -> TrainConfig:
    return TrainConfig(
        dataset_dir=str(folder),
        train_dir=str(folder),
        batch_size=args.batch_size,
        model_name=model_name,
        max_number_of_steps=ENDLESS,
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="seconds that steps wait for a checkpoint", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="some of them")
    parser.add_argument("--num_classes", type=int, default=3755, help="width of the network's last layer")
    parser.add_argument("--batch_size", type=int, default=32, help="images a step")
    parser.add_argument("--block_steps", type=int, default=4, help="steps before each save")
    parser.add_argument("--rounds", type=int, default=9, help="saves of each way")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    load = os.getloadavg()[0]
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    from tfos_job.training.parameter_server import ParameterServerEngine

    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-") as name, servers(Path(name)) as cluster:
        folder = Path(name)
        noise = Noise(folder, args.num_classes, seed=0)
        config = config_of(args, args.networks[0], folder)  # all networks have the same input
        (work,) = worker_inputs(config, noise.data(config), (0,))
        (folder / WORKER / INPUT_FILE).write_text(work.to_text())
        engine = ParameterServerEngine(cluster)
        results = {model_name: measure(args, engine, noise, model_name, folder) for model_name in args.networks}
    report = {
        "benchmark": "checkpoint",
        **results,
        **vars(args),
        "cores": os.cpu_count(),
        "load_average_at_start": round(load, 2),
        "load_average_at_end": round(os.getloadavg()[0], 2),
        "versions": versions(),
    }
    print(json.dumps(report), flush=True)
    os._exit(0)  # TensorFlow's own end would wait for servers that have stopped.


if __name__ == "__main__":
    main()
