"""The SparkSession of a command: which master, how many slots, how loud."""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from tfos_job.cluster.topology import Topology, check_slots, slots_of
from tfos_job.errors import JobError, ResourceError, SettingsError
from tfos_job.host import environment
from tfos_job.host.child import module_path

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
_LOOPBACK = "127.0.0.1"
_STOP_S = 10.0


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
        SparkContext.getOrCreate(conf).setLogLevel("WARN")
    except Exception as e:
        raise _start_error(e, "") from e


def _start_error(error: Exception, master: str) -> JobError:
    """In one line. py4j's own message begins with the call that failed; why, Java's exception says."""
    java = getattr(error, "java_exception", None)
    said = ""
    if java is not None:
        with contextlib.suppress(Py4JError, OSError):  # the JVM may be gone as well
            said = str(java.getMessage() or java.toString())
    lines = (said or str(error)).strip().splitlines()
    # Java's word for a setting that makes no sense.
    kind = SettingsError if "IllegalArgumentException" in str(error) else ResourceError
    return kind(
        f"Spark does not start: {lines[0] if lines else type(error).__name__}",
        place=f"--master {master}" if master else "",
    )


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
    app_name: str, master: str | None, settings: Mapping[str, str] | None = None
) -> Iterator[SparkSession]:
    """A SparkSession for the length of a `with`.

    Raises:
      SettingsError: there is no Java.
      ResourceError: Spark does not start.
    """
    java_home = os.environ.get("JAVA_HOME")
    if not shutil.which(os.path.join(java_home, "bin", "java") if java_home else "java"):
        raise SettingsError(
            "there is no Java, and Spark needs one",
            place=f"JAVA_HOME={java_home}" if java_home else "PATH",
            next_step="Install a JDK 17 or 21 (Debian: apt-get install openjdk-17-jre-headless)",
        )
    if master is not None and is_local(master):
        changes = environment.settle_local_spark(os.environ, python=sys.executable, path=module_path())
        environment.apply(os.environ, changes)
        for change in changes:
            log.debug("%s", change)
    builder = SparkSession.builder.appName(app_name)
    for key, value in {**_common_settings(master), **(settings or {})}.items():
        builder = builder.config(key, value)
    if master is not None:
        builder = builder.master(master)
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


def _stop(spark: SparkSession) -> None:
    """Ends Spark in bounded time, and never raises: what came before must not be hidden by Spark's own end."""

    def stop() -> None:
        try:
            spark.stop()
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
            log.debug("Spark does not stop: %s", e)

    thread = threading.Thread(target=stop, name="spark-stop", daemon=True)
    thread.start()
    thread.join(_STOP_S)
    jvm = getattr(SparkContext._gateway, "proc", None)
    if thread.is_alive() and jvm is not None:
        log.warning("Spark did not stop within %.0f s: its JVM is ended", _STOP_S)
        jvm.kill()


def _common_settings(master: str | None) -> dict[str, str]:
    settings = {"spark.ui.showConsoleProgress": "false"}
    if master is not None and is_local(master):
        log4j2 = importlib.resources.files("tfos_job.jobs") / "log4j2.properties"
        quiet = f"-Dlog4j2.configurationFile=file:{log4j2}"
        settings |= {
            # Everything is on this host, and no name of it needs to resolve.
            "spark.driver.host": _LOOPBACK,
            "spark.driver.bindAddress": _LOOPBACK,
            "spark.ui.enabled": "false",
            "spark.driver.extraJavaOptions": f"{quiet} {JAVA_OPTIONS}",
            "spark.executor.extraJavaOptions": f"{quiet} {JAVA_OPTIONS}",
        }
    return settings
