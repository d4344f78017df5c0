"""Hadoop's YARN client, run from Spark's jars in a JVM of its own: status and end of an application."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tfos_job.errors import SettingsError

_CLI = "org.apache.hadoop.yarn.client.cli.ApplicationCLI"
_POLL_S = 0.5
_KILL_S = 60.0

log = logging.getLogger(__name__)


def spark_home() -> Path:
    """Returns `$SPARK_HOME`, else pyspark's folder, without importing pyspark."""
    home = os.environ.get("SPARK_HOME")
    if home:
        return Path(home)
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise SettingsError("no pyspark here", place="SPARK_HOME", next_step="Install this package, or set SPARK_HOME")
    return Path(spec.origin).parent


def status(
    application: str, environment: Mapping[str, str], check_signals: Callable[[], None], deadline_s: float
) -> str:
    """Returns the output of `yarn application -status`; empty after the deadline."""
    return _ask(["-status", application], environment, check_signals, deadline_s)


def list_tagged(tag: str, environment: Mapping[str, str], deadline_s: float) -> str:
    """Returns the output of `yarn application -list` of all applications with a tag; empty after the deadline."""
    return _ask(["-list", "-appStates", "ALL", "-appTags", tag], environment, lambda: None, deadline_s)


def _ask(
    words: Sequence[str], environment: Mapping[str, str], check_signals: Callable[[], None], deadline_s: float
) -> str:
    with subprocess.Popen(
        [*_hadoop_client(environment), _CLI, "application", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environment),
        start_new_session=True,
    ) as process:
        try:
            while True:
                check_signals()
                try:
                    return process.communicate(timeout=_POLL_S)[0]
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline_s:
                        return ""
        finally:
            process.kill()


def kill(application: str, environment: Mapping[str, str]) -> bool:
    """Kills an application; false, with an error in the log, if it may still run."""
    log.warning("killing %s", application)
    try:
        done = subprocess.run(
            [*_hadoop_client(environment), _CLI, "application", "-kill", application],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_KILL_S,
            env=dict(environment),
            start_new_session=True,
            check=False,
        )
        failure = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (OSError, subprocess.TimeoutExpired) as e:
        failure = str(e)
    if failure:
        log.error("%s may still run (%s): end it with `yarn application -kill %s`", application, failure, application)
    return not failure


def _hadoop_client(environment: Mapping[str, str]) -> list[str]:
    home = environment.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else "java"
    # YARN_CONF_DIR has precedence, as in Spark.
    conf = [environment[name] for name in ("YARN_CONF_DIR", "HADOOP_CONF_DIR") if environment.get(name)]
    return [java, "-cp", ":".join([*conf, f"{spark_home()}/jars/*"])]
