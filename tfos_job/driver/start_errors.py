"""Explanation of a failed start of Spark: of its JVM, by what the JVM printed, and of a SparkContext.

pyspark only reports that the JVM has exited. The JVM itself prints the reason to stderr, among Java's frames; here it
becomes the fact of an error, with the setting to change.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass

from py4j.protocol import Py4JError
from pyspark import SparkConf

from tfos_job.driver import spark_defaults
from tfos_job.errors import JobError, ResourceError, SettingsError

# Spark's class path alone has some 270 jars.
_FEWEST_OPEN_FILES = 1024
SUBMIT_ARGS_VARIABLE = "PYSPARK_SUBMIT_ARGS"
JDK_STEP = "Install a JDK 17 or 21 (Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME to one"


@dataclass(frozen=True)
class Host:
    """The facts about this host that affect the JVM's start.

    Attributes:
      open_files: limit of open files, `ulimit -n`.
      user: id of a user without a name; None for a user with a name.
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


def explain_jvm(said: str, host: Host) -> JobError:
    """Returns the error of a JVM that ended before it answered. Pure.

    Args:
      said: output of the JVM.
      host: facts about its host.
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


# Pattern in the JVM's output, class of the error, variable that may be the cause, next step. The first match counts.
_CAUSES: tuple[tuple[str, type[JobError], str, str], ...] = (
    (
        r"UnknownHostException",
        SettingsError,
        "",
        "Give this host's name an address (/etc/hosts), or set SPARK_LOCAL_IP",
    ),
    (r"UnsupportedClassVersionError|class file version|Unrecognized VM option", SettingsError, "JAVA_HOME", JDK_STEP),
    (
        r"either HADOOP_CONF_DIR",
        SettingsError,
        SUBMIT_ARGS_VARIABLE,
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
        SUBMIT_ARGS_VARIABLE,
        "Correct that setting",
    ),
)


# Lines before or after the cause.
_NO_CAUSE = re.compile(
    r"\s*$|\s+at |\s*\.\.\. \d+ more|WARNING|NOTE: |Picked up |\d\S* ?\S* (?:WARN|INFO) |\S*/spark-class: "
    r"|Error: (?:A fatal|A JNI|Could not cr)|Error occurred during init"
)


def _cause(said: str) -> str:
    """Returns the line with the cause: the last cause of an exception, else the first line of a message."""
    lines = [line.strip() for line in said.splitlines() if not _NO_CAUSE.match(line)]
    causes = [line for line in lines if line.startswith("Caused by: ")]
    raised = [line for line in lines if line.startswith(('Exception in thread "main"', "Error"))]
    line = next(iter([*causes[-1:], *raised[:1], *lines[:1]]), "")
    return re.sub(
        r'^(?:Caused by: |Exception in thread "main" )?(?:[\w.$]+\.\w*(?:Exception|Error): (?=.))?', "", line
    ).rstrip(".")


def explain_context(error: Exception, master: str) -> JobError:
    """Returns the error of a SparkContext in one line: py4j's message names the failed call, Java's last cause why."""
    java = getattr(error, "java_exception", None)
    said, of = "", ""
    if java is not None:
        with contextlib.suppress(Py4JError, OSError):  # the JVM may have ended as well
            while (cause := java.getCause()) is not None:
                java = cause
            name, message = str(java.getClass().getSimpleName()), java.getMessage()
            said = f"{name}: {message}" if message and " " not in message else str(message or name)
            of = _setting_behind(said)
    lines = (said or str(error)).strip().splitlines()
    # Java's exception for an invalid setting.
    kind = SettingsError if of or "IllegalArgumentException" in str(error) else ResourceError
    return kind(
        f"Spark does not start: {lines[0] if lines else type(error).__name__}",
        place=of or (f"--master {master}" if master else ""),
        next_step="Correct that setting" if of else "",
    )


def _setting_behind(words: str) -> str:
    """Returns the setting that Java's message refers to, and its file; empty if none is found."""
    file = spark_defaults.defaults_file(os.environ)
    in_file, all_of_them = spark_defaults.read_defaults(file), dict(SparkConf().getAll())
    key = spark_defaults.blamed(words, {key: value for key, value in in_file.items() if all_of_them.get(key) == value})
    if key:
        return f"{key} in {file}"
    return spark_defaults.blamed(words, {key: value for key, value in all_of_them.items() if "/" in value})
