"""The memory of a container, from what runs in it. Pure; docs/operations.md has the table.

A YARN container holds a JVM and, beside it, Python and TensorFlow processes that Spark does not know: they are in
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
# Memory for the largest picture, a progressive JPEG of 64 megapixels and 54 MiB: in Python, and in TensorFlow.
PICTURE = 1280
DECODED_PICTURE = 800
PARTITION = 250  # a block of rows as Python objects and in Parquet; a million inputs' names
CHARTS = 250  # matplotlib, the largest chart, and all pictures of a page
CUDA_HOST = 2500  # host memory of CUDA, cuDNN and XLA on a GPU node
RESERVE = 1.25

# The outputs of all layers of a network, in values per input pixel (tests/unit/test_submit_plan.py counts them).
_VALUES_PER_PIXEL = {"chinese_rec": 150, "hanzi_net": 92, "inception_v3": 370}
# Three copies in float32: activations, their gradients, the convolutions' workspace.
_BYTES_PER_VALUE = 12
# Parameters before the classes' own weights, and the features that these are over.
_BEFORE_CLASSES = {"hanzi_net": (1_210_016, 256), "inception_v3": (21_802_784, 2048)}
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

    def of_driver(self) -> dict[str, str]:
        """Spark's settings for a driver of this size."""
        return {"spark.driver.memory": f"{self.heap}m", "spark.driver.memoryOverhead": f"{self.overhead}m"}

    def of_executor(self) -> dict[str, str]:
        """Spark's settings for executors of this size."""
        return {"spark.executor.memory": f"{self.heap}m", "spark.executor.memoryOverhead": f"{self.overhead}m"}


@dataclass(frozen=True, kw_only=True)
class TooSmall:
    """What processes had when memory ran out for them.

    Attributes:
      peak_bytes: their memory, all together; 0 if it was not measured.
      container_bytes: the container's, which YARN killed at some moment after the last measurement; 0 if unknown.
    """

    peak_bytes: int = 0
    container_bytes: int = 0


def grown(memory: ContainerMemory, before: TooSmall, *, beside: int) -> ContainerMemory:
    """A container for processes for which memory has run out; never less than `memory`.

    Args:
      memory: what is asked for without knowing of that.
      before: what was too little; if nothing of it is known, as much as `memory`.
      beside: MiB beside these processes that are no part of the heap either.
    """
    wanted = memory.overhead * RESERVE
    if before.peak_bytes or before.container_bytes:
        of_peak = beside + before.peak_bytes / _MIB * RESERVE if before.peak_bytes else 0
        wanted = max(of_peak, before.container_bytes / _MIB * RESERVE - memory.heap)
    return ContainerMemory(memory.heap, max(memory.overhead, math.ceil(wanted / _STEP) * _STEP))


