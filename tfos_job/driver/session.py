"""The SparkSession of a command: which master, how many slots, how loud."""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from tfos_job.driver import jvm
from tfos_job.errors import JobError, ResourceError, SettingsError
from tfos_job.host import environment
from tfos_job.host.child import end, module_path
from tfos_job.host.limits import within
from tfos_job.protocol.topology import Topology, check_slots, slots_of

log = logging.getLogger(__name__)

# A task is run once, on an executor that is there all the time, in a Python of its own.
ONE_TASK_SETTINGS = {
    "spark.task.maxFailures": "1",  # A node that is run again elsewhere would join a cluster that has failed.
    "spark.speculation": "false",
    "spark.dynamicAllocation.enabled": "false",
    "spark.python.worker.reuse": "false",  # A process that has had TensorFlow in it must not serve another cluster.
}
# One node an executor, all of them at once, none of them twice.
TFCLUSTER_SETTINGS = {**ONE_TASK_SETTINGS, "spark.scheduler.minRegisteredResourcesRatio": "1.0"}
# Spark hands out work here and does little itself: without its second compiler a JVM costs 0.6 of the processor time to
# start (benchmarks/start.py).
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1"
_STOP_S = 10.0
_LOCAL_START_S = 600  # there is no queue to wait for; a JVM takes seconds


def resolve_master(requested: str | None, num_nodes: int) -> str | None:
    """The master to set; None where spark-submit has set one.

    Args:
      requested: `--master`.
      num_nodes: slots that must run at the same time.
    """
    if requested is not None:
        return requested
    if _submitted():
        return None
    return f"local[{max(os.cpu_count() or 1, num_nodes)}]"


