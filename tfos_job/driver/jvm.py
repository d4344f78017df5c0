"""Spark's JVM on the driver's host: started so that this host's settings do not break it, and why it does not start.

Whatever keeps the JVM from answering, pyspark says that it has exited. What the JVM itself has said is on stderr among
Java's frames; here it becomes the fact, with the setting to change.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import logging
import os
import pwd
import re
import resource
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark
from pyspark import SparkConf, SparkContext, java_gateway
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway

from tfos_job.errors import JobError, ResourceError, SettingsError
from tfos_job.host.child import end

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
# Of a cluster's spark-defaults.conf a local run takes what is of this host; the rest is of no use to it, and some of it
# (event logs, listeners, Kerberos, task sizes) keeps it from starting.
_OF_THIS_HOST = ("spark.local.dir", "spark.driver.memory", "spark.driver.maxResultSize")
# Spark's class path alone has some 270 jars.
_FEWEST_OPEN_FILES = 1024
_SUBMIT_ARGS = "PYSPARK_SUBMIT_ARGS"
_CONF_DIR = "SPARK_CONF_DIR"
_ENDS_AT_ONCE = ("--version", "--help", "-h", "--kill", "--status")
_JDK = "Install a JDK 17 or 21 (Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME to one"


# --- the start -------------------------------------------------------------------------------------------------------


def start(settings: Mapping[str, str], *, local: bool) -> None:
    """Starts the JVM, unless there is one: this process's, or spark-submit's.

    Args:
      settings: Spark's, that the JVM is to begin with.
      local: whether all of Spark is to run on this host.

    Raises:
      SettingsError: something that is set on this host keeps it from starting.
      ResourceError: it does not start for another reason.
    """
    if SparkContext._gateway is not None or "PYSPARK_GATEWAY_PORT" in os.environ:
        return
    check(os.environ)
    conf = SparkConf(loadDefaults=False)
    for key, value in settings.items():
        conf.set(key, value)
    with _without_defaults() if local else contextlib.nullcontext():
        try:
            # In a session of its own: a signal to this process's group is this process's to handle. The JVM ends when
            # its standard input does.
            with _kept_or_ended():
                gateway = launch_gateway(conf, {"start_new_session": True})
        except TimeoutError:
            raise
        except (PySparkRuntimeError, OSError) as e:
            raise explain(_second_look(conf), Host.here()) from e
    SparkContext._ensure_initialized(gateway=gateway)


@contextlib.contextmanager
def _kept_or_ended() -> Iterator[None]:
    """Ends the JVM that is being started where nobody waits for it any more, as after a signal: it would live for ever.

    pyspark tells nobody of its process until the JVM has answered.
    """
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    before, java_gateway.Popen = java_gateway.Popen, Noted
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
    """Spark's folder of settings is one without spark-defaults.conf and spark-env.sh, while the JVM starts."""
    before = os.environ.get(_CONF_DIR)
    os.environ[_CONF_DIR] = str(importlib.resources.files("tfos_job.driver"))
    try:
        yield
    finally:
        del os.environ[_CONF_DIR]
        if before is not None:
            os.environ[_CONF_DIR] = before


def _second_look(conf: SparkConf) -> str:
    """What the JVM says when it is started once more; the first time it has said so to the user. Empty if it starts."""
    with tempfile.TemporaryFile() as said:
        try:
            launch_gateway(conf, {"stdout": said, "stderr": said}).proc.kill()
        except (PySparkRuntimeError, OSError):
            said.seek(0)
            return said.read().decode(errors="replace")
    return ""


def check(environ: Mapping[str, str]) -> None:
    """ExecutorProbe at what must be right for a JVM to start at all.

    Raises:
      SettingsError: no Java, another Spark, or options that are none.
    """
    java_home = environ.get("JAVA_HOME")
    if not shutil.which(os.path.join(java_home, "bin", "java") if java_home else "java", path=environ.get("PATH")):
        raise SettingsError(
            "there is no Java, and Spark needs one",
            place=f"JAVA_HOME={java_home}" if java_home else "PATH",
            next_step=_JDK,
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
    words = shlex.split(environ.get(_SUBMIT_ARGS, "pyspark-shell"))
    if words[-1:] != ["pyspark-shell"] or not set(words).isdisjoint(_ENDS_AT_ONCE):
        raise SettingsError(
            f"{shlex.join(words)!r} is no list of spark-submit's flags with pyspark-shell at its end",
            place=_SUBMIT_ARGS,
            next_step="Correct or unset it",
        )


def spark_version(home: Path) -> str:
    """Of the Spark in a folder; empty where there is none."""
    if not (home / "bin" / "spark-submit").is_file():
        return ""
    cores = [re.fullmatch(r"spark-core_[\d.]+-(.+)\.jar", path.name) for path in home.glob("jars/spark-core_*.jar")]
    return next((match[1] for match in cores if match), "")


# --- spark-defaults.conf ---------------------------------------------------------------------------------------------


def defaults_file(environ: Mapping[str, str]) -> Path:
    """Where Spark looks for settings."""
    home = environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)
    return Path(environ.get(_CONF_DIR) or f"{home}/conf") / "spark-defaults.conf"


