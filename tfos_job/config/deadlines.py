"""The deadlines of a training's phases: `--deadlines PHASE=SECONDS,…`, and the time limits that they come from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """Seconds that each phase of a training may take. A phase that is in report.json, too, has the same name there.

    Attributes:
      containers: until all executors are there.
      registration: from then until the TensorFlow servers of all nodes answer.
      build: until the network is on the nodes.
      first_step: without news from the coordinator or the stagers, until the first step is done.
      stall: without news from the coordinator or the stagers, later.
      checkpoint: for a checkpoint in progress when a process has died.
      drain: from a signal to the end of a last checkpoint.
      shutdown: for the orderly end of the nodes.
    """

    containers: float
    registration: float
    build: float
    first_step: float
    stall: float
    checkpoint: float
    drain: float
    shutdown: float


APPLICATION = "application"
"""The phase before: until YARN has started the driver or, of one that is not in the cluster, its ApplicationMaster."""
PHASES = (APPLICATION, *(item.name for item in dataclasses.fields(Deadlines)))


def unknown_phase(text: str) -> str:
    """The first word of `PHASE=SECONDS,…` that should be a phase and is none; empty without one."""
    names = (part.partition("=")[0].strip() for part in text.split(","))
    return next((name for name in names if name not in PHASES), "")


def application_s(text: str, default_s: int) -> int:
    """The deadline of `application` in `PHASE=SECONDS,…`; without one the default of whoever waits."""
    return (parsed(text) or {}).get(APPLICATION, default_s)


def parsed(text: str) -> dict[str, int] | None:
    """Seconds by phase of `PHASE=SECONDS,…`; None for a text of another form."""
    found: dict[str, int] = {}
    for part in text.split(",") if text else ():
        name, equals, number = (word.strip() for word in part.partition("="))
        if (
            not equals
            or name not in PHASES
            or name in found
            or not number.isascii()
            or not number.isdigit()
            or int(number) < 1
        ):
            return None
        found[name] = int(number)
    return found