def _submitted() -> bool:
    """Whether spark-submit has started this process: its JVM is waiting for us, with settings of its own."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def in_cluster_mode() -> bool:
    """Whether this is a driver that the cluster runs in a container of its own (spark-submit's cluster mode)."""
    return _submitted() and (_submitted_conf().get("spark.submit.deployMode") or "client") == "cluster"


def begin_in_cluster(command: str) -> None:
    """Makes the SparkContext before anything else that can fail.

    Without one, YARN's ApplicationMaster makes 13 of every exit code, waits 100 s for the context, and has no reason to
    tell. Later sessions of this process are this one.

    Raises:
      SettingsError: Spark refuses a setting.
      ResourceError: it does not start for another reason.
    """
    settings = {**_common_settings(None), **(TFCLUSTER_SETTINGS if command == "train" else {})}
    conf = _submitted_conf()
    for key, value in settings.items():
        conf.setIfMissing(key, value)
    try:
        with _own_signals():
            SparkContext.getOrCreate(conf).setLogLevel("WARN")
    except Exception as e:
        raise _start_error(e, "") from e


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """A SparkContext puts a handler of its own in place of ours for SIGINT: it asks the JVM, which may not answer."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _start_error(error: Exception, master: str) -> JobError:
    """In one line. py4j's own message begins with the call that failed; why, Java's last cause says."""
    java = getattr(error, "java_exception", None)
    said, of = "", ""
    if java is not None:
        with contextlib.suppress(Py4JError, OSError):  # the JVM may be gone as well
            while (cause := java.getCause()) is not None:
                java = cause
            name, message = str(java.getClass().getSimpleName()), java.getMessage()
            said = f"{name}: {message}" if message and " " not in message else str(message or name)
            of = _setting_behind(said)
    lines = (said or str(error)).strip().splitlines()
    # Java's word for a setting that makes no sense.
    kind = SettingsError if of or "IllegalArgumentException" in str(error) else ResourceError
    return kind(
        f"Spark does not start: {lines[0] if lines else type(error).__name__}",
        place=of or (f"--master {master}" if master else ""),
        next_step="Correct that setting" if of else "",
    )


def _setting_behind(words: str) -> str:
    """The setting that Java's words are about, and the file that has it; empty where none is found."""
    file = jvm.defaults_file(os.environ)
    in_file, all_of_them = jvm.read_defaults(file), dict(SparkConf().getAll())
    key = jvm.blamed(words, {key: value for key, value in in_file.items() if all_of_them.get(key) == value})
    if key:
        return f"{key} in {file}"
    return jvm.blamed(words, {key: value for key, value in all_of_them.items() if "/" in value})


def _submitted_conf() -> SparkConf:
    """What spark-submit has set. Without its JVM a SparkConf knows nothing of that."""
    SparkContext._ensure_initialized()
    return SparkConf()


def training_settings(topology: Topology, master: str | None, start_timeout: int) -> dict[str, str]:
    """Spark settings that a TFCluster needs: one node an executor, all at once, none of them twice.

    Raises:
      SettingsError: the master has too few slots for the topology.
    """
    settings = {
        **TFCLUSTER_SETTINGS,
        "spark.scheduler.maxRegisteredResourcesWaitingTime": f"{start_timeout}s",
    }
    if master is None and _submitted():
        master = _submitted_conf().get("spark.master")
    if master is not None:
        check_slots(topology, master)
        slots = slots_of(master)
        if slots is not None and slots.executors > 1:
            settings["spark.task.cpus"] = str(slots.cores)
    return settings


def is_local(master: str) -> bool:
    """Whether all of Spark runs on this host."""
    return slots_of(master) is not None


@contextlib.contextmanager
def open_session(
    app_name: str,
    master: str | None,
    settings: Mapping[str, str] | None = None,
    *,
    start_timeout: int | None = None,
) -> Iterator[SparkSession]:
    """A SparkSession for the length of a `with`.

    Args:
      app_name: for Spark's UI, and YARN's.
      master: Spark's; None where spark-submit has set it.
      settings: of Spark, beside those that every command has.
      start_timeout: seconds that it may take to start; without, on a cluster, it waits for its queue.

    Raises:
      SettingsError: Spark refuses a setting, or this host has one that keeps its JVM from starting.
      ResourceError: Spark does not start.
    """
    local = master is not None and is_local(master)
    of_this_host = jvm.kept_defaults(os.environ) if local else {}
    if local or (master is None and _submitted() and is_local(_submitted_conf().get("spark.master") or "")):
        changes = environment.settle_local_spark(os.environ, python=sys.executable, path=module_path())
        environment.apply(os.environ, changes)
        for change in changes:
            if change.before is not None:
                log.debug("%s", change)
    builder = SparkSession.builder.appName(app_name)
    wanted = {**of_this_host, **_common_settings(master), **(settings or {})}
    if master is not None:
        wanted["spark.master"] = master
    with _time_limit(start_timeout or (_LOCAL_START_S if local else None)), _own_signals():
        jvm.start(wanted, local=local)
        with _withdrawn(wanted, local=local):
            for key, value in wanted.items():
                builder = builder.config(key, value)
            try:
                spark = builder.getOrCreate()
            except Exception as e:
                raise _start_error(e, master or "") from e
    if master is None:
        # spark-submit's JVM has begun with its own log settings.
        spark.sparkContext.setLogLevel("WARN")
    try:
        yield spark
    finally:
        _stop(spark)


@contextlib.contextmanager
def _time_limit(timeout_s: int | None) -> Iterator[None]:
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
    signal.alarm(timeout_s or 0)
    try:
        yield
    except (JobError, TimeoutError) as e:  # py4j, and then the session, have made a JobError of it
        if not rang:
            raise
        _end_jvm()
        raise ResourceError(
            f"Spark has not started within {timeout_s} s",
            next_step="Look at what its queue has free and at its diagnostics, or give more --start_timeout",
        ) from e
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _withdrawn(settings: dict[str, str], *, local: bool) -> Iterator[None]:
    """Withdraws from YARN an application whose SparkContext is not waited for any more: it would be given containers.

    Args:
      settings: of the session; those that mark the application are added.
      local: there will be none.
    """
    master = settings.get("spark.master") or SparkConf().get("spark.master") or ""
    if local or not master.startswith("yarn") or in_cluster_mode():
        yield
        return
    tag = f"tfos_job-{uuid.uuid4().hex}"
    settings["spark.yarn.tags"] = ",".join(filter(None, [SparkConf().get("spark.yarn.tags"), tag]))
    try:
        yield
    except BaseException:
        try:
            within(_STOP_S, lambda: _withdraw(tag), "withdraw")
        except Exception as e:  # noqa: BLE001 - what is being cleaned up after must not be hidden
            log.warning("What waits at YARN could not be withdrawn (yarn application -list -appTags %s): %s", tag, e)
        raise


def _withdraw(tag: str) -> None:
    """Kills the applications with a tag; on a thread of its own, since the other's connection to the JVM is in use."""
    java = SparkContext._jvm
    client = java.org.apache.hadoop.yarn.client.api.YarnClient.createYarnClient()
    client.init(java.org.apache.hadoop.yarn.conf.YarnConfiguration())
    client.start()
    tags = java.java.util.HashSet()
    tags.add(tag)
    request = java.org.apache.hadoop.yarn.api.protocolrecords.GetApplicationsRequest.newInstance()
    request.setApplicationTags(tags)
    for report in client.getApplications(request):
        log.warning("withdrawing %s", report.getApplicationId().toString())
        client.killApplication(report.getApplicationId())


def _stop(spark: SparkSession) -> None:
    """Ends Spark in bounded time, and raises nothing but a signal: what came before must not be hidden by its end."""
    try:
        within(_STOP_S, spark.stop, "spark-stop")
    except TimeoutError:
        log.warning("Spark did not stop within %.0f s: its JVM is ended", _STOP_S)
        _end_jvm()
    except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
        log.debug("Spark does not stop: %s", e)
    except BaseException:  # a signal
        _end_jvm()
        raise


def _end_jvm() -> None:
    """Where it is a child of this process."""
    process = getattr(SparkContext._gateway, "proc", None)
    if process is not None:
        end(process, "Spark's JVM")


def _common_settings(master: str | None) -> dict[str, str]:
    settings = {"spark.ui.showConsoleProgress": "false"}
    if master is not None and is_local(master):
        log4j2 = importlib.resources.files("tfos_job.driver") / "log4j2.properties"
        quiet = f"-Dlog4j2.configurationFile=file:{log4j2}"
        settings |= {
            # Everything is on this host, and no name of it needs to resolve.
            "spark.driver.host": jvm.LOOPBACK,
            "spark.driver.bindAddress": jvm.LOOPBACK,
            "spark.ui.enabled": "false",
            "spark.driver.extraJavaOptions": f"{quiet} {JAVA_OPTIONS}",
            "spark.executor.extraJavaOptions": f"{quiet} {JAVA_OPTIONS}",
        }
    return settings
