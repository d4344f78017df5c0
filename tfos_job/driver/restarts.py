"""The attempts of one command: another one follows the failure of the one before, in the same SparkContext.

`protocol/restart_policy.py` decides whether. This is the shell around it, which waits, gathers executors, and has the
next attempt begin at the newest checkpoint that verifies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tfos_job.driver.executor_names import ExecutorNames
from tfos_job.driver.executors import Executors
from tfos_job.driver.run_report import RunReport
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import BusyError, InterruptedJobError, JobError, with_remark
from tfos_job.lease import Lease
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.failures import Reason
from tfos_job.protocol.messages import Finished
from tfos_job.protocol.restart_policy import Again, Enough, RestartPolicy
from tfos_job.protocol.topology import Topology
from tfos_job.run.attempt_words import RESTARTED
from tfos_job.run.preparation import Preparation

log = logging.getLogger(__name__)

_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Held:
    """The two causes that end a training from outside: a signal, or the loss of the run's lock."""

    stop: StopSignal
    lease: Lease

    def check(self, fact: str = "stopped before the first step") -> None:
        """Raises if one of them has come.

        Args:
          fact: what a signal has stopped.
        """
        self.lease.check_quickly()
        if self.stop.signum is not None:
            raise InterruptedJobError(fact, next_step="Run train again to go on", signum=self.stop.signum)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The beginning of an attempt.

    Attributes:
      number: of the attempt, in its run.
      prepared: the training from the checkpoint that it begins with, for the nodes that it has.
      avoided_hosts: those that get no node.
      executor_hosts: hosts of the executors, as far as they are known.
    """

    number: int
    prepared: Preparation
    avoided_hosts: frozenset[str] = frozenset()
    executor_hosts: tuple[str, ...] = ()


class Trainer(Protocol):
    """Runs the attempts of one training."""

    def topology(self, prepared: Preparation) -> Topology:
        """The nodes."""

    def run(self, launch: Launch) -> AttemptEnd:
        """Runs one attempt to its end."""

    def why_spark_is_gone(self) -> str:
        """Why there can be no other attempt in this SparkContext; empty if there can."""

    def resume(self, prepared: Preparation, number: int, num_executors: int) -> Preparation:
        """The training from its newest checkpoint, for an attempt of this number and with so many nodes.

        Attempts before can publish nothing any more.

        Raises:
          JobError: none of its checkpoints verifies, the lock is lost, or storage fails.
        """


class Restarts:
    """Runs attempts until the training is done, or none is to follow."""

    def __init__(
        self,
        trainer: Trainer,
        *,
        policy: RestartPolicy,
        report: RunReport,
        held: Held,
        executors: Executors,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Runs nothing yet.

        Args:
          trainer: runs each attempt.
          policy: decides about the next one.
          report: has an entry for each; that of the first is open.
          held: ends waits.
          executors: those of Spark.
          clock: seconds that only go forward.
          sleep: waits for so many seconds.
        """
        self._trainer = trainer
        self._policy = policy
        self._report = report
        self._held = held
        self._executors = executors
        self._clock = clock
        self._sleep = sleep
        self._names = ExecutorNames()
        self._hosts: set[str] = set()  # that had executors when the attempt began
        self._known_hosts: set[str] = set()  # when any began

    def run(self, launch: Launch) -> Finished | None:
        """Runs attempts, this one first.

        Returns:
          The coordinator's last word; None if all was done when an attempt was to begin.

        Raises:
          JobError: that of the last attempt, or why none could follow.
        """
        first = launch.prepared
        while True:
            there = self._executors.there()
            self._names.learn_executors(there)
            self._hosts = {each.host for each in there}
            self._known_hosts |= self._hosts
            end = self._trainer.run(launch)
            self._names.learn_nodes(end.nodes)
            if isinstance(end.outcome, Finished):
                self._report.end_attempt(end, "ended: stopped" if end.outcome.interrupted else "ended: all is done")
                return end.outcome
            decision = self._decide(end)
            try:
                launch = self._next(launch, first, end, decision)
            except BusyError as lost:
                raise _beside(end.outcome, lost.fact) from lost
            except InterruptedJobError:
                raise  # which says it
            except JobError as error:
                fact = f"{error.fact}; attempt {end.number} had ended: {_cause(end)}"
                raise type(error)(fact, place=error.place, next_step=error.next_step) from error
            start = launch.prepared.start
            self._report.begin(
                number=launch.number,
                start_step=start.step,
                checkpoint=start.checkpoint.path if start.checkpoint else None,
                records=start.records,
            )
            if launch.prepared.is_finished:
                log.info("All %d steps are done already", start.step)
                return None

    def _decide(self, end: AttemptEnd) -> Again:
        """The decision for another attempt.

        Raises:
          JobError: there is none.
        """
        now_s = self._clock()
        left_out_now = {self._names.name(it.host) for it in self._policy.avoided(now_s)}
        decision = self._policy.after(end, now_s, len(self._hosts | self._executors.hosts() | left_out_now))
        if isinstance(decision, Again):
            decision = self._hindered(end) or decision
        if isinstance(decision, Enough):
            self._report.end_attempt(end, f"ended: {decision.reason}", gave_up=decision.gave_up)
            raise decision.error
        words = f"{RESTARTED} after {decision.delay_s:.1f} s: {decision.reason}"
        left_out = {each.host: each.reason for each in decision.avoided}
        self._report.end_attempt(end, words, excluded=left_out)
        log.warning("Attempt %d has ended at step %d: %s", end.number, end.step, _cause(end))
        for host, reason in left_out.items():
            log.warning("Host %s is left out for now: %s", host, reason)
        when = f"in {decision.delay_s:.1f} s" if decision.delay_s else "at once"
        log.warning("Restarting %s: %s", when, decision.reason)
        return decision

    def _hindered(self, end: AttemptEnd) -> Enough | None:
        """What forbids a restart that the policy allows."""
        try:
            self._held.check(f"stopped before a restart; attempt {end.number} had ended: {_cause(end)}")
        except BusyError as lost:
            return Enough(error=_beside(end.outcome, lost.fact), reason="the lock is lost")
        except InterruptedJobError as stopped:
            return Enough(error=stopped, reason="stopped before a restart")
        if gone := self._trainer.why_spark_is_gone():
            return Enough(error=_beside(end.outcome, gone), reason=gone)
        return None

    def _next(self, before: Launch, first: Preparation, end: AttemptEnd, decision: Again) -> Launch:
        """The next attempt, once there is what it needs.

        Raises:
          JobError: a signal, the loss of the lock, no executors in time, no checkpoint that verifies.
        """
        what = f"stopped while waiting for a restart; attempt {end.number} had ended: {_cause(end)}"

        def check() -> None:
            self._held.check(what)

        self._report.on_phase("backoff")
        until_s = self._clock() + decision.delay_s
        while (left_s := until_s - self._clock()) > 0:
            check()
            self._sleep(min(_POLL_S, left_s))
        self._report.on_phase("containers")
        left_out = self._left_out(first.config.phase_deadlines.containers)
        num_executors = self._gather(first, end, left_out, check)
        number = before.number + 1
        prepared = self._trainer.resume(first, number, num_executors)
        check()
        return Launch(
            number=number,
            prepared=prepared,
            avoided_hosts=frozenset(
                # Nodes come again and again from a host that Spark has another, unknown name for.
                host
                for host, until_s in left_out.items()
                if until_s > self._clock() and self._names.name(host) in self._known_hosts
            ),
            executor_hosts=self._names.addresses(self._executors.there()),
        )

    def _left_out(self, deadline_s: float) -> dict[str, float]:
        """The hosts without nodes, each until a time: taken back where no other host has room in half of the deadline.

        Args:
          deadline_s: of the wait for executors.
        """
        now_s = self._clock()
        return {it.host: min(it.until_s, now_s + deadline_s / 2) for it in self._policy.avoided(now_s)}

    def _gather(
        self, first: Preparation, end: AttemptEnd, left_out: Mapping[str, float], check: Callable[[], None]
    ) -> int:
        """Waits for the executors of the next attempt; returns the number of its nodes.

        Raises:
          ResourceError: too few have come in time.
        """
        config, topology = first.config, self._trainer.topology(first)
        check()
        now_s = self._clock()
        self._executors.avoid({self._names.name(host): until_s - now_s for host, until_s in left_out.items()})
        self._executors.replace(containers=_silent_containers(end))
        fewest = config.num_executors if config.min_executors is None else config.min_executors
        come = self._executors.wait(
            topology.num_spark_executors,
            fewest - topology.num_driver_ps_tasks,
            config.phase_deadlines.containers,
            check,
        )
        num_nodes = min(config.num_executors, come + topology.num_driver_ps_tasks)
        if num_nodes < config.num_executors:
            log.warning("Going on with %d of %d nodes (--min_executors)", num_nodes, config.num_executors)
        return num_nodes


def _silent_containers(end: AttemptEnd) -> tuple[str, ...]:
    """The containers of which nothing was heard any more: their executors may never answer again."""
    failures = end.followers if end.first is None else (end.first, *end.followers)
    processes = (failure.process for failure in failures if failure.reason is Reason.SILENT)
    return tuple(dict.fromkeys(each.container for each in processes if each is not None and each.container))


def _cause(end: AttemptEnd) -> str:
    """What ended a failed attempt, without what a user could do: that is done already."""
    error = end.outcome
    assert isinstance(error, JobError)
    return error.cause


def _beside(error: Any, fact: str) -> JobError:
    """The first cause, with the fact that forbids another attempt."""
    assert isinstance(error, JobError)
    return error if fact in error.fact else with_remark(error, f"then {fact}")
