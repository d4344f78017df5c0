"""Which of an attempt's failures came first, and when that can be known. Pure; time is an argument.

Failures are collected for a time after the first, since the word about the process that really died may come after
those of its peers. Where all that has come is a consequence, the cause may be a host that was cut off, whose line is
found silent only later. On a cluster Spark is then asked what became of a container, which it learns from YARN.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from tfos_job.protocol import failures
from tfos_job.protocol.attempt_facts import AttemptFacts
from tfos_job.protocol.events import ExecutorAlive, LossExplained
from tfos_job.protocol.failures import Failure, Kind, Reason
from tfos_job.protocol.instructions import Log
from tfos_job.protocol.line import SILENCE_S

COLLECT_S = 2.0
"""Seconds after a failure that can be the first: the report on the process that really died may come later."""
SUSPECT_S = SILENCE_S + COLLECT_S
"""Seconds after a failure that another one has caused: by then a host that was cut off has been silent for long."""
EXPLAIN_S = 10.0
"""Seconds for Spark to learn from YARN what became of a container: some of its heartbeats, of 3 s."""


@dataclass(frozen=True)
class Question:
    """Spark has to be asked about the executor in this container, or about any if it is empty."""

    container: str


class Blame:
    """The search for the first cause, from the first failure on."""

    def __init__(self, facts: AttemptFacts, now_s: float, *, is_local: bool) -> None:
        """Begins at the first failure.

        Args:
          facts: of the attempt, which may get more failures.
          now_s: time of the first failure.
          is_local: no cluster manager can explain an end.
        """
        self._facts = facts
        self._is_local = is_local
        self._begun_s = now_s
        self._certain_s: float | None = None  # time of the first failure that no other one has caused
        self._asked_s: float | None = None  # time of the first question to Spark
        self._is_answered = False

    def decide(self, now_s: float) -> Failure | Question | None:
        """The first cause, once it is known; a question to Spark, whose answer may change it; None: not yet."""
        first = failures.first_cause(self._facts.failures)
        if self._facts.is_hurried or self._is_answered:
            return first
        if self._certain_s is None and not _is_doubtful(first):
            self._certain_s = now_s
        if now_s < self._settled_s:
            return None
        if self._is_local or not _is_explained_by_spark(first) or self._facts.signum is not None:
            return first
        if self._asked_s is None:
            self._asked_s = now_s
        if now_s >= self._asked_s + EXPLAIN_S:
            return first
        return Question(first.process.container if first.process else "")

    @property
    def _settled_s(self) -> float:
        """The time at which no better failure is waited for any longer."""
        if self._certain_s is not None:
            return self._certain_s + COLLECT_S
        # Whoever has left cannot fall silent, and a signal explains a consequence.
        is_waiting = self._facts.talking and self._facts.signum is None
        return self._begun_s + (SUSPECT_S if is_waiting else COLLECT_S)

    def hear(self, answer: LossExplained | ExecutorAlive) -> None:
        """Takes Spark's answer to the last question."""
        if self._asked_s is None or self._is_answered:
            return
        self._is_answered = True
        if isinstance(answer, LossExplained):
            first = failures.first_cause(self._facts.failures)
            explained = failures.explain(first, answer.reason)
            self._facts.failures = [explained if each is first else each for each in self._facts.failures]


def accused(all_of_them: Sequence[Failure], first: Failure) -> list[Log]:
    """What the user is told of failures: the first cause, its last words and its log."""
    told = [Log(logging.WARNING if each is first else logging.DEBUG, str(each)) for each in all_of_them]
    process = first.process
    if first.detail:
        told.append(Log(logging.WARNING, f"The last words of {process or 'Spark'}:\n{first.detail.rstrip()}"))
    if process and process.log_url:
        told.append(Log(logging.WARNING, f"The whole log of {process.task}: {process.log_url}"))
    return told


def _is_doubtful(failure: Failure) -> bool:
    """True if another failure may have caused it, which is still to come.

    An exception that Spark tells of is a cause; the loss of an executor follows from that of a host.
    """
    is_loss = failure.kind is Kind.SPARK and failures.EXECUTOR_LOST in failure.cause
    return failure.kind is Kind.CONSEQUENCE or is_loss


def _is_explained_by_spark(failure: Failure) -> bool:
    """True if YARN may know why a container ended.

    A silent host is not asked about: its NodeManager is as silent, so YARN learns of it in minutes. Nor is a process
    that a signal has ended: a container that YARN ends takes the supervisor, which saw that, with it.
    """
    return failure.kind in (Kind.LOST, Kind.SPARK) and failure.reason is not Reason.SILENT
