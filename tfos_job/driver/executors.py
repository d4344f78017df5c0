"""Spark's executors, over all attempts of a training: those that are there, the wait for them, their replacement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pyspark import SparkContext

from tfos_job.doctor.host_memory import conf_dir
from tfos_job.doctor.resource_manager import ResourceManager
from tfos_job.driver.reachability import reachable
from tfos_job.driver.scheduler_backend import Backend, Executor, SparkBackend
from tfos_job.errors import NodeDiedError, ResourceError
from tfos_job.protocol.topology import is_in_driver

log = logging.getLogger(__name__)

_POLL_S = 0.2
_LOG_EVERY_S = 10.0
_NODES_EVERY_S = 10.0  # YARN's nodes may go while a host is left out


class Executors:
    """The executors of a SparkContext. In `local[N]` there are none, and nothing is done.

    Only `wait` raises: what cannot be replaced or left out is a warning, since the wait for the next attempt decides.
    """

    def __init__(
        self,
        sc: SparkContext,
        *,
        is_local: bool,
        backend: Backend | None = None,
        manager: ResourceManager | None = None,
        reach: Callable[[Collection[str]], Collection[str]] = reachable,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Asks Spark nothing yet.

        Args:
          sc: of the application.
          is_local: all of Spark runs on this host, so that there is no other host to prefer.
          backend: of Spark (default: that of `sc`).
          manager: YARN's (default: that of Hadoop's configuration).
          reach: those of some addresses that can be reached.
          clock: seconds.
          sleep: waits for seconds.
        """
        self._application = str(sc.applicationId or "")
        self._is_local = is_local
        self._backend = backend or (None if is_in_driver(sc.master) else SparkBackend(sc))
        on_yarn = sc.master.startswith("yarn")
        self._manager = manager or ResourceManager.of_conf(conf_dir() if on_yarn else None)
        self._reach = reach
        self._clock, self._sleep = clock, sleep
        self._seen: set[str] = set()
        self._reached: set[str] = set()
        self._avoided: dict[str, float] = {}
        self._left_out: frozenset[str] = frozenset()

    def hosts(self) -> set[str]:
        """The hosts on which executors are."""
        return {each.host for each in self.there()}

    def replace(self, *, hosts: Collection[str] = (), containers: Collection[str] = ()) -> None:
        """Kills the executors on these hosts and in these containers; the cluster manager starts others.

        Args:
          hosts: by Spark's names.
          containers: of YARN.
        """
        found = [
            each for each in self.there() if each.host in hosts or (each.container and each.container in containers)
        ]
        self._replace(found)

    def avoid(self, hosts: Mapping[str, float]) -> None:
        """Sets the hosts on which no executor is wanted, each for some seconds from now.

        On this host alone it has no effect. Executors there are replaced by `wait`.
        """
        if not self._is_local:
            now_s = self._clock()
            self._avoided = {host: now_s + seconds for host, seconds in hosts.items()}

    def wait(self, num: int, least: int, deadline_s: float, on_wait: Callable[[], None] = lambda: None) -> int:
        """Waits for executors that are on no avoided host.

        Args:
          num: executors that are wanted.
          least: executors that suffice after half of the deadline.
          deadline_s: seconds from now.
          on_wait: called several times a second; its exception ends the wait.

        Returns:
          The number of executors; `num` in `local[N]`.

        Raises:
          ResourceError: fewer than `least` have come.
          NodeDiedError: Spark's JVM has ended.
        """
        if self._backend is None:
            return num
        try:
            return self._wait(num, least, deadline_s, on_wait)
        finally:
            self._leave_out(frozenset())  # YARN ends an application that leaves out all nodes that it has left

    def _wait(self, num: int, least: int, deadline_s: float, on_wait: Callable[[], None]) -> int:
        began_s = logged_s = self._clock()
        asked_s: float | None = None
        while True:
            now_s = self._clock()
            avoided = self._still_avoided(now_s)
            if asked_s is None or now_s - asked_s >= _NODES_EVERY_S:
                asked_s = now_s
                self._leave_out(self._to_leave_out(avoided))
            there = self.there(needed=True)
            self._replace([each for each in there if each.host in avoided])
            welcome = [each for each in there if each.host not in avoided]
            if is_enough(len(welcome), num, least, (now_s - began_s) / deadline_s):
                silent = self._silent(welcome)
                if not silent:
                    return len(welcome)
                self._replace(silent)
                welcome = [each for each in welcome if each not in silent]
            if now_s - began_s >= deadline_s:
                raise self._too_few(welcome, num, deadline_s, avoided)
            if now_s - logged_s >= _LOG_EVERY_S:
                logged_s = now_s
                log.info("waiting for executors: %d of %d have come", len(welcome), num)
            on_wait()
            self._sleep(_POLL_S)

    def _too_few(self, there: list[Executor], num: int, deadline_s: float, avoided: Collection[str]) -> ResourceError:
        lack = self._manager.lack(self._application)
        facts = [f"{came(there, num)} within {deadline_s:.0f} s", lack]
        if avoided:
            facts.append(f"{', '.join(sorted(avoided))} left out after failures there")
        return ResourceError(
            "; ".join(filter(None, facts)),
            place=self._application,
            next_step="Run it again when there is room, ask for less, or allow more time: --deadlines containers=…",
        )

    def there(self, *, needed: bool = False) -> tuple[Executor, ...]:
        """The executors; none if the JVM does not answer, unless it has ended and they are needed."""
        if self._backend is None:
            return ()
        try:
            found = self._backend.executors()
        except Exception as e:  # whatever py4j makes of a JVM that does not answer
            log.debug("Spark does not name its executors: %s", e)
            if needed and not isinstance(e, TimeoutError):
                raise NodeDiedError(f"Spark's JVM does not answer: {e}", place=self._application) from e
            return ()
        self._seen.update(each.host for each in found)
        return found

    def _silent(self, executors: Collection[Executor]) -> list[Executor]:
        """Those on a host that could be reached before, and cannot be now: Spark notices it a minute later.

        A host that was never reached may be behind a firewall.
        """
        if self._is_local:
            return []
        answering = self._reach([each.address for each in executors if each.address])
        self._reached.update(each.host for each in executors if each.address in answering)
        return [
            each for each in executors if each.address and each.address not in answering and each.host in self._reached
        ]

    def _replace(self, executors: Iterable[Executor]) -> None:
        found = list(executors)
        if not found or self._backend is None:
            return
        for each in found:
            log.info("replacing %s", each)
        try:
            self._backend.replace(found)
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that does not answer
            log.warning("Spark does not replace %s: %s", ", ".join(map(str, found)), e)

    def _still_avoided(self, now_s: float) -> frozenset[str]:
        return frozenset(host for host, until_s in self._avoided.items() if until_s > now_s)

    def _to_leave_out(self, avoided: frozenset[str]) -> frozenset[str]:
        """The hosts that YARN is told of."""
        if not avoided:
            return avoided
        nodes = self._manager.running_hosts()
        return safe_to_leave_out(avoided, self._seen if nodes is None else nodes)

    def _leave_out(self, hosts: frozenset[str]) -> None:
        if hosts == self._left_out or self._backend is None:
            return
        try:
            self._backend.leave_out(hosts)
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that does not answer
            log.warning("YARN is not told to leave out %s: %s", ", ".join(sorted(hosts)) or "no host", e)
        self._left_out = hosts