def read_defaults(file: Path) -> dict[str, str]:
    """The settings in it; none where it cannot be read."""
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    matches = (re.match(r"\s*(spark\.[^\s=:]+)\s*[\s=:]\s*(.*?)\s*$", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def kept_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings in it that a local run takes."""
    file = defaults_file(environ)
    found = read_defaults(file)
    for key in sorted(set(found) - set(_OF_THIS_HOST)):
        log.debug("%s of %s is the cluster's: a local run goes without", key, file)
    return {key: value for key, value in found.items() if key in _OF_THIS_HOST}


def blamed(words: str, settings: Mapping[str, str]) -> str:
    """The setting that words of Java are about, since they have its value in them; empty where none is found."""
    for key, value in settings.items():
        without_scheme = re.sub(r"^\w+:(?://(?=/))?", "", value)
        host = re.match(r"\w+://([^/:]+)", value)
        names = [value, without_scheme, *([host[1]] if host else [])]
        if any(len(name) > 1 and re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", words) for name in names):
            return key
    return ""


# --- why it does not start -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """What of this host bears on the JVM's start.

    Attributes:
      open_files: how many a process may have, `ulimit -n`.
      user: the number of a user without a name; None where there is a name.
      environ: the environment.
    """

    open_files: int
    user: int | None
    environ: Mapping[str, str]

    @staticmethod
    def here() -> Host:
        number: int | None = os.getuid()
        with contextlib.suppress(KeyError):
            pwd.getpwuid(os.getuid())
            number = None
        return Host(resource.getrlimit(resource.RLIMIT_NOFILE)[0], number, dict(os.environ))


def explain(said: str, host: Host) -> JobError:
    """Why the JVM has ended before it answered. Pure.

    Args:
      said: all that it has printed.
      host: that it ran on.
    """
    words = _cause(said)
    fact = f"Spark's JVM does not start: {words}" if words else "Spark's JVM ended, and started when it was tried again"
    picked_up = [name for name in re.findall(r"Picked up (\w+):", said) if host.environ.get(name)]
    if picked_up and re.search(r"Could not create the Java Virtual Machine|initialization of VM", said):
        place = ", ".join(f"{name}={host.environ[name]}" for name in dict.fromkeys(picked_up))
        return SettingsError(fact, place=place, next_step="Correct or unset it")
    if 0 < host.open_files < _FEWEST_OPEN_FILES and words:
        fact = f"{fact}; only {host.open_files} files may be open at a time"
        return SettingsError(fact, place="ulimit -n", next_step=f"Raise it: ulimit -n {4 * _FEWEST_OPEN_FILES}")
    if host.user is not None and re.search(r"absolute: \?/|invalid null input: name|LoginException", said):
        fact = f"{fact}; the user with the number {host.user} has no name"
        return SettingsError(fact, place="/etc/passwd", next_step="Give it a line there, as a container's start may do")
    for pattern, kind, place, next_step in _CAUSES:
        if re.search(pattern, said):
            value = host.environ.get(place)
            return kind(fact, place=f"{place}={value}" if value else "", next_step=next_step)
    return ResourceError(fact, next_step="Above is all that it says; run the command again")


# What the JVM says, what that is, the variable that may be to blame, and what to do: the first that is found counts.
_CAUSES: tuple[tuple[str, type[JobError], str, str], ...] = (
    (
        r"UnknownHostException",
        SettingsError,
        "",
        "Give this host's name an address (/etc/hosts), or set SPARK_LOCAL_IP",
    ),
    (r"UnsupportedClassVersionError|class file version|Unrecognized VM option", SettingsError, "JAVA_HOME", _JDK),
    (
        r"either HADOOP_CONF_DIR",
        SettingsError,
        _SUBMIT_ARGS,
        "Set HADOOP_CONF_DIR to the cluster's settings, or leave out its master",
    ),
    (r"unable to create (?:new )?native thread", SettingsError, "", "Allow more processes and threads (ulimit -u)"),
    (
        r"Could not reserve enough space|insufficient memory|Cannot allocate memory",
        ResourceError,
        "",
        "Run it where more memory is free, or with a smaller spark.driver.memory",
    ),
    (
        r"IllegalArgumentException|SparkException|Could not create the Java|Error: ",
        SettingsError,
        _SUBMIT_ARGS,
        "Correct that setting",
    ),
)


# What is in front of the cause or behind it.
_NO_CAUSE = re.compile(
    r"\s*$|\s+at |\s*\.\.\. \d+ more|WARNING|NOTE: |Picked up |\d\S* ?\S* (?:WARN|INFO) |\S*/spark-class: "
    r"|Error: (?:A fatal|A JNI|Could not cr)|Error occurred during init"
)


def _cause(said: str) -> str:
    """The line that says why: the last cause of an exception, else the first that says anything."""
    lines = [line.strip() for line in said.splitlines() if not _NO_CAUSE.match(line)]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    raised = [line for line in lines if line.startswith(('Exception in thread "main"', "Error"))]
    line = next(iter([*causes[-1:], *raised[:1], *lines[:1]]), "")
    return re.sub(
        r'^(?:Caused by: |Exception in thread "main" )?(?:[\w.$]+\.\w*(?:Exception|Error): (?=.))?', "", line
    ).rstrip(".")
