"""The attempts of a run that ended because memory ran out, and how much their processes had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.errors import MissingInputError
from tfos_job.layout import RunLayout
from tfos_job.protocol.failures import Reason
from tfos_job.protocol.topology import CHIEF, PS, WORKER
from tfos_job.run.attempts import attempts_of
from tfos_job.run.quantities import is_number


@dataclass(frozen=True, kw_only=True)
class Outgrown:
    """What was too much for containers.

    Attributes:
      roles: of the processes that memory ran out for.
      peak_bytes: the most that the processes of a node of each role had in those attempts, as far as it was measured.
      container_bytes: the largest of YARN's containers that was too small, by the role in it, where that is known.
    """

    roles: frozenset[str]
    peak_bytes: Mapping[str, int]
    container_bytes: Mapping[str, int]


def of_run(run: RunLayout, report: Mapping[str, Any] | None) -> Outgrown | None:
    """What the run's attempts have found out; None if memory has not run out in any.

    Args:
      run: the folder, whose files of attempts are read where the report has dropped what is long.
      report: of the run; None without one.
    """
    roles: set[str] = set()
    peaks: dict[str, int] = {}
    limits: dict[str, int] = {}
    for attempt in attempts_of(report or {}):
        cause = attempt.get("first_cause")
        if not isinstance(cause, Mapping) or cause.get("reason") != Reason.MEMORY:
            continue
        role = _role(cause.get("task"))
        roles.add(role if role in (CHIEF, PS) else WORKER)
        for node in _nodes(run, attempt):
            _note(peaks, node, "peak_bytes")
            # The limit of a node that is in no container may be one of other processes, too.
            if node.get("task") == cause.get("task") and node.get("container"):
                _note(limits, node, "limit_bytes")
    return Outgrown(roles=frozenset(roles), peak_bytes=peaks, container_bytes=limits) if roles else None


def _note(highest: dict[str, int], node: Mapping[str, Any], key: str) -> None:
    role, value = _role(node.get("task")), node.get(key)
    if is_number(value):
        highest[role] = max(highest.get(role, 0), int(value))


def _nodes(run: RunLayout, attempt: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    nodes = attempt.get("nodes")
    if nodes is None and isinstance(attempt.get("number"), int):
        try:
            nodes = storage.read_json(run.attempt(attempt["number"])).get("nodes")
        except (MissingInputError, ValueError):
            nodes = None  # removed, or damaged: then the peak is not known
    for node in nodes or ():
        if isinstance(node, Mapping):
            yield node


def _role(task: Any) -> str:
    return str(task or "").partition(":")[0]
