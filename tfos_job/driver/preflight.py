"""The examination of a Spark application: probes of its driver and of each executor, within a few seconds.

Findings raise no exception: the `Diagnosis` has them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pyspark
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from tfos_job import storage
from tfos_job.doctor import clock, host_memory, probe, trial
from tfos_job.doctor.case import Cluster, Expected
from tfos_job.doctor.checks import diagnose
from tfos_job.doctor.diagnosis import Check, Diagnosis, failed
from tfos_job.doctor.probe import DRIVER, ProbeRequest, ProbeResult
from tfos_job.driver.executor_probe import ExecutorProbe
from tfos_job.driver.executors import Executors
from tfos_job.errors import JobError, NodeDiedError, ResourceError, SettingsError
from tfos_job.protocol.topology import is_in_driver, is_local, slots_of

log = logging.getLogger(__name__)


def examine(
    spark: SparkSession,
    expected: Expected,
    on_wait: Callable[[], None] = lambda: None,
    executors: Executors | None = None,
) -> Diagnosis:
    """Examines the driver and every executor of a running SparkContext, each once, with a time limit.

    Args:
      spark: session of the application; it can be used afterwards.
      expected: the job's requirements; `start_timeout` is the time limit for the executors to register.
      on_wait: called several times a second during waits; its exception ends the examination.
      executors: of the application (default: they are asked for).
    """
    sc = spark.sparkContext
    cluster = cluster_of(sc.master, dict(sc.getConf().getAll()), sc.version)
    executors = executors or Executors(sc, is_local=is_local(sc.master))
    return Examination(sc, expected, cluster, on_wait, executors).run()


def settings_without_spark() -> dict[str, str]:
    """Returns the settings of spark-submit and spark-defaults.conf; empty if no JVM can be started."""
    try:
        return dict(SparkConf().getAll())
    except (Py4JError, OSError):
        return {}


def cluster_of(master: str, settings: dict[str, str], spark_version: str = "") -> Cluster:
    """Derives the driver's view of the cluster from Spark's settings; a size that cannot be parsed is a problem."""
    slots = slots_of(master)
    in_driver = is_in_driver(master)
    problems = []
    containers: dict[str, Any] = {}
    limit_mb = None
    try:
        containers = {
            "executor": host_memory.executor_container(settings),
            "driver": host_memory.driver_container(settings),
        }
        limit_mb = host_memory.yarn_limit_mb(host_memory.conf_dir()) if master.startswith("yarn") else None
    except SettingsError as e:
        problems.append(failed("memory", SettingsError, e.fact, where=[e.place], next_step=e.next_step))
    return Cluster(
        master=master,
        spark_version=spark_version,
        num_slots=(slots.cores if in_driver else slots.executors) if slots else None,
        in_driver=in_driver,
        yarn_limit_mb=limit_mb,
        problems=tuple(problems),
        **containers,
    )


class Examination:
    """One examination of all processes; without a SparkContext, of the driver alone."""

    def __init__(
        self,
        sc: SparkContext | None,
        expected: Expected,
        cluster: Cluster,
        on_wait: Callable[[], None] = lambda: None,
        executors: Executors | None = None,
    ) -> None:
        self._sc = sc
        self._executors = executors
        self._on_wait = on_wait
        self._expected = expected
        self._cluster = cluster
        self._problems: list[Check] = list(cluster.problems)
        self._missing = ""
        self._token = uuid.uuid4().hex[:12]

    def run(self) -> Diagnosis:
        began_s = time.monotonic()
        log.info("Examining the driver%s", " and the executors" if self._sc is not None else "")
        num_registered = self._wait_for_executors()
        place = self._place()
        try:
            with self._clock() as address:
                driver, executors = self._probe(place, address, num_registered)
        finally:
            if place is not None:
                trial.sweep(place, self._token)
        cluster = dataclasses.replace(
            self._cluster,
            num_registered=num_registered,
            missing=self._missing,
            num_held_ports=1 if address and self._expected.port_range else 0,
            problems=tuple(self._problems),
        )
        checks = diagnose(self._expected, cluster, driver, executors)
        return Diagnosis(checks=checks, driver=driver, executors=executors, seconds=time.monotonic() - began_s)

    def _probe(
        self, place: str | None, address: clock.Address | None, num_registered: int
    ) -> tuple[ProbeResult, tuple[ProbeResult, ...]]:
        """Probes the executors and, at the same time, the driver."""
        expected = self._expected
        request = ProbeRequest(
            token=self._token,
            place=place,
            storage_timeout_s=expected.storage_timeout_s,
            port_range=expected.port_range,
            deep=expected.deep,
        )
        if self._sc is None or not num_registered:
            return self._probe_driver(request), ()
        list_gpus = expected.num_gpus > 0 or expected.deep
        executor_probe = ExecutorProbe(
            self._sc, dataclasses.replace(request, driver=address, list_gpus=list_gpus), num_registered
        )
        try:
            driver = self._probe_driver(request)
            executors = executor_probe.collect(self._on_wait)
        finally:
            executor_probe.close()
        self._problems += executor_probe.problems
        return driver, executors

    def _wait_for_executors(self) -> int:
        """Waits for enough executors, or for all that can register, or for the time limit; returns their number."""
        if self._executors is None:
            return 0
        if self._cluster.in_driver:
            return 1
        wanted, most = self._expected.num_executors, self._cluster.num_slots
        wanted = wanted if most is None else min(wanted, most)
        try:
            return self._executors.wait(wanted, wanted, self._expected.start_timeout, self._on_wait)
        except ResourceError as e:
            self._missing = e.fact
        except NodeDiedError as e:
            self._problems.append(failed("spark", ResourceError, e.fact))
            return 0
        return len(self._executors.there())

    def _place(self) -> str | None:
        if self._expected.folder is None:
            return None
        try:
            with storage.within(self._expected.storage_timeout_s):
                return trial.existing_folder(self._expected.folder)
        except JobError as e:
            self._problems.append(
                failed("storage", type(e), e.fact, where=[e.place] if e.place else [], next_step=e.next_step)
            )
            return None

    @contextlib.contextmanager
    def _clock(self) -> Iterator[clock.Address | None]:
        if self._sc is None:
            yield None  # there are no executors to ask for the time
            return
        host = self._sc.getConf().get("spark.driver.host") or socket.gethostname()
        with contextlib.ExitStack() as stack:
            try:
                address = stack.enter_context(clock.serve(host, self._expected.port_range))
            except ResourceError as e:
                self._problems.append(failed("network", type(e), e.fact, where=[e.place], next_step=e.next_step))
                address = None
            yield address

    def _probe_driver(self, request: ProbeRequest) -> ProbeResult:
        java = None
        if SparkContext._jvm is not None:
            with contextlib.suppress(Py4JError, OSError):
                java = str(SparkContext._jvm.java.lang.System.getProperty("java.version"))
        return probe.run(request, DRIVER, pyspark_version=pyspark.__version__, java=java)
