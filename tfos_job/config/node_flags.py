"""The flags of `train` about its nodes: how many, where, and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfos_job.config.flags import EXTENT, Flags, Subject, flag
from tfos_job.config.values import PORT_RANGE


def _flag(help_text: str, default: Any, **metadata: Any) -> Any:
    return flag(help_text, default, bond=EXTENT, subject=Subject.NODES, **metadata)


def _limit(help_text: str, default: int) -> Any:
    return flag(help_text, default, bond=EXTENT, subject=Subject.TIMEOUTS, minimum=1)


@dataclass(frozen=True, kw_only=True)
class NodeFlags(Flags):
    """Parameter servers and workers."""

    num_executors: int = _flag("nodes: parameter servers and workers together", 2, minimum=1)
    num_ps_tasks: int = _flag(
        "parameter servers",
        1,
        minimum=1,
        next_step="Training needs a parameter server: give --num_ps_tasks 1",
    )
    ps_place: str = _flag(
        "where parameter servers run: in executors, or as processes on the driver's host, where they hold no GPU; "
        "`auto` is `driver` on a cluster whose workers have GPUs, else `executor`",
        "auto",
        choices=("auto", "executor", "driver"),
    )
    num_gpus: int = _flag(
        "GPUs per worker",
        0,
        minimum=0,
        maximum=1,
        next_step="A worker computes on one GPU: give --num_gpus 1 and more --num_executors",
    )
    allow_cpu: bool = _flag(
        "let a worker train on the CPU if it was given a GPU that its TensorFlow does not see", False
    )
    port_range: str | None = _flag(
        "first and last port to listen on, for firewalls (default: any free port)",
        None,
        metavar="LOW-HIGH",
        form=PORT_RANGE,
    )
    start_timeout: int = _limit("seconds that the cluster may take to start before the job fails", 600)
    stall_timeout: int = _limit("seconds that one step may take before the job fails", 600)
    stop_timeout: int = _limit(
        "seconds for the running steps and a last checkpoint after Ctrl-C or SIGTERM; a second signal ends the job at "
        "once",
        60,
    )
