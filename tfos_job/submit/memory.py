"""How much memory a container needs, from what runs in it. Pure; docs/operations.md has the table.

A YARN container holds a JVM and, beside it, Python and TensorFlow processes, which Spark knows nothing of: they live in
the *overhead* (`spark.executor.memoryOverhead`, `spark.driver.memoryOverhead`). YARN kills a container that is larger
than heap and overhead together. All figures are MiB; those in capitals were measured (resident, TensorFlow 2.21).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

JVM_BESIDE_HEAP = 300  # classes, threads, Netty's buffers
SUPERVISOR = 220  # Spark's Python worker, TFoS's manager, the process that watches TensorFlow
DRIVER_PYTHON = 250
TENSORFLOW = 650  # a process that has imported TensorFlow and serves gRPC
CUDA_HOST = 2500  # what CUDA, cuDNN and XLA keep in host memory on a GPU node
RESERVE = 1.25

# Bytes of forward and backward pass an input pixel of the seed's network: (64 + 128/4 + 256/16 channels) × 4 bytes,
# for activations, pooled activations, their gradients and the convolutions' workspace.
_BYTES_PER_PIXEL = 448 * 4
_PREFETCHED_BATCHES = 16
_RECORD_BYTES = 4096  # a glyph of 3.3 KB in its tf.train.Example, and tf.data's own
_MIB = 1 << 20
_STEP = 256  # YARN rounds up anyway


@dataclass(frozen=True)
class ContainerMemory:
    """One container's memory, MiB."""

    heap: int
    overhead: int

    @property
    def total(self) -> int:
        return self.heap + self.overhead


def num_parameters(*, image_size: int, num_classes: int) -> int:
    """Parameters of the seed's network (model/chinese_rec.py)."""
    channels, hidden = (1, 64, 128, 256), 1024
    convolutions = sum(9 * i * o + o for i, o in itertools.pairwise(channels))
    flat = (image_size // 8) ** 2 * channels[-1]
    return convolutions + flat * hidden + hidden + hidden * num_classes + num_classes


def worker(
    *,
    parameters: int,
    batch_size: int,
    image_size: int,
    shuffle_buffer: int,
    preloaded_bytes: int,
    on_gpu: bool,
    record_bytes: int = 0,
) -> ContainerMemory:
    """An executor with one worker. On a GPU the activations are in the GPU's own memory.

    Of the two ways of input one is 0: records in `shuffle_buffer`, and `preloaded_bytes`. Records have `record_bytes`,
    or where that is less what a glyph takes.
    """
    pixels = batch_size * image_size**2
    activations = 0.0 if on_gpu else pixels * _BYTES_PER_PIXEL / _MIB
    inputs = (
        shuffle_buffer * max(record_bytes, _RECORD_BYTES) + preloaded_bytes + _PREFETCHED_BATCHES * pixels * 4
    ) / _MIB
    variables = 3 * _copies(parameters)  # as read, their gradients, and both in gRPC's buffers
    process = TENSORFLOW + (CUDA_HOST if on_gpu else 0) + activations + inputs + variables
    return _container(512, JVM_BESIDE_HEAP + SUPERVISOR + process)


def parameter_server(*, parameters: int, num_ps_tasks: int, num_workers: int) -> ContainerMemory:
    """An executor with one parameter server."""
    return _container(512, JVM_BESIDE_HEAP + SUPERVISOR + _ps_process(parameters, num_ps_tasks, num_workers))


def training_driver(*, parameters: int, num_ps_tasks: int, num_workers: int, ps_beside_driver: bool) -> ContainerMemory:
    """The driver, its coordinator and, where they have their place there, the parameter servers."""
    # A snapshot of variables and Adam's two slots, the checkpoint's bytes as read back, and the arrays in them.
    coordinator = TENSORFLOW + 9 * _copies(parameters)
    beside = num_ps_tasks * (_ps_process(parameters, num_ps_tasks, num_workers) + SUPERVISOR) if ps_beside_driver else 0
    return _container(1024, JVM_BESIDE_HEAP + DRIVER_PYTHON + coordinator + beside)


def evaluating_driver(*, parameters: int, batch_size: int, image_size: int) -> ContainerMemory:
    """`evaluate`, which runs in the driver's own process."""
    forward = batch_size * image_size**2 * _BYTES_PER_PIXEL / 2 / _MIB
    return _container(512, JVM_BESIDE_HEAP + DRIVER_PYTHON + TENSORFLOW + 9 * _copies(parameters) + forward)


def batch_executor(*, of_images: bool = False) -> ContainerMemory:
    """`convert`: one Python worker that streams; its memory does not depend on the files' sizes.

    Of an image it holds all pixels, several times where it is stored in another form (`pictures.MAX_PIXELS`).
    """
    return _container(512, JVM_BESIDE_HEAP + SUPERVISOR + (1280 if of_images else 256))


def batch_driver() -> ContainerMemory:
    return _container(1024, JVM_BESIDE_HEAP + DRIVER_PYTHON)


def _ps_process(parameters: int, num_ps_tasks: int, num_workers: int) -> float:
    # Variables and Adam's two slots, and for each worker a gradient and a reply on their way.
    return TENSORFLOW + (3 + 2 * num_workers) * _copies(parameters) / num_ps_tasks


def _copies(parameters: int) -> float:
    """One float32 copy of all parameters."""
    return parameters * 4 / _MIB


def _container(heap: int, beside_heap: float) -> ContainerMemory:
    return ContainerMemory(heap, math.ceil(beside_heap * RESERVE / _STEP) * _STEP)
