"""The SparkSession of a command: its master, settings, start and end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from tfos_job.driver import jvm, local_spark, program_session, spark_defaults
from tfos_job.driver.start_errors import explain_context
from tfos_job.driver.start_limit import end_jvm, time_limit
from tfos_job.driver.withdrawal import withdrawn
from tfos_job.errors import BusyError
from tfos_job.host import process_environment, signals
from tfos_job.host.child import module_path
from tfos_job.host.container import under_spark_submit
from tfos_job.host.limits import within
from tfos_job.host.process_environment import VariableChange
from tfos_job.protocol.spark_settings import HEARTBEATS, executor_failures
from tfos_job.protocol.topology import Topology, check_slots, is_local, slots_of

log = logging.getLogger(__name__)

# Each task runs once, on a permanent executor, in a Python process of its own.
ONE_TASK_SETTINGS = {
    "spark.task.maxFailures": "1",  # a node that runs again elsewhere would join a cluster that has failed
    "spark.speculation": "false",
    "spark.dynamicAllocation.enabled": "false",
    "spark.python.worker.reuse": "false",  # a process that has used TensorFlow must not serve another cluster
    "spark.scheduler.minRegisteredResourcesRatio": "0.0",  # the wait for executors is ours: `executors.Executors`
}
# One node per executor, all of them at the same time, each once.
TFCLUSTER_SETTINGS = {
    **ONE_TASK_SETTINGS,
    "spark.excludeOnFailure.enabled": "false",  # Spark refuses it for tasks that run once; restarts leave out hosts
    **HEARTBEATS,
}
# Spark's Python processes of a container are reached through sockets in its folder, and not through ports that other
# users of the host can reach as well. The folder's full path would be too long for a socket.
_CONTAINER_SETTINGS = local_spark.python_sockets(".")
_YIELDING = {*HEARTBEATS, *executor_failures(1, 0)}  # to a user's own
_STOP_S = 10.0
_in_use = threading.Lock()  # a process has one SparkContext
_started: SparkContext | None = None  # by this module; any other one is the program's that calls a command
_LOCAL_START_S = 600  # a JVM takes seconds, and there is no queue


def in_cluster_mode() -> bool:
    """True if this driver runs in a container of the cluster (spark-submit's cluster mode)."""
    return under_spark_submit() and (_submitted_conf().get("spark.submit.deployMode") or "client") == "cluster"


def begin_in_cluster(*, trains: bool) -> None:
    """Creates the SparkContext before anything else that can fail.

    Without a SparkContext YARN's ApplicationMaster waits 100 s for it, reports no reason and replaces every exit code
    by 13. Later sessions of this process use this context.

    Args:
      trains: whether the command starts a TFCluster.

    Raises:
      SettingsError: Spark rejects a setting.
      ResourceError: Spark does not start for another reason.
    """
    global _started
    settings = {**_common_settings(None), **_CONTAINER_SETTINGS, **(TFCLUSTER_SETTINGS if trains else {})}
    conf = _submitted_conf()
    for key, value in settings.items():
        conf.setIfMissing(key, value)
    try:
        with _own_signals():
            _started = SparkContext.getOrCreate(conf)
            _started.setLogLevel("WARN")
    except Exception as e:
        raise explain_context(e, "") from e


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restores our handler of SIGINT: a SparkContext replaces it by one that calls the JVM, which may not answer."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signals.restore({signal.SIGINT: before})


def _submitted_conf() -> SparkConf:
    """Returns the settings of spark-submit. A SparkConf has them only after the connection to its JVM."""
    SparkContext._ensure_initialized()
    return SparkConf()


def training_settings(topology: Topology, master: str | None, max_restarts: int) -> dict[str, str]:
    """Returns Spark's settings for a TFCluster: one node per executor, all at the same time, each once.

    Args:
      topology: the nodes.
      master: of Spark; None if spark-submit has set it.
      max_restarts: `--max_restarts`.

    Raises:
      SettingsError: the master has too few slots for the topology.
    """
    settings = {**TFCLUSTER_SETTINGS, **executor_failures(topology.num_spark_executors, max_restarts)}
    if master is None and under_spark_submit():
        master = _submitted_conf().get("spark.master")
    if master is not None:
        check_slots(topology, master)
        slots = slots_of(master)
        if slots is not None:  # also where it is Spark's default: a JVM keeps the settings of its first session
            settings["spark.task.cpus"] = str(slots.cores if slots.executors > 1 else 1)
    return settings


def program_master() -> str | None:
    """The master of the SparkSession that the calling program has, if it has one."""
    context = _program_context()
    return None if context is None else str(context.master)


def _program_context() -> SparkContext | None:
    active: SparkContext | None = SparkContext._active_spark_context
    return None if active is _started else active


@contextlib.contextmanager
def open_session(
    app_name: str,
    master: str | None,
    settings: Mapping[str, str] | None = None,
    *,
    start_timeout: int | None = None,
) -> Iterator[SparkSession]:
    """Opens a SparkSession for a `with` block, or takes the one that the calling program has and leaves it running.

    Args:
      app_name: for the UIs of Spark and YARN.
      master: of Spark; None if spark-submit has set it.
      settings: of Spark, in addition to those of every command.
      start_timeout: seconds for the start (default: 600 for a local master, unlimited on a cluster with a queue).

    Raises:
      SettingsError: Spark rejects a setting, a setting of this host prevents the start of its JVM, or the program's
        session has other settings.
      ResourceError: Spark does not start.
      BusyError: another thread of this process has a session open.
    """
    if not _in_use.acquire(blocking=False):
        raise BusyError("another command of this process uses Spark", next_step="Wait for its end")
    try:
        context = _program_context()
        if context is not None:
            with program_session.borrowed(context, master, settings or {}) as spark:
                yield spark
        else:
            with _own_session(app_name, master, settings or {}, start_timeout) as spark:
                yield spark
    finally:
        _in_use.release()


@contextlib.contextmanager
def _own_session(
    app_name: str, master: str | None, settings: Mapping[str, str], start_timeout: int | None
) -> Iterator[SparkSession]:
    """Starts a session for a `with` block, in the environment that it needs."""
    changes: list[VariableChange] = []
    local = is_local(master)
    if local or (master is None and under_spark_submit() and is_local(_submitted_conf().get("spark.master"))):
        changes = process_environment.settle_local_spark(os.environ, python=sys.executable, path=module_path())
    for change in changes:
        if change.before is not None:
            log.debug("%s", change)
    with process_environment.applied(os.environ, changes):
        spark = _start(app_name, master, settings, start_timeout, local=local)
        try:
            yield spark
        finally:
            _stop(spark)


def _start(
    app_name: str, master: str | None, settings: Mapping[str, str], start_timeout: int | None, *, local: bool
) -> SparkSession:
    global _started
    of_this_host = spark_defaults.kept_defaults(os.environ) if local else {}
    wanted = {**of_this_host, **_common_settings(master), **settings}
    if master is not None:
        wanted["spark.master"] = master
    if SparkContext._active_spark_context is None:
        log.info("Starting Spark%s", f" ({master})" if master else "")
    builder = SparkSession.builder.appName(app_name)
    with time_limit(start_timeout or (_LOCAL_START_S if local else None)), _own_signals():
        wanted = _yielded(wanted, local=local)
        if master is not None and local:
            wanted |= local_spark.guards(master)
        with withdrawn(wanted, is_needed=not (local or in_cluster_mode())):
            for key, value in wanted.items():
                builder = builder.config(key, value)
            try:
                spark = builder.getOrCreate()
            except Exception as e:
                raise explain_context(e, master or "") from e
    _started = spark.sparkContext
    if local:
        local_spark.bequeath(spark)
    if master is None:
        # spark-submit's JVM has started with its own log settings.
        spark.sparkContext.setLogLevel("WARN")
    return spark


def _yielded(wanted: Mapping[str, str], *, local: bool) -> dict[str, str]:
    """Starts the JVM, which knows a user's own settings; returns the settings for the context."""
    jvm.start({key: value for key, value in wanted.items() if key not in _YIELDING}, local=local)
    theirs = SparkConf()
    given = {key for key in _YIELDING if theirs.contains(key)}
    if given & HEARTBEATS.keys():
        given |= HEARTBEATS.keys()  # Spark refuses an interval above a timeout
    return {key: value for key, value in wanted.items() if key not in given}


def _stop(spark: SparkSession) -> None:
    """Stops Spark within a time limit. Raises only signals, so that an earlier error is not hidden."""
    try:
        within(_STOP_S, spark.stop, "spark-stop")
    except TimeoutError:
        log.warning("Spark did not stop within %.0f s: its JVM is ended", _STOP_S)
        end_jvm()
    except Exception as e:  # noqa: BLE001 - any exception of py4j after the end of the JVM
        log.debug("Spark does not stop: %s", e)
        end_jvm()
    except BaseException:  # a signal
        end_jvm()
        raise


def _common_settings(master: str | None) -> dict[str, str]:
    settings = {"spark.ui.showConsoleProgress": "false"}
    return settings | local_spark.settings() if is_local(master) else settings
