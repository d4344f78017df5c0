"""Whether a training begins again after the end of an attempt: ends in, decisions out. Pure; time is an argument.

A failure that another attempt may not meet again is followed by one, from the newest checkpoint. Such failures have a
budget that each newer checkpoint refills, so that only a training that no longer gets on comes to its end. Preemptions
have a budget of their own. docs/decisions/0004-restart-in-one-application.md has the reasons.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable
from dataclasses import dataclass, replace

from tfos_job.errors import BusyError, JobError, NodeDiedError, ResourceError, StorageError, with_remark
from tfos_job.host.memory import gib
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.failures import Reason
from tfos_job.protocol.topology import counted

COOLDOWN_S = 300.0
"""Seconds that a host is left out: less than the deadline of `containers`, so that it is taken back where no other host
has room. A host that is cut off gives YARN no containers, however long that lasts."""
MEMORY_S = 3600.0
"""Seconds after which a failure no longer counts against its host."""
FAILURES_OF_A_BAD_HOST = 2
MAX_DELAY_S = 60.0
FIRST_DELAY_S = 4.0
"""The longest delay of a second restart in a row; each further one may take twice as long."""
MAX_FROM_AVOIDED = 3
"""Restarts in a row because a node came from a host that is left out, which are not counted as failures."""


@dataclass(frozen=True, kw_only=True)
class Avoided:
    """A host that gets no node until a time of the policy's clock."""

    host: str
    until_s: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Again:
    """Another attempt, after `delay_s`, on other hosts than those of `avoided`."""

    delay_s: float
    reason: str
    avoided: tuple[Avoided, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Enough:
    """No other attempt: the job ends with `error`.

    `gave_up`: there were restarts, and they have not helped, so that no other driver should try.
    """

    error: JobError
    reason: str
    gave_up: bool = False


class RestartPolicy:
    """The budgets of one command, and the hosts that have failed it.

    Attributes:
      num_restarts: that it has decided for.
    """

    def __init__(
        self, *, max_restarts: int, max_preemptions: int, random: Callable[[], float] = random_module.random
    ) -> None:
        """The policy before the first attempt.

        Args:
          max_restarts: after failures without a newer checkpoint between them.
          max_preemptions: restarts after preemptions; -1 for any number.
          random: numbers in [0, 1), for the jitter of delays.
        """
        self.num_restarts = 0
        self._max_restarts = max_restarts
        self._max_preemptions = max_preemptions
        self._random = random
        self._num_preemptions = 0
        self._newest_step: int | None = None
        self._before: AttemptEnd | None = None
        self._failed_at_s: dict[str, list[float]] = {}  # by host
        self._avoided: dict[str, Avoided] = {}
        self._refill()

    def _refill(self) -> None:
        self._num_failures = self._num_in_a_row = self._num_from_avoided = 0
        self._was_out_of_memory = False

    def avoided(self, now_s: float) -> tuple[Avoided, ...]:
        """The hosts that are left out at this time."""
        self._avoided = {host: it for host, it in self._avoided.items() if it.until_s > now_s}
        return tuple(self._avoided.values())

    def after(self, end: AttemptEnd, now_s: float, known_hosts: int) -> Again | Enough:
        """The decision after an attempt that has failed.

        Args:
          end: of the attempt; its outcome is an error.
          now_s: of a clock that only goes forward.
          known_hosts: hosts on which executors were in that attempt, with those that are left out now.
        """
        error = end.outcome
        assert isinstance(error, JobError)
        before, self._before = self._before, end
        self._note_progress(end)
        if not _may_help(end, error):
            return Enough(error=error, reason=f"an end with exit code {error.exit_code} is not retried")
        is_left_out = self._note_host(end, now_s, known_hosts)
        match _reason(end):
            case Reason.PREEMPTED:
                decision = self._after_preemption(error)
            case Reason.AVOIDED:
                decision = self._after_avoided_host(error)
            case Reason.MEMORY if self._was_out_of_memory:
                decision = Enough(error=_out_of_memory(end, error), reason="memory has run out a second time")
            case _ if before is not None and not is_left_out and _are_alike(before, end):
                words = f"it has ended two attempts at step {end.step}"
                decision = Enough(
                    error=with_remark(error, words), reason="the same cause has ended two attempts at one step"
                )
            case _:
                decision = self._after_failure(end, error)
        if isinstance(decision, Enough):
            return replace(decision, gave_up=self.num_restarts > 0)
        return Again(delay_s=self._delay_s(), reason=decision, avoided=self.avoided(now_s))

    def _note_progress(self, end: AttemptEnd) -> None:
        """A checkpoint that is newer than any before refills the budget, and speaks for the hosts that worked on it."""
        if end.checkpoint_step is None or (self._newest_step is not None and end.checkpoint_step <= self._newest_step):
            return
        self._newest_step = end.checkpoint_step
        self._refill()
        failed = end.first.process.host if end.first and end.first.process else None
        for host in {node.process.host for node in end.nodes} - {failed}:
            self._failed_at_s.pop(host, None)

    def _note_host(self, end: AttemptEnd, now_s: float, known_hosts: int) -> bool:
        """Counts a failure of a host's; returns whether the host is left out from now on for that."""
        process = end.first.process if end.first else None
        reason = _reason(end)
        if process is None or process.on_driver_host or reason in (Reason.PREEMPTED, Reason.MEMORY, Reason.AVOIDED):
            return False
        host = process.host
        recent = [at_s for at_s in self._failed_at_s.get(host, []) if now_s - at_s < MEMORY_S]
        self._failed_at_s[host] = [*recent, now_s]
        is_bad = reason is Reason.SILENT or len(self._failed_at_s[host]) >= FAILURES_OF_A_BAD_HOST
        others = {it.host for it in self.avoided(now_s)} - {host}
        if not is_bad or len(others) + 1 >= known_hosts:
            return False
        is_new = host not in self._avoided
        number = len(self._failed_at_s.pop(host))
        words = "nothing was heard from it" if reason is Reason.SILENT else f"{number} attempts have failed there"
        self._avoided[host] = Avoided(host=host, until_s=now_s + COOLDOWN_S, reason=words)
        return is_new

    def _after_preemption(self, error: JobError) -> str | Enough:
        if 0 <= self._max_preemptions <= self._num_preemptions:
            words = f"after {counted(self._num_preemptions, 'restart')} for preemptions (--max_preemptions)"
            told = with_remark(error, words) if self._num_preemptions else error
            return Enough(error=told, reason=f"--max_preemptions {self._max_preemptions}")
        self._num_preemptions += 1
        most = "any number" if self._max_preemptions < 0 else self._max_preemptions
        return f"preemption {self._num_preemptions} of {most} (--max_preemptions)"

    def _after_avoided_host(self, error: JobError) -> str | Enough:
        if self._num_from_avoided >= MAX_FROM_AVOIDED:
            words = f"after {counted(self._num_from_avoided, 'restart')} for that reason"
            return Enough(
                error=with_remark(error, words), reason="nodes come from hosts that are left out, again and again"
            )
        self._num_from_avoided += 1
        return f"a node came from a host that is left out, {self._num_from_avoided} of {MAX_FROM_AVOIDED} times"

    def _after_failure(self, end: AttemptEnd, error: JobError) -> str | Enough:
        if self._num_failures >= self._max_restarts:
            reason = f"--max_restarts {self._max_restarts}"
            if not self.num_restarts:
                return Enough(error=error, reason=reason)
            words = f"after {counted(self._num_failures, 'restart')} without a newer checkpoint (--max_restarts)"
            if self.num_restarts > self._num_failures:
                words += f", {self.num_restarts} in all"
            return Enough(error=with_remark(error, words), reason=reason)
        self._num_failures += 1
        self._was_out_of_memory |= _reason(end) is Reason.MEMORY
        return f"restart {self._num_failures} of {self._max_restarts} without a newer checkpoint (--max_restarts)"

    def _delay_s(self) -> float:
        """Seconds until the next attempt: none for the first one in a row, then ever more, with jitter."""
        self.num_restarts += 1
        self._num_in_a_row += 1
        if self._num_in_a_row == 1:
            return 0.0
        most_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(self._num_in_a_row - 2, 10))
        return most_s * (1 + self._random()) / 2


