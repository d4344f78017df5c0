"""The two sides of a benchmark of steps, each in a process of its own: the cluster's engine, and plain Keras."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from tfos_job.errors import JobError
from tfos_job.host import signals
from tfos_job.protocol.topology import WorkerInput
from tfos_job.run.plan import TrainPlan

_STOP_S, _KILL_S = 6.0, 0.5

Cluster = dict[str, list[str]]
"""`host:port` of each task, by role."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A block of steps on one side.

    Attributes:
      steps, images, seconds: of the block.
      loss: mean over its images.
      update_s: time from a worker's last gradient to the end of the update, summed over the steps; 0 on the plain side.
      machine_cpu_s: the processor time that the whole machine spent meanwhile; 0 where nobody has looked.
    """

    steps: int
    images: int
    seconds: float
    loss: float
    update_s: float = 0.0
    machine_cpu_s: float = 0.0

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


def build_cluster_side(plan: TrainPlan, cluster: Cluster) -> Callable[[int], Result]:
    """The engine of `tfos-job train`, in the place of its coordinator."""
    from tfos_job.training.engines import engine_of

    engine = engine_of(cluster)
    engine.start(plan, None)

    def run(num_steps: int) -> Result:
        block = engine.run(num_steps)
        return Result(block.steps, block.images, block.seconds, block.loss, block.update_s)

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
        images = num_steps * plan.input.batch_size
        return Result(num_steps, images, time.monotonic() - began, statistics.fmean(losses))

    return run


def serve(build: Callable[..., Callable[[int], Result]], args: tuple[Any, ...], scratch: str, pipe: Connection) -> None:
    """What a side's process does: runs as many steps as it is told to, until the pipe closes."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    tempfile.tempdir = scratch
    try:
        run = build(*args)
        pipe.send(None)
        while True:
            pipe.send(run(pipe.recv()))
    except (EOFError, BrokenPipeError):
        pass
    except Exception as e:
        pipe.send(JobError(f"{type(e).__name__}: {e}"))
        raise
    finally:
        sys.stderr.flush()
        os._exit(0)  # TensorFlow's own end would wait for servers that are being stopped.


class Side:
    """One side's process, as the benchmark sees it; `started` makes one."""

    def __init__(self, build: Callable[..., Callable[[int], Result]], *args: Any) -> None:
        # TensorFlow leaves the source of every function it has traced in the folder for temporary files.
        self._scratch = tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-side-")
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(build, args, self._scratch.name, theirs), daemon=True)
        with _deaf_children():
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

    def close(self, grace_s: float = _STOP_S) -> None:
        """Ends the process; one that is in the midst of steps is killed after `grace_s`."""
        self._pipe.close()
        self._process.join(grace_s)
        self._process.kill()
        self._process.join()
        self._scratch.cleanup()


def started(stack: contextlib.ExitStack, build: Callable[..., Callable[[int], Result]], *args: Any) -> Side:
    """A side that ends with the stack; after an error at once: a step on a slow link may take a quarter of a minute.

    A signal is heard when the stack has it, so that neither its process nor its folder is left.
    """
    with _signals_held_back():
        side = Side(build, *args)
        stack.push(lambda kind, *_: side.close(*([] if kind is None else [_KILL_S])))
    return side


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Signals that come during a `with` are handled at its end.

    A mask would not do: the kernel gives a signal to any thread that does not block it, and Python has the main thread
    handle it all the same.
    """
    came: list[int] = []
    heard = [each for each in signals.SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = signals.install(lambda signum, _: came.append(signum), heard)
    try:
        yield
    finally:
        signals.restore(before)
        for signum in came:
            signal.raise_signal(signum)


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started within a `with` hear no Ctrl-C: the benchmark alone does, and then closes the pipe."""
    resource_tracker.ensure_running()  # its start, which comes with the first process, would undo the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("tensorflow", "tensorflow-cpu", "keras", "pyspark", "tensorflowonspark", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
