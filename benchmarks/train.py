"""Training speed: images a second through TFCluster over plain single-process Keras, in one run.

The cluster is the one of `tfos-job train` on `local[2]`: Spark, TensorFlowOnSpark's rendezvous, one parameter server
and one worker under their supervisors, the control line, and the training engine in a coordinator process of its own.
The peer is one process with the same network, input pipeline, loss and optimizer in a `tf.function` of its own, without
a strategy. Both stay alive and take turns in blocks of a few steps, so that both see the same machine; the idle side
waits without using a core.

    python benchmarks/train.py

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps.nodes import nodes_up
from steps.noise import ENDLESS, Noise, fresh_plan
from steps.sides import Side, build_cluster_side, build_plain_side, started, versions

from tfos_job.config import FLOAT32, TrainConfig
from tfos_job.driver import session
from tfos_job.protocol.topology import Topology
from tfos_job.run.plan import TrainPlan
from tfos_job.run.worker_inputs import worker_inputs

_TOPOLOGY = Topology(num_ps_tasks=1, num_workers=1)
_MASTER = "local[2]"
_SEED = 0
_PARAMETER_BYTES = 4
_LOOPBACK = Path("/proc/net/dev")


def loopback_bytes() -> int | None:
    """Bytes sent over the loopback device since the machine started; None where the system does not say."""
    if not _LOOPBACK.exists():
        return None
    fields = next(line.split() for line in _LOOPBACK.read_text().splitlines() if line.strip().startswith("lo:"))
    return int(fields[9])


def count_parameters(plan: TrainPlan) -> int:
    import tensorflow as tf

    from tfos_job.networks import registry

    with tf.device("cpu"):
        return int(registry.build(**vars(plan.model), seed=0).count_params())


def measure(args: argparse.Namespace, cluster_side: Side, plain_side: Side) -> dict[str, Any]:
    """Blocks in turn; who goes first changes with every round."""
    sides = {"cluster": cluster_side, "plain": plain_side}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, float] = {}
    wire: list[float] = []
    for name, side in sides.items():
        warm = side.run(args.warm_up_steps)
        print(f"{name}: warm, {warm.images_per_second:.1f} images/s, loss {warm.loss:.3f}", file=sys.stderr)
    for number in range(args.rounds):
        for name in sorted(sides, reverse=bool(number % 2)):
            before = loopback_bytes()
            result = sides[name].run(args.block_steps)
            after = loopback_bytes()
            rates[name].append(round(result.images_per_second, 1))
            losses[name] = result.loss
            if name == "cluster" and before is not None and after is not None:
                wire.append((after - before) / args.block_steps)
        cluster, plain = rates["cluster"][-1], rates["plain"][-1]
        print(
            f"round {number + 1} of {args.rounds}: cluster {cluster} images/s, plain {plain} images/s, "
            f"ratio {cluster / plain:.3f}",
            file=sys.stderr,
        )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "ratio": round(medians["cluster"] / medians["plain"], 3),
        "cluster_images_per_second": round(medians["cluster"], 1),
        "plain_images_per_second": round(medians["plain"], 1),
        "cluster_rounds": rates["cluster"],
        "plain_rounds": rates["plain"],
        "last_losses": {name: round(loss, 4) for name, loss in losses.items()},
        "loopback_bytes_per_step": round(statistics.median(wire)) if wire else None,
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="images/s through TFCluster over plain Keras",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--num_classes", type=int, default=3755, help="width of the network's last layer")
    parser.add_argument("--batch_size", type=int, default=128, help="images a step")
    parser.add_argument("--block_steps", type=int, default=8, help="steps before the other side's turn")
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each side")
    parser.add_argument("--warm_up_steps", type=int, default=6, help="steps of each side that are not counted")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-") as folder:
        config = TrainConfig(
            dataset_dir=folder,
            train_dir=folder,
            batch_size=args.batch_size,
            seed=_SEED,
            max_number_of_steps=ENDLESS,
            wire_dtype=FLOAT32,  # as the peer's
        )
        data = Noise(Path(folder), args.num_classes, _SEED).data(config)
        plan, inputs = fresh_plan(config, data), worker_inputs(config, data, (0,))
        settings = session.training_settings(_TOPOLOGY, _MASTER, max_restarts=0)
        with contextlib.ExitStack() as stack:
            spark = stack.enter_context(session.open_session("tfos_job benchmark train", _MASTER, settings))
            cluster = stack.enter_context(nodes_up(spark.sparkContext, _TOPOLOGY, inputs))
            sides = []
            # One after the other: two networks that are built at once would only wait for each other.
            for build, given in ((build_cluster_side, cluster), (build_plain_side, inputs[0])):
                side = started(stack, build, plan, given)
                side.wait_until_built()
                sides.append(side)
            measured = measure(args, *sides)
    num_parameters = count_parameters(plan)
    report = {
        "benchmark": "train",
        **measured,
        "bytes_per_step": 2 * _PARAMETER_BYTES * num_parameters,  # float32 variables there, float32 gradients back
        "num_parameters": num_parameters,
        **vars(args),
        "cores": os.cpu_count(),
        "load_average_at_start": round(load, 2),
        "versions": versions(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