def _may_help(end: AttemptEnd, error: JobError) -> bool:
    """Whether an attempt may come further than one that ended so.

    Without a process that failed, 69 is a deadline's and 74 the driver's own. 75 is a lock that was lost, but for a
    preemption.
    """
    match error.exit_code:
        case NodeDiedError.exit_code:
            return True
        case ResourceError.exit_code | StorageError.exit_code:
            return end.first is not None
        case BusyError.exit_code:
            return _reason(end) is Reason.PREEMPTED
    return False


def _reason(end: AttemptEnd) -> Reason:
    return end.first.reason if end.first else Reason.NONE


def _are_alike(one: AttemptEnd, other: AttemptEnd) -> bool:
    """Whether two attempts ended at the same step of the same cause."""
    return one.step == other.step and _cause(one) == _cause(other)


def _cause(end: AttemptEnd) -> tuple[object, ...]:
    if end.first is not None:
        return (*failures.identity(end.first), end.first.reason)
    assert isinstance(end.outcome, JobError)
    return end.phase, end.outcome.exit_code  # a training that stood still


def _out_of_memory(end: AttemptEnd, error: JobError) -> JobError:
    words = "memory has run out in two attempts"
    task = end.first.process.task if end.first and end.first.process else None
    for node in end.nodes:
        if node.process.task == task and node.peak_bytes:
            limit = f" of {gib(node.limit_bytes)}" if node.limit_bytes else ""
            words += f"; at its peak it had {gib(node.peak_bytes)}{limit}"
    return with_remark(error, words)
