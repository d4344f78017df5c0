"""Start of Spark's JVM on the driver's host, protected from this host's settings."""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyspark
from pyspark import SparkConf, SparkContext, java_gateway
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway

from tfos_job.driver.spark_defaults import CONF_DIR_VARIABLE
from tfos_job.driver.start_errors import JDK_STEP, SUBMIT_ARGS_VARIABLE, Host, explain_jvm
from tfos_job.errors import SettingsError
from tfos_job.host import jvm_output
from tfos_job.host.child import end
from tfos_job.host.container import under_spark_submit

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_ENDS_AT_ONCE = ("--version", "--help", "-h", "--kill", "--status")


def start(settings: Mapping[str, str], *, local: bool) -> None:
    """Starts the JVM, unless this process or spark-submit has started one.

    Args:
      settings: of Spark, for the start of the JVM.
      local: True if all of Spark runs on this host.

    Raises:
      SettingsError: a setting of this host prevents the start.
      ResourceError: the JVM does not start for another reason.
    """
    if SparkContext._gateway is not None or under_spark_submit():
        return
    check(os.environ)
    conf = SparkConf(loadDefaults=False)
    for key, value in settings.items():
        conf.set(key, value)
    with _without_defaults() if local else contextlib.nullcontext():
        try:
            # In a session of its own, so that this process handles signals to its group. The JVM ends when its standard
            # input is closed.
            with _kept_or_ended():
                gateway = launch_gateway(conf, {"start_new_session": True, "stderr": subprocess.PIPE})
        except TimeoutError:
            raise
        except (PySparkRuntimeError, OSError) as e:
            raise explain_jvm(_output_of_second_start(conf), Host.here()) from e
    SparkContext._ensure_initialized(gateway=gateway)


@contextlib.contextmanager
def _kept_or_ended() -> Iterator[None]:
    """Ends a JVM whose start is abandoned, for example by a signal: it would run for ever. Passes on its errors.

    pyspark does not expose its process before the JVM has answered, so it is recorded here.
    """
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            if self.stderr is not None:
                jvm_output.pass_on(self.stderr)

    before, java_gateway.Popen = java_gateway.Popen, Recorded
    try:
        yield
    except BaseException:
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
            end(process, "Spark's JVM")
        raise
    finally:
        java_gateway.Popen = before


@contextlib.contextmanager
def _without_defaults() -> Iterator[None]:
    """Lets Spark's settings folder be one without spark-defaults.conf and spark-env.sh during the JVM's start."""
    before = os.environ.get(CONF_DIR_VARIABLE)
    os.environ[CONF_DIR_VARIABLE] = str(importlib.resources.files("tfos_job.driver"))
    try:
        yield
    finally:
        del os.environ[CONF_DIR_VARIABLE]
        if before is not None:
            os.environ[CONF_DIR_VARIABLE] = before


def _output_of_second_start(conf: SparkConf) -> str:
    """Starts the JVM again and returns its output, which went to the user's terminal before; empty if it starts."""
    with tempfile.TemporaryFile() as said:
        try:
            launch_gateway(conf, {"stdout": said, "stderr": said}).proc.kill()
        except (PySparkRuntimeError, OSError):
            said.seek(0)
            return said.read().decode(errors="replace")
    return ""


def check(environ: Mapping[str, str]) -> None:
    """Checks the requirements for the start of a JVM.

    Raises:
      SettingsError: there is no Java, SPARK_HOME has another version of Spark, or the options are invalid.
    """
    java_home = environ.get("JAVA_HOME")
    if not shutil.which(os.path.join(java_home, "bin", "java") if java_home else "java", path=environ.get("PATH")):
        raise SettingsError(
            "there is no Java, and Spark needs one",
            place=f"JAVA_HOME={java_home}" if java_home else "PATH",
            next_step=JDK_STEP,
        )
    spark_home = environ.get("SPARK_HOME")
    if spark_home:
        version = spark_version(Path(spark_home))
        if version != pyspark.__version__:
            raise SettingsError(
                f"Spark {version or 'is not'} there, and this Python has pyspark {pyspark.__version__}",
                place=f"SPARK_HOME={spark_home}",
                next_step="Unset it: pyspark brings a Spark of its own",
            )
    words = shlex.split(environ.get(SUBMIT_ARGS_VARIABLE, "pyspark-shell"))
    if words[-1:] != ["pyspark-shell"] or not set(words).isdisjoint(_ENDS_AT_ONCE):
        raise SettingsError(
            f"{shlex.join(words)!r} is no list of spark-submit's flags with pyspark-shell at its end",
            place=SUBMIT_ARGS_VARIABLE,
            next_step="Correct or unset it",
        )


def spark_version(home: Path) -> str:
    """Returns the version of the Spark in a folder; empty if there is none."""
    if not (home / "bin" / "spark-submit").is_file():
        return ""
    cores = [re.fullmatch(r"spark-core_[\d.]+-(.+)\.jar", path.name) for path in home.glob("jars/spark-core_*.jar")]
    return next((match[1] for match in cores if match), "")
