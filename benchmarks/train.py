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
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import platform
import queue
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from pyspark import SparkContext

from tfos_job.config import TrainConfig
from tfos_job.driver import session
from tfos_job.driver.launch import NodeJob
from tfos_job.errors import JobError, ResourceError
from tfos_job.formats.charset import level1
from tfos_job.formats.example_writer import GlyphEncoder
from tfos_job.nodes.node import NodeArgs
from tfos_job.protocol import messages
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, to_error
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import CHIEF, PS, WORKER, Task, Topology, WorkerInput
from tfos_job.run.plan import InputSpec, TrainPlan, learning_rate_of
from tfos_job.run.specs import ModelSpec, normalization_of
from tfos_job.staging.cache_plan import MAX_WINDOW

_TOPOLOGY = Topology(num_ps_tasks=1, num_workers=1)
_MASTER = "local[2]"
_NUM_SHARDS = 8
_NUM_RECORDS = 4096
_START_TIMEOUT_S = 120
_STOP_S = 6.0
_SEED = 0
_PARAMETER_BYTES = 4
_ENDLESS = 1 << 30  # steps
_LOOPBACK = Path("/proc/net/dev")

Cluster = dict[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Result:
    """A block of steps on one side."""

    images_per_second: float
    loss: float


# --- the input --------------------------------------------------------------------------------------------------------


def write_shards(folder: Path, num_classes: int) -> tuple[str, ...]:
    """Shards of noise with the sizes of handwriting: speed does not depend on what the glyphs show."""
    draw = np.random.default_rng(_SEED)
    encoder = GlyphEncoder(level1(num_classes).characters, "raw")
    paths = []
    for number in range(_NUM_SHARDS):
        path = folder / f"part-{number:05d}.tfrecord"
        with open(path, "wb") as stream:
            for _ in range(_NUM_RECORDS // _NUM_SHARDS):
                height, width = (int(side) for side in draw.integers(64, 101, 2))
                label = int(draw.integers(num_classes))
                stream.write(encoder.encode_one(label, draw.bytes(height * width), width, height, path.name, 0))
        paths.append(str(path))
    return tuple(paths)


def make_plan(config: TrainConfig, num_classes: int) -> TrainPlan:
    """As `tfos-job train` would make it of a local dataset."""
    return TrainPlan(
        model=ModelSpec(
            model_name=config.model_name,
            num_classes=num_classes,
            image_size=config.side,
            num_channels=1,
            keep_prob=config.keep_prob,
        ),
        trainable_scopes=(),
        initial_weights=None,
        seed=config.seed,
        num_workers=_TOPOLOGY.num_workers,
        input=InputSpec(
            mode=config.resolved_input_mode(_NUM_RECORDS),
            staged=False,
            window=MAX_WINDOW,
            batch_size=config.batch_size,
            shuffle_buffer=config.shuffle_buffer,
            antialias=False,
            augmentation=config.augmentation,
            normalization=normalization_of(config),
            statistics=None,
        ),
        learning_rate=learning_rate_of(config, _ENDLESS),
        label_smoothing=config.label_smoothing,
        start_step=0,
        total_steps=_ENDLESS,
        positions=(0,),
        save_steps=None,
        save_seconds=None,
        eval_steps=0,
        validation_shards=(),
    )


# --- the two sides, each in a process of its own ----------------------------------------------------------------------


def build_cluster_side(plan: TrainPlan, cluster: Cluster) -> Callable[[int], Result]:
    """The engine of `tfos-job train`, in the place of its coordinator."""
    from tfos_job.training.parameter_server import ParameterServerEngine

    engine = ParameterServerEngine(cluster)
    engine.start(plan, None)

    def run(num_steps: int) -> Result:
        block = engine.run(num_steps)
        return Result(block.images / block.seconds, block.loss)

    return run


def build_plain_side(plan: TrainPlan, worker_input: WorkerInput) -> Callable[[int], Result]:
    """The same network, input and loss with Keras's own Adam, in this process alone."""
    import keras
    import tensorflow as tf

    from tfos_job.input.pipeline import training_dataset
    from tfos_job.networks import registry

    model = registry.build(**vars(plan.model), seed=plan.seed)
    rate = plan.learning_rate
    schedule = keras.optimizers.schedules.ExponentialDecay(
        rate.learning_rate, rate.decay_steps, rate.decay_factor, staircase=True
    )
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(model.trainable_variables)
    dataset = training_dataset(
        worker_input.shards,
        mode=plan.input.mode,
        num_records=worker_input.num_records,
        batch_size=plan.input.batch_size,
        form=plan.form,
        seed=worker_input.seed,
        shuffle_buffer=plan.input.shuffle_buffer,
        augmentation=plan.input.augmentation,
    )
    batches = iter(dataset)

    # Not the package's train_step: what is done there for the wire must not slow the peer down.
    @tf.function
    def step(iterator: tf.data.Iterator) -> tf.Tensor:
        images, labels, _ = next(iterator)
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    def run(num_steps: int) -> Result:
        began = time.monotonic()
        losses = [float(step(batches)) for _ in range(num_steps)]
        return Result(num_steps * plan.input.batch_size / (time.monotonic() - began), statistics.fmean(losses))

    return run


def serve(build: Callable[..., Callable[[int], Result]], args: tuple[Any, ...], pipe: Connection) -> None:
    """What a side's process does: runs as many steps as it is told to, until the pipe closes."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    try:
        run = build(*args)
        pipe.send(None)
        while True:
            pipe.send(run(pipe.recv()))
    except EOFError:
        pass
    except Exception as e:
        pipe.send(JobError(f"{type(e).__name__}: {e}"))
        raise
    finally:
        sys.stderr.flush()
        os._exit(0)  # TensorFlow's own end would wait for servers that are being stopped.


class Side:
    """One side's process, as the benchmark sees it."""

    def __init__(self, build: Callable[..., Callable[[int], Result]], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(build, args, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_built(self) -> None:
        self._receive()

    def run(self, num_steps: int) -> Result:
        self._pipe.send(num_steps)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise JobError(f"process {self._process.pid} ended without a word") from None
        if isinstance(answer, JobError):
            raise answer
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(_STOP_S)
        self._process.kill()
        self._process.join()


# --- the nodes --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def nodes_up(sc: SparkContext, worker_input: WorkerInput) -> Iterator[Cluster]:
    """A TFCluster whose servers answer, for the length of a `with`; yields all addresses, the coordinator's too."""
    host = sc.getConf().get("spark.driver.host") or ""
    key = new_key()
    switchboard = Switchboard(host, key)
    # Held until the servers answer: they must know the coordinator's address before it is there.
    with socket.create_server((host, 0)) as chief_port:
        chief = "{}:{}".format(*chief_port.getsockname()[:2])
        args = NodeArgs(
            driver=switchboard.address,
            key=key,
            attempt=0,
            driver_host_tasks={CHIEF: [chief]},
            inputs=(worker_input,),
            num_gpus=0,
            local=True,
            start_timeout=_START_TIMEOUT_S,
        )
        job = NodeJob(sc, _TOPOLOGY, args, switchboard.events)
        job.start()
        try:
            addresses = _wait_for_servers(switchboard)
        except BaseException:
            _take_down(job, switchboard)
            raise
    try:
        job.close_registration()
        yield {CHIEF: [chief], PS: [addresses[Task(PS, 0)]], WORKER: [addresses[Task(WORKER, 0)]]}
    finally:
        _take_down(job, switchboard)


def _wait_for_servers(switchboard: Switchboard) -> dict[Task, str]:
    addresses: dict[Task, str] = {}
    ready: set[Task] = set()
    deadline = time.monotonic() + _START_TIMEOUT_S
    while ready != set(_TOPOLOGY.nodes):
        try:
            event = switchboard.events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ResourceError(f"the cluster was not up within {_START_TIMEOUT_S} s") from None
        if isinstance(event, Failure):
            raise to_error([event])
        if isinstance(event, Joined):
            addresses[event.task] = f"{event.hello.host}:{event.hello.port}"
        elif isinstance(event, Said) and isinstance(event.message, messages.Ready):
            ready.add(event.task)
        elif isinstance(event, Lost) or (isinstance(event, Said) and not isinstance(event.message, messages.Vitals)):
            raise JobError(f"while the cluster was starting: {event}")
    return addresses


def _take_down(job: NodeJob, switchboard: Switchboard) -> None:
    for task in _TOPOLOGY.nodes:
        switchboard.send(task, messages.Stop())
    job.wait(_STOP_S)
    job.close(_STOP_S)
    switchboard.close()


# --- the benchmark ----------------------------------------------------------------------------------------------------


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


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("tensorflow", "tensorflow-cpu", "keras", "pyspark", "tensorflowonspark", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


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
        config = TrainConfig(dataset_dir=folder, train_dir=folder, batch_size=args.batch_size, seed=_SEED)
        plan = make_plan(config, args.num_classes)
        shards = write_shards(Path(folder), args.num_classes)
        worker_input = WorkerInput(worker=0, seed=_SEED, start_record=0, num_records=_NUM_RECORDS, shards=shards)
        settings = session.training_settings(_TOPOLOGY, _MASTER, max_restarts=0)
        with contextlib.ExitStack() as stack:
            spark = stack.enter_context(session.open_session("tfos_job benchmark train", _MASTER, settings))
            cluster = stack.enter_context(nodes_up(spark.sparkContext, worker_input))
            sides = []
            # One after the other: two networks that are built at once would only wait for each other.
            for build, given in ((build_cluster_side, cluster), (build_plain_side, worker_input)):
                side = Side(build, plan, given)
                stack.callback(side.close)
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
