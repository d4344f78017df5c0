"""The SparkSession of the program that a command is called from, and commands on threads of a program."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job.driver import session, start_limit
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import BusyError, ResourceError, SettingsError
from tfos_job.protocol.spark_settings import HEARTBEATS
from tfos_job.protocol.topology import Topology

MASTER = "local[2,2]"  # of the fixture `spark`, where a task may fail once
FRESH = {"spark.python.worker.reuse": "false"}


def workers(spark: SparkSession) -> set[int]:
    """The Python processes of a job's tasks."""
    context = spark.sparkContext
    return set(context.parallelize(range(2), 2).map(lambda _: os.getpid()).collect())


def test_the_programs_session_is_used_and_goes_on(spark: SparkSession) -> None:
    assert session.program_master() == MASTER
    of_the_program = workers(spark)
    before = dict(os.environ), signal.getsignal(signal.SIGINT)
    with session.open_session("other", None, FRESH) as lent:
        assert lent is spark
        first, second = workers(lent), workers(lent)
        assert not first & second
        assert not (first | second) & of_the_program
    assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before
    assert workers(spark) == workers(spark) == of_the_program
    with session.open_session("other", MASTER, {}) as lent:
        assert workers(lent) == of_the_program


def test_a_session_that_cannot_do_the_work_is_refused_and_goes_on(spark: SparkSession) -> None:
    settings = session.training_settings(Topology(num_ps_tasks=1, num_workers=1), MASTER, 3)
    with pytest.raises(SettingsError) as caught, session.open_session("other", "local[4]", settings):
        pass
    assert "since it has spark.task.maxFailures=2, spark.master=local[2,2]" in caught.value.fact
    assert '.config("spark.task.maxFailures", "1"), .config("spark.master", "local[4]")' in caught.value.next_step
    assert spark.range(3).count() == 3


def test_a_users_own_settings_for_restarts_are_stronger_and_no_others(spark: SparkSession) -> None:
    wanted = session.training_settings(Topology(num_ps_tasks=1, num_workers=1), "yarn", 3)
    of_the_user = {
        "spark.network.timeout": "300s",
        "spark.yarn.max.executor.failures": "5",  # the old name of one
        "spark.speculation": "true",
    }
    properties = spark._jvm.java.lang.System  # where spark-submit puts them
    assert session._yielded(wanted, local=False) == wanted
    for key, value in of_the_user.items():
        properties.setProperty(key, value)
    try:
        found = session._yielded(wanted, local=False)
    finally:
        for key in of_the_user:
            properties.clearProperty(key)
    # The interval of heartbeats must be below their timeouts, so that all of these are the user's.
    assert set(wanted) - set(found) == {*HEARTBEATS, "spark.executor.maxNumFailures"}
    assert found["spark.speculation"] == "false"


def test_a_process_has_one_command_on_spark_at_a_time(spark: SparkSession) -> None:
    def ask() -> str:
        with session.open_session("second", None) as lent:
            return str(lent.sparkContext.master)

    with ThreadPoolExecutor(1) as thread:
        with session.open_session("first", None), pytest.raises(BusyError, match="another command of this process"):
            thread.submit(ask).result()
        assert thread.submit(ask).result() == MASTER


def test_a_thread_hears_no_signals_and_changes_no_handler() -> None:
    def ask() -> tuple[int | None, bool]:
        with StopSignal() as stop:
            return stop.signum, signal.getsignal(signal.SIGTERM) is before

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(ask).result() == (None, True)
    assert signal.getsignal(signal.SIGTERM) is before


def test_on_a_thread_the_end_of_the_jvm_ends_what_waits_for_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(start_limit, "end_jvm", ended.set)  # that of the other tests goes on

    def wait_for_spark() -> None:
        with start_limit.time_limit(1):
            ended.wait()
            raise ResourceError("Spark does not start: Error while sending or receiving")

    with ThreadPoolExecutor(1) as thread, pytest.raises(ResourceError, match="Spark has not started within 1 s"):
        thread.submit(wait_for_spark).result()


def test_a_jvm_that_was_ended_is_not_the_next_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process(SimpleNamespace):
        def wait(self, timeout: float | None = None) -> int:
            return 0

    monkeypatch.setattr(SparkContext, "_gateway", SimpleNamespace(proc=Process(pid=1)))
    for name in ("_jvm", "_active_spark_context"):
        monkeypatch.setattr(SparkContext, name, object())
    monkeypatch.setattr(SparkSession, "_instantiatedSession", object())
    start_limit.end_jvm()
    assert (SparkContext._gateway, SparkContext._jvm, SparkContext._active_spark_context) == (None, None, None)
    assert SparkSession._instantiatedSession is None