def is_enough(there: int, num: int, least: int, waited: float) -> bool:
    """Whether a wait ends: with all executors, or after half of the time with as many as suffice. Pure.

    Args:
      there: executors that have come.
      num: executors that are wanted.
      least: executors that suffice.
      waited: part of the time that is over.
    """
    return there >= num or (there >= least and waited >= 0.5)


def came(there: Iterable[Any], num: int) -> str:
    """`2 of 3 executors have come (2 on host a)`. Pure."""
    hosts: dict[str, int] = {}
    for each in there:
        hosts[each.host] = hosts.get(each.host, 0) + 1
    where = ", ".join(f"{number} on {host}" for host, number in sorted(hosts.items()))
    number = sum(hosts.values())
    return f"{number} of {num} executors {'has' if number == 1 else 'have'} come" + (f" ({where})" if where else "")


def safe_to_leave_out(avoided: frozenset[str], nodes: Collection[str]) -> frozenset[str]:
    """The hosts that YARN may be told to leave out. Pure.

    Spark's ApplicationMaster ends the application when it leaves out as many hosts as the cluster has nodes, whether
    they are the same or not. So a host that is no node is not told, and none if the others were not in the majority
    after all of those that are left out had gone.

    Args:
      avoided: hosts on which no executor is wanted.
      nodes: hosts of the cluster.
    """
    known = avoided & frozenset(nodes)
    return known if len(frozenset(nodes)) > 2 * len(known) else frozenset()
