"""The attempts of a report in words. Pure; a report may be of any version, and lack anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfos_job.run.attempts import attempts_of
from tfos_job.run.quantities import duration, is_number, number, size

_MOST_ATTEMPTS = 5
RESTARTED = "restarted"
"""The first word of the decision about an attempt that another one of the same command followed."""


def cause(attempt: Mapping[str, Any]) -> str:
    """Place and fact of the failure that ended an attempt; empty if none did."""
    found = attempt.get("first_cause")
    if not isinstance(found, Mapping):
        return ""
    place, fact = found.get("place"), found.get("fact")
    return f"{place}: {fact}" if place else str(fact or "")


def end(attempt: Mapping[str, Any]) -> str:
    """State, step and cause of an attempt that has ended."""
    why = cause(attempt)
    return f"{attempt.get('state')} at step {attempt.get('end_step')}" + (f": {why}" if why else "")


def is_restarted(attempt: Mapping[str, Any]) -> bool:
    """True if another attempt of the same command followed, or is to follow."""
    return str(attempt.get("decision") or "").startswith(RESTARTED)


def restart_reason(attempt: Mapping[str, Any]) -> str:
    """Why another attempt was allowed, such as which one of the budget it is; empty if it was not."""
    return str(attempt["decision"]).partition(": ")[2] if is_restarted(attempt) else ""


def number_of(attempt: Mapping[str, Any], index: int) -> int:
    """The number of an attempt; reports of earlier versions, which have all attempts, have no numbers."""
    told = attempt.get("number")
    return told if isinstance(told, int) else index + 1


def memory(node: Mapping[str, Any]) -> str:
    """The peak of a process's memory, and its container's limit; empty where it is unknown."""
    peak, limit, kills = (node.get(name) for name in ("peak_bytes", "limit_bytes", "num_oom_kills"))
    if not is_number(peak):
        return ""
    text = size(peak) + (f" of {size(limit)}" if is_number(limit) else "")
    return text + (f", killed {kills} ×" if kills else "")


def last_nodes(attempts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The processes of the last attempt that has any."""
    for attempt in reversed(attempts):
        nodes = [node for node in attempt.get("nodes") or () if isinstance(node, Mapping)]
        if nodes:
            return nodes
    return []


def memories(attempts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The peak memory of each process of the last attempt, with its host, by the process."""
    return [
        (f"memory of {node.get('task')}", f"{text} on host {node.get('host')}")
        for node in last_nodes(attempts)
        if (text := memory(node))
    ]


def follower(failure: Mapping[str, Any]) -> str:
    """A failure that was the consequence of another one."""
    where = f" on host {failure['host']}" if failure.get("host") else ""
    return f"{failure.get('task') or 'Spark'}{where}: {failure.get('fact')}"


def failed_before(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The ends of the last attempts that failed, by the attempt; without the one whose cause is the run's own."""
    counted = [*enumerate(attempts_of(report))]
    if report.get("first_cause"):
        counted.pop()
    return [
        (f"attempt {number_of(attempt, i)}", "; ".join(filter(None, (end(attempt), attempt.get("decision")))))
        for i, attempt in counted[-_MOST_ATTEMPTS:]
        if cause(attempt)
    ]


def slowest_worker(report: Mapping[str, Any]) -> str:
    """The worker that is slower than the others, with its host; empty if there is none."""
    found = report.get("slowest_worker")
    if not isinstance(found, Mapping):
        return ""
    host = f" on host {found['host']}" if found.get("host") else ""
    times = [found.get(name) for name in ("step_s", "others_s")]
    own, others = (duration(float(seconds)) if is_number(seconds) else "?" for seconds in times)
    return f"{found.get('task')}{host}: {own} a step, the others {others}"


def excluded_hosts(report: Mapping[str, Any]) -> str:
    """The hosts that attempts have left out, with the reasons; empty if there are none."""
    hosts = [host for host in report.get("excluded_hosts") or () if isinstance(host, Mapping)]
    return "; ".join(f"{host.get('host')} ({host.get('reason')})" for host in hosts)


def count(report: Mapping[str, Any]) -> str:
    """The number of attempts, and how many of them were restarts; empty for a report without any."""
    total = report.get("num_attempts", len(attempts_of(report)))
    restarts = report.get("num_restarts")
    if not is_number(total) or not total:
        return ""
    return number(total) + (f" ({number(restarts)} by a restart)" if is_number(restarts) and restarts else "")
