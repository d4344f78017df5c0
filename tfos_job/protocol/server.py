"""The orders of a node's TensorFlow process, from its supervisor."""

from __future__ import annotations

from dataclasses import dataclass

STOP = "stop"
"""The order that ends the process."""


@dataclass(frozen=True)
class ServerSpec:
    """The cluster, the place of a process in it, and what it removes if its supervisor is gone.

    Attributes:
      cluster: `host:port` of each task, by role.
      role: of this process.
      index: in its role.
      num_gpus: that it was given.
      orphaned_pids: processes that it ends if the supervisor is gone.
      folders: removed then.
      held_fd: inherited; listens on this task's port, and is released before the server takes it. None if both may
        listen.
      allow_cpu: go on if TensorFlow sees too few GPUs.
    """

    cluster: dict[str, list[str]]
    role: str
    index: int
    num_gpus: int
    orphaned_pids: list[int]
    folders: list[str]
    held_fd: int | None = None
    allow_cpu: bool = False
