"""The account of an attempt that has ended, as JSON values for report.json and attempts/NNN.json. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tfos_job.errors import InterruptedJobError, JobError, exit_code_class
from tfos_job.protocol.attempt_end import AttemptEnd, NodeRecord
from tfos_job.protocol.failures import Failure, Process
from tfos_job.protocol.messages import Finished
from tfos_job.run.folder import FAILED, FINISHED, INTERRUPTED

SLOW = 1.3
"""A worker is named as slow if its mean step takes longer than this multiple of the others' median."""
NUM_DETAILED = 5
"""Attempts of which the report has stacks, last lines, followers and nodes: the last ones."""
_MAX_LINES = 30
_MAX_LINE = 500
_MAX_FACT = 2000  # characters: of an exception within a graph, which names all of its operations
_MAX_STACKS = 60_000  # of an attempt, shared by its processes
_MAX_FOLLOWERS = 20
_DETAILS = ("nodes", "followed_by", "stacks")


def of_end(end: AttemptEnd) -> dict[str, Any]:
    """State, steps, nodes and causes of an attempt's end."""
    step_s = {str(node.process.task): node.step_s for node in end.nodes if node.step_s is not None}
    hosts = {str(node.process.task): node.process.host for node in end.nodes}
    return {
        "state": state_of(end.outcome),
        "start_step": end.start_step,
        "end_step": end.step,
        "phase": end.phase,
        "nodes": [_node(node) for node in end.nodes],
        "slowest_worker": slowest_worker(step_s, hosts),
        "first_cause": first_cause(end),
        "followed_by": [_follower(failure) for failure in end.followers[:_MAX_FOLLOWERS]],
        "stacks": {task: text[-_MAX_STACKS // len(end.stacks) :] for task, text in end.stacks.items()},
    }


def state_of(outcome: Finished | JobError | None) -> str:
    """The state of what ended so; None is a command that ended without an error."""
    if isinstance(outcome, InterruptedJobError) or (isinstance(outcome, Finished) and outcome.interrupted):
        return INTERRUPTED
    return FAILED if isinstance(outcome, JobError) else FINISHED


def first_cause(end: AttemptEnd) -> dict[str, Any] | None:
    """The failure that explains the attempt's end, with its place; None for an attempt that has not failed."""
    if not isinstance(end.outcome, JobError) or isinstance(end.outcome, InterruptedJobError):
        return None
    told, first = of_error(end.outcome), end.first
    if first is None:
        return told
    return {
        **told,
        **_where(first.process),
        "fact": first.cause[:_MAX_FACT],
        "kind": first.kind.value,
        "reason": first.reason.value,
        "exception": first.exception,
        "last_lines": _last_lines(first.detail),
    }


def of_error(error: JobError) -> dict[str, Any]:
    """The words of an error, and the exit code and class that it ends a command with."""
    return {
        "fact": error.fact[:_MAX_FACT],
        "place": error.place,
        "next_step": error.next_step,
        "exit_code": error.exit_code,
        "class": error_class(error),
    }


def error_class(error: JobError) -> str:
    """The class of `errors.py` that an error is of: for a bug of ours `JobError`."""
    is_ours = type(error).__module__ == JobError.__module__
    return type(error).__name__ if is_ours else exit_code_class(error.exit_code).__name__


def slowest_worker(step_s: Mapping[str, float], hosts: Mapping[str, str]) -> dict[str, Any] | None:
    """The worker whose mean step takes more than `SLOW` times as long as the median of the others; None without one.

    Args:
      step_s: mean seconds of a step, by task.
      hosts: as far as they are known, by task.
    """
    if len(step_s) < 2:
        return None
    slowest = max(step_s, key=lambda task: step_s[task])
    others_s = statistics.median(seconds for task, seconds in step_s.items() if task != slowest)
    if step_s[slowest] <= SLOW * others_s:
        return None
    return {
        "task": slowest,
        "host": hosts.get(slowest),
        "step_s": round(step_s[slowest], 4),
        "others_s": round(others_s, 4),
    }


def without_details(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """An attempt without what is long: a report of many attempts keeps that of the last ones alone."""
    kept = {name: value for name, value in attempt.items() if name not in _DETAILS}
    if isinstance(kept.get("first_cause"), Mapping):
        kept["first_cause"] = {name: value for name, value in kept["first_cause"].items() if name != "last_lines"}
    return kept


def _node(node: NodeRecord) -> dict[str, Any]:
    return {
        **_where(node.process),
        "peak_bytes": node.peak_bytes or None,
        "limit_bytes": node.limit_bytes or None,
        "num_oom_kills": node.num_oom_kills,
        "step_s": None if node.step_s is None else round(node.step_s, 4),
    }


def _follower(failure: Failure) -> dict[str, Any]:
    return {**_where(failure.process), "kind": failure.kind.value, "fact": failure.cause[:_MAX_FACT]}


def _where(process: Process | None) -> dict[str, Any]:
    """A process and its place; null for Spark's own failures."""
    if process is None:
        return dict.fromkeys(("task", "role", "host", "container", "log_url"))
    return {
        "task": str(process.task),
        "role": process.task.role,
        "host": process.host,
        "container": process.container or None,
        "log_url": process.log_url or None,
    }


def _last_lines(text: str) -> list[str]:
    return [line[:_MAX_LINE] for line in text.splitlines()[-_MAX_LINES:]]
