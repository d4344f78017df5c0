"""The attempts of a run on its page: a table of all, the processes of the last one, and the ends of those that failed.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.reports.page_parts import Table, clock, shown
from tfos_job.run import attempt_words, summary
from tfos_job.run.quantities import duration, is_number
from tfos_job.run.summary import RunSummary

# Shown in words, or elsewhere on the page; all others of an attempt are columns.
_OF_ATTEMPT = (
    "state", "start_step", "end_step", "started", "ended", "host", "changes", "records", "settings", "number", "phase",
    "phases", "nodes", "slowest_worker", "excluded_hosts", "first_cause", "followed_by", "stacks", "decision",
    "gave_up",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Log:
    """The text of a log, below a title that opens it."""

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class FailedAttempt:
    """The end of an attempt: what came first, what followed from it, and what its processes last said.

    Attributes:
      title: which attempt, and where it ended.
      cause: the first cause, with its place.
      decision: what followed the end.
      followers: the failures that were its consequences.
      logs: the first process's last lines, and the stacks of all.
    """

    title: str
    cause: str
    decision: str
    followers: Sequence[str]
    logs: Sequence[Log]


def attempts(run: RunSummary) -> Table | None:
    if not run.attempts:
        return None
    more = sorted({name for attempt in run.attempts for name in attempt} - set(_OF_ATTEMPT))
    updated = str(run.report.get("updated") or "")
    rows = []
    for index, attempt in enumerate(run.attempts):
        took = summary.total_s([attempt], updated)
        changes = attempt.get("changes")
        rows.append(
            (
                attempt_words.number_of(attempt, index),
                attempt.get("state"),
                f"{shown(attempt.get('start_step'))} → {shown(attempt.get('end_step'))}",
                None if took is None else duration(took),
                attempt_words.cause(attempt),
                clock(str(attempt.get("started") or "")),
                attempt.get("host"),
                "; ".join(map(str, changes)) if isinstance(changes, list) else changes,
                _records(attempt.get("records")),
                *(attempt.get(name) for name in more),
            )
        )
    head = ("attempt", "state", "steps", "duration", "first cause", "started", "host", "changed settings", "records")
    return Table(head=(*head, *more), rows=rows, caption="Each start of training; the host is the driver's")


def nodes(run: RunSummary) -> Table | None:
    """The processes of the last attempt that tells of any, with memory and time of a step."""
    found = attempt_words.last_nodes(run.attempts)
    if not found:
        return None
    slowest = run.report.get("slowest_worker")
    slow = slowest.get("task") if isinstance(slowest, Mapping) else None
    rows = [
        (
            node.get("task"),
            node.get("host"),
            _unbroken(attempt_words.memory(node)),
            _unbroken(_step(node, is_slow=node.get("task") == slow)),
            node.get("container"),
            node.get("log_url"),
        )
        for node in found
    ]
    head = ("process", "host", "peak memory", "mean step", "container", "log")
    return Table(head=head, rows=rows, caption="Processes of the last attempt")


def failed(run: RunSummary) -> list[FailedAttempt]:
    """The attempts that failed, as far as the report has their details; the last one first."""
    found = [
        _failed(attempt, attempt_words.number_of(attempt, index))
        for index, attempt in enumerate(run.attempts)
        if attempt_words.cause(attempt) and ("nodes" in attempt or attempt.get("stacks"))
    ]
    return found[::-1]


def _failed(attempt: Mapping[str, Any], number: int) -> FailedAttempt:
    cause = attempt["first_cause"]
    step = attempt.get("end_step")
    lines = cause.get("last_lines")
    logs = [Log(title=f"Last lines of {cause.get('task')}", text="\n".join(map(str, lines)))] if lines else []
    stacks = attempt.get("stacks")
    if isinstance(stacks, Mapping):
        logs += [Log(title=f"Stacks of {task}", text=str(text)) for task, text in stacks.items()]
    followers = [each for each in attempt.get("followed_by") or () if isinstance(each, Mapping)]
    return FailedAttempt(
        title=f"Attempt {number}, ended at step {shown(step)}",
        cause=attempt_words.cause(attempt),
        decision=str(attempt.get("decision") or ""),
        followers=[attempt_words.follower(each) for each in followers],
        logs=logs,
    )


def _step(node: Mapping[str, Any], *, is_slow: bool) -> str:
    seconds = node.get("step_s")
    if not is_number(seconds):
        return ""
    return duration(float(seconds)) + (" (slow)" if is_slow else "")


def _unbroken(text: str) -> str:
    """The text in one line: the long names beside it would have it broken at each word."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _records(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "other ones than before"
    return f"{value.get('seen_twice', 0)} seen twice, {value.get('skipped', 0)} skipped"