@dataclass(frozen=True, kw_only=True)
class Network:
    """The arguments of `networks.registry.build`. A user's own is taken to be as large as inception_v3."""

    model_name: str = "chinese_rec"
    image_size: int = 64
    num_channels: int = 1
    num_classes: int = 3755

    @property
    def num_parameters(self) -> int:
        """The parameters of a registered network, up to some hundred: states of random numbers, grey input."""
        if self.model_name == "chinese_rec":
            channels, hidden = (self.num_channels, 64, 128, 256), 1024
            convolutions = sum(9 * i * o + o for i, o in itertools.pairwise(channels))
            flat = (self.image_size // 8) ** 2 * channels[-1]
            return convolutions + flat * hidden + hidden + hidden * self.num_classes + self.num_classes
        before, features = _BEFORE_CLASSES.get(self.model_name, _BEFORE_CLASSES["inception_v3"])
        return before + (features + 1) * self.num_classes

    @property
    def activation_bytes(self) -> int:
        """The memory of the forward and backward pass of an image."""
        values = _VALUES_PER_PIXEL.get(self.model_name, _VALUES_PER_PIXEL["inception_v3"])
        return self.image_size**2 * values * _BYTES_PER_VALUE


def worker(
    *,
    network: Network,
    batch_size: int,
    shuffle_buffer: int,
    preloaded_bytes: int,
    on_gpu: bool,
    record_bytes: int = 0,
    whitened_values: int = 0,
    push_every: int = 1,
    num_replicas: int = 0,
) -> ContainerMemory:
    """An executor with one worker. On a GPU the activations are in the GPU's own memory.

    Of all-reduce it has `num_replicas` of the network, each with variables of its own, and takes all batches of a step
    at once; 0 with parameter servers.

    One of the two ways of input is 0: records in `shuffle_buffer`, or `preloaded_bytes`. A record has `record_bytes`,
    but at least the bytes of a glyph. Before training it sums squares of `whitened_values` per image.
    """
    batch_bytes = batch_size * network.image_size**2 * network.num_channels * 4
    activations = 0.0 if on_gpu else max(1, num_replicas) * batch_size * network.activation_bytes / _MIB
    buffer_bytes = shuffle_buffer * max(record_bytes, _RECORD_BYTES)
    num_batches = _PREFETCHED_BATCHES + num_replicas * push_every
    inputs = (buffer_bytes + preloaded_bytes + num_batches * batch_bytes) / _MIB
    variables = _worker_copies(num_replicas, push_every, on_gpu) * _copies(network.num_parameters)
    # Before the network is built it holds three matrices of float64, for the sums; later three copies in float32.
    whitening = 3 * whitened_values**2 * 8 / _MIB
    process = TENSORFLOW + (CUDA_HOST if on_gpu else 0) + max(activations + inputs + variables, whitening)
    process += whitening / 2
    return _container(512, JVM_BESIDE_HEAP + SUPERVISOR + process)


def _worker_copies(num_replicas: int, push_every: int, on_gpu: bool) -> int:
    """How many copies of all variables a worker's process has."""
    sums = push_every > 1
    if not num_replicas:
        return 3 + sums  # as read, their gradients, and both in gRPC's buffers
    on_ring = 2  # what is sent and what comes
    # A replica on a CPU: the variables, Adam's two slots, their gradients.
    return num_replicas * (on_ring if on_gpu else 4 + sums + on_ring)


def parameter_server(*, parameters: int, share: float, num_workers: int) -> ContainerMemory:
    """An executor with one parameter server, which has that share of the parameters."""
    return _container(512, JVM_BESIDE_HEAP + SUPERVISOR + _ps_process(parameters, share, num_workers))


def training_driver(
    *, parameters: int, num_ps_tasks: int, num_workers: int, ps_on_driver_host: bool, whitened_values: int = 0
) -> ContainerMemory:
    """The driver, its coordinator and, if `ps_on_driver_host`, the parameter servers.

    It first computes the eigenvectors of a covariance of `whitened_values`.
    """
    # A snapshot of variables and Adam's two slots, the checkpoint's bytes as read back, and the arrays in them.
    coordinator = TENSORFLOW + 9 * _copies(parameters)
    # LAPACK's divide and conquer holds about eight matrices of float64 at once.
    coordinator = max(coordinator, 8 * whitened_values**2 * 8 / _MIB)
    servers = 0.0
    if ps_on_driver_host:
        average = _ps_process(parameters, 1 / num_ps_tasks, num_workers) + SUPERVISOR
        servers = num_ps_tasks * average
    return _container(1024, JVM_BESIDE_HEAP + DRIVER_PYTHON + coordinator + servers)


def evaluating_driver(*, network: Network, batch_size: int, of_pictures: bool = False) -> ContainerMemory:
    """`evaluate`, and of picture files `predict`: both run in the driver's own process."""
    forward = batch_size * network.activation_bytes / 2 / _MIB
    variables = 9 * _copies(network.num_parameters)
    pictures = PICTURE if of_pictures else 0
    return _container(512, JVM_BESIDE_HEAP + DRIVER_PYTHON + TENSORFLOW + variables + forward + pictures)


def drawing_driver() -> ContainerMemory:
    """`report`, whose charts and sheets of images are drawn in the driver's own process."""
    return _container(512, JVM_BESIDE_HEAP + DRIVER_PYTHON + TENSORFLOW + CHARTS)


def batch_executor(*, of_pictures: bool = False) -> ContainerMemory:
    """`convert` and `verify`: one Python worker that streams; its memory does not depend on the files' sizes.

    It holds all pixels of a picture, several times if the picture is converted (`image_files.MAX_PIXELS`), and a
    TensorFlow process runs beside it (`decoder.py`).
    """
    pictures = PICTURE + TENSORFLOW + DECODED_PICTURE
    return _container(512, JVM_BESIDE_HEAP + SUPERVISOR + (pictures if of_pictures else 256))


def scoring_executor(*, network: Network, batch_size: int, of_pictures: bool, on_gpu: bool) -> ContainerMemory:
    """`infer`, and `evaluate` on executors: a Python worker, and beside it the process that predicts.

    The process holds a block of rows and some batches, and of a picture all pixels several times.
    """
    forward = 0.0 if on_gpu else batch_size * network.activation_bytes / 2 / _MIB
    batches = 8 * batch_size * network.image_size**2 * network.num_channels / _MIB
    process = TENSORFLOW + (CUDA_HOST if on_gpu else 0) + 4 * _copies(network.num_parameters) + forward + batches
    return _container(512, JVM_BESIDE_HEAP + SUPERVISOR + process + PARTITION + (PICTURE if of_pictures else 0))


def scoring_driver(*, network: Network) -> ContainerMemory:
    """`infer`: it reads the model to prove it, and lists the inputs."""
    return _container(1024, JVM_BESIDE_HEAP + DRIVER_PYTHON + 3 * _copies(network.num_parameters) + PARTITION)


def batch_driver() -> ContainerMemory:
    return _container(1024, JVM_BESIDE_HEAP + DRIVER_PYTHON)


def _ps_process(parameters: int, share: float, num_workers: int) -> float:
    # Variables and Adam's two slots, and for each worker a gradient and a reply in transit.
    return TENSORFLOW + (3 + 2 * num_workers) * _copies(parameters) * share


def _copies(parameters: int) -> float:
    """One float32 copy of all parameters."""
    return parameters * 4 / _MIB


def _container(heap: int, beside_heap: float) -> ContainerMemory:
    return ContainerMemory(heap, math.ceil(beside_heap * RESERVE / _STEP) * _STEP)
