"""The messages between the driver and its processes, each a type that is checked when it is decoded. Pure.

The wire has JSON, with the class's name as `type`. An unknown name or field, or a value of a wrong type, is an error;
each end accepts only what the other one may say.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import msgspec

from tfos_job.protocol.failures import Failure


class _Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


# A node or the coordinator to the driver:


class Hello(_Message, frozen=True):
    """The first message of every line: the caller and its place.

    `container` is YARN's name for the place, and `log_url` its page with the caller's log; both empty elsewhere.
    `addresses`: those from which its host may connect to others.
    `attempt` is the number of the attempt that the caller belongs to.
    """

    role: str
    index: int
    host: str
    pid: int
    port: int = 0
    container: str = ""
    log_url: str = ""
    attempt: int = 0
    addresses: tuple[str, ...] = ()


class Ready(_Message, frozen=True):
    """The TensorFlow server of this node answers the job's hosts. From the coordinator: the variables are there."""

    pid: int


class Notice(_Message, frozen=True):
    """A fact for the user that is no failure."""

    text: str
    is_warning: bool = False


class Vitals(_Message, frozen=True):
    """A node's memory, as its supervisor measures it.

    `peak_bytes` is the highest so far, of all of the node's processes; `limit_bytes` the container's limit, 0 where
    it is unknown; `num_oom_kills` how often the kernel has killed in its cgroup since the attempt began.
    """

    peak_bytes: int
    limit_bytes: int = 0
    num_oom_kills: int = 0


class Stacks(_Message, frozen=True):
    """The Python stacks of this node's processes."""

    text: str


class Left(_Message, frozen=True):
    """This node has stopped as told to."""


class Bottleneck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of `training.bottleneck.StepProfile`."""

    by: str | None
    shares: dict[str, float] | None
    steps: int
    step_s: float
    input_wait_s: float
    network_s: float | None
    update_s: float
    compute_s: float | None

    def to_json(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)


class Built(_Message, frozen=True):
    """The network is on the nodes, with so many parameters, of which so many are trained.

    `step_bytes`: of `training.engine.Engine`.
    """

    num_parameters: int
    num_trained: int
    step_bytes: tuple[int, ...]


class Progress(_Message, frozen=True):
    """A block of steps is done, in so many `seconds`. `bound` covers all blocks so far.

    `worker_step_s` has the mean seconds of a step of each worker that took part, by its index.
    """

    step: int
    loss: float
    top_1: float
    learning_rate: float
    images_per_second: float
    input_wait_fraction: float
    bound: Bottleneck
    seconds: float = 0.0
    worker_step_s: dict[str, float] = {}


class Evaluating(_Message, frozen=True):
    """An evaluation is running, and has counted this many examples."""

    step: int
    num_examples: int


class Searching(_Message, frozen=True):
    """The coordinator looks for a damaged record, in this shard now."""

    shard: str


class CheckpointBegun(_Message, frozen=True):
    """The coordinator has the variables of this step's checkpoint: it needs no node to publish them."""

    step: int


class CheckpointPublished(_Message, frozen=True):
    """A whole checkpoint is at `path`, so many seconds after the block of steps that it is of.

    `held_s`: seconds that the steps waited for it.
    """

    step: int
    path: str
    seconds: float = 0.0
    held_s: float = 0.0


class Evaluated(_Message, frozen=True):
    """An evaluation within training is done and on disk."""

    step: int
    split_name: str
    metrics: dict[str, int | float]


class Finished(_Message, frozen=True):
    """The coordinator's last word. `interrupted`: it was asked to stop. `bound` is None if no step was done."""

    step: int
    interrupted: bool
    seconds: float
    images: int
    records_read: list[int]
    bound: Bottleneck | None = None


# The driver to a node or the coordinator:


class Stop(_Message, frozen=True):
    """End in good order: a node its server, the coordinator after a last checkpoint."""


class Admit(_Message, frozen=True):
    """Let these hosts connect to the node's TensorFlow server, by their addresses, and no others."""

    addresses: tuple[str, ...]


class DumpStacks(_Message, frozen=True):
    """Answer with `Stacks`: the driver is about to end an attempt that stands still."""


# Every end to the other:


class Beat(_Message, frozen=True):
    """A sign of life."""


ToDriver: TypeAlias = (
    Hello
    | Ready
    | Notice
    | Vitals
    | Stacks
    | Failure
    | Left
    | Built
    | Progress
    | Searching
    | CheckpointBegun
    | CheckpointPublished
    | Evaluating
    | Evaluated
    | Finished
)
ToNode: TypeAlias = Stop | Admit | DumpStacks
ToSupervisor: TypeAlias = Ready | Notice | Failure | Beat
"""The messages of a TensorFlow server's process to its supervisor."""


def to_json(message: Any) -> dict[str, Any]:
    """The JSON object of a message."""
    # Numbers of numpy are floats to `json`, but not to msgspec.
    found: dict[str, Any] = msgspec.to_builtins(message, enc_hook=float)
    return found


def from_json(value: Any, kind: Any) -> Any:
    """The message in a JSON value.

    Args:
      value: of `json.loads`.
      kind: the class, or the union of the classes, that the sender may use.

    Raises:
      ValueError: it is none of these, or has other fields, or a value of another type.
    """
    return msgspec.convert(value, kind)


def encode(message: Any) -> bytes:
    # Not by msgspec.json: it writes null for a loss that is NaN.
    return json.dumps(to_json(message), separators=(",", ":")).encode()


def decode(data: bytes, kind: Any) -> Any:
    """The message in JSON bytes; raises as `from_json` does."""
    return from_json(json.loads(data), kind)
