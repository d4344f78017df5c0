"""`doctor`: what driver and executors of a Spark application see, before a job is trusted to them. The driver's side.

`examine` is for a SparkContext that is there, as in the first seconds of a training; `doctor` starts one. Neither
raises for what it finds: a `Diagnosis` has it. `_look_here` is the one function that runs on executors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyspark
from py4j.protocol import Py4JError
from pyspark import Accumulator, AccumulatorParam, SparkConf, SparkContext, TaskContext
from pyspark.sql import SparkSession

from tfos_job import storage
from tfos_job.cluster.topology import slots_of
from tfos_job.config import DoctorConfig
from tfos_job.doctor import clock, memory, sight, trial
from tfos_job.doctor.case import Cluster, Expected
from tfos_job.doctor.checks import diagnose
from tfos_job.doctor.diagnosis import Check, Diagnosis, failed
from tfos_job.doctor.sight import DRIVER, EXECUTOR, Question, Sight
from tfos_job.errors import JobError, ResourceError, SettingsError
from tfos_job.jobs import session

log = logging.getLogger(__name__)

_HOLD_S = 1.0  # a task keeps its slot for so long, so that the others go to other executors
_ROUNDS = 3
_JOB_S = 30.0  # for tasks to be started and Python to come up, beyond what is waited for inside them
_DEEP_S = 180.0
_POLL_S = 0.1
_LOG_EVERY_S = 10.0


# --- the command -----------------------------------------------------------------------------------------------------


def doctor(config: DoctorConfig, master: str | None) -> Diagnosis:
    """Starts Spark and examines it; where it does not start, that is a failure beside those the driver sees alone.

    Args:
      config: what the job is to need.
      master: Spark's master; None where spark-submit has set it.
    """
    began_s = time.monotonic()
    folder = config.train_dir or config.dataset_dir
    expected = Expected(
        num_executors=config.num_executors,
        num_gpus=config.num_gpus,
        expected_hours=config.expected_hours,
        min_free_bytes=int(config.min_free_gb * (1 << 30)),
        port_range=config.ports,
        folder=storage.absolute(folder) if folder else None,
        start_timeout=config.start_timeout,
        deep=config.deep,
    )
    settings = _settings(master, config)
    try:
        with contextlib.ExitStack() as stack:
            with _alarm(config.start_timeout):
                spark = stack.enter_context(session.open_session("tfos_job doctor", master, settings))
            diagnosis = examine(spark, expected)
    except (ResourceError, SettingsError) as e:  # from open_session: `examine` raises none
        known = {**_spark_settings(SparkConf()), **settings}
        cluster = _cluster_of(known.get("spark.master", master or ""), known)
        problem = failed("spark", type(e), e.fact, where=[e.place] if e.place else [], next_step=e.next_step)
        cluster = dataclasses.replace(cluster, problems=(*cluster.problems, problem))
        diagnosis = _Examination(None, expected, cluster).run()
    return dataclasses.replace(diagnosis, seconds=time.monotonic() - began_s)


@contextlib.contextmanager
def _alarm(timeout_s: int) -> Iterator[None]:
    """Ends a `with` that takes too long: on YARN an application may wait for its queue, and Spark with it, for ever.

    Only a signal interrupts the wait for an answer of the JVM. On the main thread.

    Raises:
      ResourceError: it took too long.
    """
    rang = False

    def ring(signum: int, frame: Any) -> None:
        nonlocal rang
        rang = True
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(timeout_s)
    try:
        yield
    except ResourceError as e:  # py4j, and then the session, have made one of it
        if not rang:
            raise
        raise ResourceError(
            f"Spark has not started within {timeout_s} s",
            next_step="Look at what its queue has free and at its diagnostics, or give more --start_timeout",
        ) from e
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _settings(master: str | None, config: DoctorConfig) -> dict[str, str]:
    """As for a training: all executors at once, one task each, in a Python of its own."""
    settings = {
        "spark.task.maxFailures": "1",
        "spark.dynamicAllocation.enabled": "false",
        "spark.speculation": "false",
        "spark.python.worker.reuse": "false",
    }
    slots = slots_of(master) if master else None
    if slots is not None and slots.executors > 1:
        settings["spark.task.cpus"] = str(slots.cores)
    if master is not None and slots is None:
        settings["spark.executor.instances"] = str(config.num_executors)  # spark-submit has its own word for it
    return settings


# --- the examination -------------------------------------------------------------------------------------------------


def examine(spark: SparkSession, expected: Expected, guard: Callable[[], None] = lambda: None) -> Diagnosis:
    """Looks at the driver and at every executor of a running SparkContext, each once; a few seconds, and bounded.

    It waits up to `expected.start_timeout` seconds for the executors to come; `guard`, called all that time, may raise.
    """
    sc = spark.sparkContext
    return _Examination(sc, expected, _cluster_of(sc.master, _spark_settings(sc.getConf()), sc.version), guard).run()


def _spark_settings(conf: SparkConf) -> dict[str, str]:
    return dict(conf.getAll())


def _cluster_of(master: str, settings: dict[str, str], spark_version: str = "") -> Cluster:
    """What settings alone say; a size that cannot be read is a problem."""
    slots = slots_of(master)
    in_driver = slots is not None and not master.startswith("local-cluster")
    problems = []
    containers: dict[str, Any] = {}
    limit_mb = None
    try:
        containers = {"executor": memory.executor_container(settings), "driver": memory.driver_container(settings)}
        limit_mb = memory.yarn_limit_mb(memory.conf_dir()) if master.startswith("yarn") else None
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


class _Examination:
    """One look at everything; without a SparkContext, at the driver alone."""

    def __init__(
        self,
        sc: SparkContext | None,
        expected: Expected,
        cluster: Cluster,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        self._sc = sc
        self._guard = guard
        self._expected = expected
        self._cluster = cluster
        self._problems: list[Check] = list(cluster.problems)
        self._token = uuid.uuid4().hex[:12]

    def run(self) -> Diagnosis:
        began_s = time.monotonic()
        num_registered = self._wait_for_executors()
        place = self._place()
        try:
            with self._clock() as driver_address:
                question = Question(
                    token=self._token,
                    place=place,
                    storage_timeout_s=self._expected.storage_timeout_s,
                    port_range=self._expected.port_range,
                    list_gpus=self._expected.num_gpus > 0 or self._expected.deep,
                    deep=self._expected.deep,
                )
                asked = dataclasses.replace(question, driver=driver_address)
                looks = _Looks(self._sc, asked, num_registered) if self._sc and num_registered else None
                driver = self._look_at_driver(dataclasses.replace(question, list_gpus=False))
                executors = looks.collect() if looks else ()
                if looks:
                    self._problems += looks.problems
        finally:
            if place is not None:
                trial.sweep(place, self._token)
        cluster = dataclasses.replace(
            self._cluster,
            num_registered=num_registered,
            num_held_ports=1 if driver_address and self._expected.port_range else 0,
            problems=tuple(self._problems),
        )
        checks = diagnose(self._expected, cluster, driver, executors)
        return Diagnosis(checks=checks, driver=driver, executors=executors, seconds=time.monotonic() - began_s)

    def _wait_for_executors(self) -> int:
        """How many have come, once enough have, or no more can, or the time is over."""
        if self._sc is None:
            return 0
        if self._cluster.in_driver:
            return 1
        wanted, most = self._expected.num_executors, self._cluster.num_slots
        wanted = wanted if most is None else min(wanted, most)
        deadline_s = time.monotonic() + self._expected.start_timeout
        logged_s = time.monotonic()
        while True:
            try:
                there = len(self._sc._jsc.sc().statusTracker().getExecutorInfos()) - 1  # the driver is one of them
            except (Py4JError, OSError) as e:
                self._problems.append(failed("spark", ResourceError, f"Spark's JVM does not answer: {e}"))
                return 0
            if there >= wanted or time.monotonic() > deadline_s:
                return there
            if time.monotonic() - logged_s >= _LOG_EVERY_S:
                logged_s = time.monotonic()
                log.info("waiting for executors: %d of %d have come", there, wanted)
            self._guard()
            time.sleep(_POLL_S)

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
        host = (self._sc.getConf().get("spark.driver.host") if self._sc else None) or socket.gethostname()
        with contextlib.ExitStack() as stack:
            try:
                address = stack.enter_context(clock.serve(host, self._expected.port_range))
            except ResourceError as e:
                self._problems.append(failed("network", type(e), e.fact, where=[e.place], next_step=e.next_step))
                address = None
            yield address

    def _look_at_driver(self, question: Question) -> Sight:
        java = None
        if SparkContext._jvm is not None:
            with contextlib.suppress(Py4JError, OSError):
                java = str(SparkContext._jvm.java.lang.System.getProperty("java.version"))
        return sight.look(question, DRIVER, pyspark_version=pyspark.__version__, java=java)


# --- the executors ---------------------------------------------------------------------------------------------------


class _SightsParam(AccumulatorParam[list[Any]]):
    """Sights as they come: unlike the result of a job, they are there although another task fails or hangs."""

    def zero(self, value: list[Any]) -> list[Any]:
        return []

    def addInPlace(self, value1: list[Any], value2: list[Any]) -> list[Any]:  # noqa: N802 - Spark's name
        value1 += value2
        return value1


def _look_here(
    question: Question, hold_s: float, known: frozenset[str], sights: Accumulator[list[Any]], _: Iterable[int]
) -> None:
    """Runs on an executor, which it holds for `hold_s`."""
    began_s = time.monotonic()
    jvm = sight.own_executor()
    if jvm not in known:
        context = TaskContext.get()
        gpus = context.resources().get("gpu") if context else None
        addresses = None if gpus is None else gpus.addresses
        seen = sight.look(question, EXECUTOR, pyspark_version=pyspark.__version__, gpus_assigned=addresses)
        sights.add([seen.to_dict()])
    time.sleep(max(0.0, hold_s - (time.monotonic() - began_s)))


class _Looks:
    """The Spark jobs that look at each executor once. They begin at once; `collect` waits for them."""

    def __init__(self, sc: SparkContext, question: Question, num_executors: int) -> None:
        self._sc = sc
        self._question = question
        self._num_executors = num_executors
        self._group = f"doctor-{question.token}"
        self._sights = sc.accumulator([], _SightsParam())
        self._deadline_s = time.monotonic() + _JOB_S + question.storage_timeout_s + (_DEEP_S if question.deep else 0.0)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=self._group, daemon=True)
        self._thread.start()
        self.problems: list[Check] = []

    def _run(self) -> None:
        try:
            # The group is a property of this thread's jobs, so it must be set here.
            self._sc.setJobGroup(self._group, f"a look at {self._num_executors} executors", interruptOnCancel=True)
            for _ in range(_ROUNDS):
                known = frozenset(seen.key for seen in self._seen())
                if len(known) >= self._num_executors or time.monotonic() > self._deadline_s:
                    return
                hold_s = _HOLD_S if self._num_executors > 1 else 0.0
                look = functools.partial(_look_here, self._question, hold_s, known, self._sights)
                self._sc.parallelize(range(self._num_executors), self._num_executors).foreachPartition(look)
        except Exception as e:  # noqa: BLE001 - Spark's and py4j's own, whatever they are, are what is looked for
            self._error = e

    def collect(self) -> tuple[Sight, ...]:
        """What has come when all are done, or the time is over; what went wrong is in `problems`."""
        try:
            while self._thread.is_alive() and time.monotonic() < self._deadline_s:
                self._thread.join(_POLL_S)
        finally:
            if self._thread.is_alive():
                with contextlib.suppress(Py4JError, OSError):
                    self._sc.cancelJobGroup(self._group)
        if self._error is not None:
            self.problems.append(_task_problem(self._error))
        return self._seen()

    def _seen(self) -> tuple[Sight, ...]:
        sights = {seen.key: seen for seen in map(sight.from_dict, list(self._sights.value))}
        return tuple(sorted(sights.values(), key=lambda seen: (len(seen.executor_id), seen.executor_id)))


# The last line of a Python traceback; Java's frames and causes begin otherwise.
_RAISED = re.compile(r"(?!org\.|java\.|py4j\.)(?:\w+\.)*(\w*(?:Error|Exception): .+)")
_AT_EXECUTOR = re.compile(r"\((\S+) executor (\S+)\)")


def _task_problem(error: Exception) -> Check:
    """Why tasks fail before they can look: no Python, another one, or one that lacks this package."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [match.group(1) for line in lines if (match := _RAISED.fullmatch(line))]
    at = _AT_EXECUTOR.search(str(error))
    fact = raised[-1] if raised else next((line for line in lines if "Exception" in line), type(error).__name__)
    return failed(
        "tasks",
        SettingsError if raised or "Cannot run program" in str(error) else ResourceError,
        f"a task cannot be run: {fact}",
        where=[f"executor {at.group(2)} on host {at.group(1)}"] if at else [],
        next_step="Ship this package and its Python with the job (PYSPARK_PYTHON, --archives), the same everywhere",
    )
