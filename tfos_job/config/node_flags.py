"""The flags of `train` about its nodes: how many, where, and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfos_job.config.deadlines import APPLICATION, PHASES, Deadlines, application_s, parsed, unknown_phase
from tfos_job.config.defaults import BFLOAT16, PARTITIONED, PS_PLACEMENTS, WIRE_BYTES
from tfos_job.config.flags import EXTENT, RECIPE, Flags, Subject, flag, require
from tfos_job.config.values import PORT_RANGE, TextForm

_SHUTDOWN_S = 30
_DEADLINES = TextForm(
    lambda text: parsed(text) is not None,
    "{!r} is not PHASE=SECONDS with commas between, each phase once and whole seconds from 1",
    f"The phases are {', '.join(PHASES)}; write it as containers=300,stall=120",
    PHASES,
    unknown_phase,
)


def _flag(help_text: str, default: Any, **metadata: Any) -> Any:
    return flag(help_text, default, bond=EXTENT, subject=Subject.NODES, **metadata)


def _limit(help_text: str, default: int) -> Any:
    return flag(help_text, default, bond=EXTENT, subject=Subject.TIMEOUTS, minimum=1)


@dataclass(frozen=True, kw_only=True)
class NodeFlags(Flags):
    """Parameter servers and workers, and the combinations of their flags that fail."""

    num_executors: int = _flag("nodes: parameter servers and workers together", 2, minimum=1)
    num_ps_tasks: int = _flag(
        "parameter servers; 0 trains by all-reduce: each worker has all variables, and a step is one update of all "
        "workers together, of a batch each",
        1,
        minimum=0,
    )
    ps_place: str = _flag(
        "where parameter servers run: in executors, or as processes on the driver's host, where they hold no GPU; "
        "`auto` is `driver` on a cluster whose workers have GPUs, else `executor`",
        "auto",
        choices=("auto", "executor", "driver"),
    )
    ps_placement: str = _flag(
        "which of several parameter servers has which variable: `round_robin`, one after the other; `greedy`, the "
        "largest first, each where the fewest bytes are; `partitioned`, with large dense layers divided so that each "
        "server has as many bytes. Checkpoints are the same",
        PARTITIONED,
        choices=PS_PLACEMENTS,
    )
    link_gbit: float = _flag(
        "Gbit/s of each host's network, for the expected time of a step's bytes; it changes nothing else",
        10.0,
        above=0,
    )
    num_gpus: int = _flag(
        "GPUs per worker; more than one with --num_ps_tasks 0 alone, where each GPU computes a batch of its own",
        0,
        minimum=0,
    )
    allow_cpu: bool = _flag(
        "let a worker train on the CPU if it was given a GPU that its TensorFlow does not see", False
    )
    wire_dtype: str = flag(
        "type in which variables come from the parameter servers and gradients go there, or gradients to the other "
        "workers; `bfloat16` has half of the bytes of `float32` and keeps 8 bits of each number's precision; variables "
        "are kept as float32 in any case",
        BFLOAT16,
        choices=tuple(WIRE_BYTES),
        bond=RECIPE,
        subject=Subject.NODES,
    )
    port_range: str | None = _flag(
        "first and last port to listen on, for firewalls (default: any free port)",
        None,
        metavar="LOW-HIGH",
        form=PORT_RANGE,
    )
    require_isolation: bool = _flag(
        "fail where the kernel does not keep hosts that are not of the job from a TensorFlow server (default: warn)",
        False,
    )
    min_executors: int | None = _flag(
        "after a failure: begin again with as few nodes as this, if no more executors come within half of the "
        "deadline of `containers` (default: --num_executors)",
        None,
        minimum=1,
    )
    max_restarts: int = _flag(
        "restarts after a process of the cluster has died, without a newer checkpoint between them; 0 ends the job "
        "at the first death",
        3,
        minimum=0,
    )
    max_preemptions: int = _flag("restarts after a container was preempted; -1 for any number", -1, minimum=-1)
    start_timeout: int = _limit("seconds that each phase of a start may take", 600)
    stall_timeout: int = _limit("seconds that one step may take before the attempt ends", 600)
    stop_timeout: int = _limit(
        "seconds for the running steps and a last checkpoint after Ctrl-C or SIGTERM; a second signal ends the job at "
        "once",
        60,
    )
    deadlines: str = flag(
        "seconds that phases may take, as PHASE=SECONDS with commas between; the phases are "
        f"{', '.join(PHASES)} (default: for application --accept_timeout of `submit`, or --start_timeout of a driver "
        "outside the cluster; --start_timeout for containers, registration and build; --stall_timeout for first_step, "
        f"stall and checkpoint; --stop_timeout for drain; {_SHUTDOWN_S} for shutdown)",
        "",
        metavar="PHASE=SECONDS,…",
        form=_DEADLINES,
        bond=EXTENT,
        subject=Subject.TIMEOUTS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.num_executors > self.num_ps_tasks,
            "num_executors",
            f"{self.num_executors} nodes with {self.num_ps_tasks} parameter server(s) leave no worker",
            f"Give --num_executors {self.num_ps_tasks + 1} or more",
        )
        require(
            self.num_gpus <= 1 or self.num_ps_tasks == 0,
            "num_gpus",
            f"{self.num_gpus} GPUs for a worker of parameter servers, which computes on one",
            "Give --num_gpus 1 and more --num_executors, or --num_ps_tasks 0 for all-reduce among all GPUs",
        )
        fewest = self.num_executors if self.min_executors is None else self.min_executors
        require(
            fewest <= self.num_executors,
            "min_executors",
            f"{fewest} is more than --num_executors {self.num_executors}",
            "Give a smaller one, or `none`",
        )
        require(
            fewest == self.num_executors or self.num_ps_tasks > 0,
            "min_executors",
            f"{fewest} workers instead of {self.num_executors} would make steps of fewer images: in all-reduce "
            "each worker has a batch in each step",
            "Give --min_executors none with --num_ps_tasks 0",
        )
        require(
            fewest > self.num_ps_tasks,
            "min_executors",
            f"{fewest} nodes with {self.num_ps_tasks} parameter servers leave no worker",
            f"Give --min_executors {self.num_ps_tasks + 1} or more",
        )

    @property
    def phase_deadlines(self) -> Deadlines:
        """The deadline of each phase: that of `--deadlines`, else of the time limit that covers the phase."""
        start, stall = self.start_timeout, self.stall_timeout
        given = parsed(self.deadlines) or {}
        return Deadlines(
            **{
                **dict.fromkeys(("containers", "registration", "build"), start),
                **dict.fromkeys(("first_step", "stall", "checkpoint"), stall),
                "drain": self.stop_timeout,
                "shutdown": _SHUTDOWN_S,
                **{phase: seconds for phase, seconds in given.items() if phase != APPLICATION},
            }
        )

    @property
    def driver_start_s(self) -> int:
        """Seconds for the start of Spark by a driver outside the cluster, which waits for its ApplicationMaster."""
        return application_s(self.deadlines, self.start_timeout)
