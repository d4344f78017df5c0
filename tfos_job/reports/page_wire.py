"""What a step puts on the wire: in words, by server, and its expected time beside the measured ones. Pure.

A report may be of any version, and lack anything; what it lacks is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from tfos_job.protocol.topology import PS, WORKER
from tfos_job.reports.page_parts import Bar
from tfos_job.run.placement import ALL_REDUCE, wire_text
from tfos_job.run.quantities import NOTHING, duration, is_number, megabytes, share


@dataclass(frozen=True, kw_only=True)
class Wire:
    """What the page shows of it; each part may be empty.

    Attributes:
      words: all of it in a sentence.
      tasks: what kind of process the bytes are of: `parameter server` or `worker`.
      parts: the bytes of each process, if there are several.
      times: what the bytes take at least, and what was measured, all on the scale of the longest.
    """

    words: str
    tasks: str
    parts: Sequence[Bar]
    times: Sequence[Bar]


def wire(report: Mapping[str, Any]) -> Wire | None:
    """What the page shows; None if the report has nothing of it."""
    found = _found(report)
    parts, times = _parts(found), _times(found, report.get("bound"))
    told = words(report)
    if not (told or parts or times):
        return None
    tasks = "worker" if _role(found) == WORKER else "parameter server"
    return Wire(words=told, tasks=tasks, parts=parts, times=times)


def words(report: Mapping[str, Any]) -> str:
    """The words of the log, and what was measured since; empty if something of it is missing."""
    found = _found(report)
    try:
        expected = wire_text(found)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # of a damaged report, or one of another version
        return ""
    measured_s = found.get("measured_step_s")
    return f"{expected}; the network took {duration(measured_s)}" if _is_amount(measured_s) else expected


def in_short(report: Mapping[str, Any]) -> str:
    """The bytes of a worker's step, and which of several servers has most of them."""
    step_bytes = _step_bytes(_found(report))
    if not step_bytes:
        return NOTHING
    largest, total = max(step_bytes), sum(step_bytes)
    if _role(_found(report)) == WORKER:
        return megabytes(largest)
    most = f"; {PS}:{step_bytes.index(largest)} has {share(largest / total)}" if len(step_bytes) > 1 and total else ""
    return f"{megabytes(total)}{most}"


def _parts(found: Mapping[str, Any]) -> list[Bar]:
    step_bytes, role = _step_bytes(found), _role(found)
    total = sum(step_bytes)
    if len(step_bytes) < 2 or not total:
        return []
    return [
        Bar(name=f"{role}:{number}", share=each / total, value=f"{megabytes(each)}, {share(each / total)}")
        for number, each in enumerate(step_bytes)
    ]


def _times(found: Mapping[str, Any], bound: Any) -> list[Bar]:
    seconds = {
        "expected": found.get("expected_step_s"),
        "network": found.get("measured_step_s"),
        "step": bound.get("step_s") if isinstance(bound, Mapping) else None,
    }
    known = {name: value for name, value in seconds.items() if _is_amount(value)}
    longest = max(known.values(), default=0)
    if len(known) < 2 or not longest or not _is_amount(found.get("expected_step_s")):
        return []
    return [Bar(name=name, share=value / longest, value=duration(value)) for name, value in known.items()]


def _found(report: Mapping[str, Any]) -> Mapping[str, Any]:
    found = report.get("wire")
    return found if isinstance(found, Mapping) else {}


def _step_bytes(found: Mapping[str, Any]) -> list[float]:
    """The bytes of each process; empty if one of them is unknown, since shares would be wrong."""
    values = found.get("step_bytes")
    return list(values) if isinstance(values, list) and all(map(_is_amount, values)) else []


def _role(found: Mapping[str, Any]) -> str:
    """The role of the processes that the bytes are of."""
    return WORKER if found.get("engine") == ALL_REDUCE else PS


def _is_amount(value: Any) -> TypeGuard[float]:
    return is_number(value) and math.isfinite(value) and value >= 0
