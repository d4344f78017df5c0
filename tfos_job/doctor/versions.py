"""Checks of software versions, which must be equal in all processes of a job."""

from __future__ import annotations

import re
from collections import defaultdict

from tfos_job.doctor.case import Case
from tfos_job.doctor.diagnosis import OK, WARNING, Check, failed, name_some
from tfos_job.errors import SettingsError

MIN_JAVA = 17  # of Spark 4


def _values(case: Case, package: str) -> dict[str, list[str]]:
    """Returns the names of the processes by their version of a package."""
    found: dict[str, list[str]] = defaultdict(list)
    for result in case.all:
        found[result.versions.get(package) or "none"].append(result.name)
    return found


def _listed(values: dict[str, list[str]]) -> str:
    return "; ".join(f"{value} at {name_some(names)}" for value, names in values.items())


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def check_python(case: Case) -> list[Check]:
    values = _values(case, "python")
    if len(values) == 1:
        return [Check(name="python", state=OK, fact=f"{next(iter(values))} in {len(case.all)} processes")]
    step = "Ship one Python with the job, so that all run the same"
    if len({_minor(value) for value in values}) > 1:
        return [failed("python", SettingsError, f"versions differ: {_listed(values)}", next_step=step)]
    return [Check(name="python", state=WARNING, fact=f"versions differ: {_listed(values)}", next_step=step)]


def check_packages(case: Case) -> list[Check]:
    packages = sorted({package for result in case.all for package in result.versions} - {"python", "pyspark"})
    checks = []
    for package in packages:
        values = _values(case, package)
        if len(values) > 1:
            fact = f"versions of {package} differ: {_listed(values)}"
        elif "none" in values:
            fact = f"{package} is not installed"
        else:
            continue
        step = "Install the same environment everywhere, or ship one with the job"
        checks.append(failed("packages", SettingsError, fact, next_step=step))
    if checks:
        return checks
    equal = ", ".join(f"{package} {case.driver.versions[package]}" for package in packages)
    return [Check(name="packages", state=OK, fact=f"equal in {len(case.all)} processes: {equal}")]


def check_spark(case: Case) -> list[Check]:
    values = _values(case, "pyspark")
    version = case.cluster.spark_version
    if version:
        values[version].append("the driver's JVM")
    if len(values) == 1:
        return [Check(name="spark", state=OK, fact=f"{next(iter(values))}, JVM and Python")]
    step = "Let every host have the Spark of the driver, or ship its jars and its Python with the job"
    fact = f"versions differ: {_listed(values)}"
    if len({_minor(value) for value in values}) > 1:
        return [failed("spark", SettingsError, fact, next_step=step)]
    return [Check(name="spark", state=WARNING, fact=fact, next_step=step)]


def check_java(case: Case) -> list[Check]:
    values: dict[str, list[str]] = defaultdict(list)
    for result in case.all:
        values[result.java or "unknown"].append(result.name)
    old = {value: names for value, names in values.items() if 0 < _major(value) < MIN_JAVA}
    if old:
        step = "Set JAVA_HOME to a JDK 17 or 21 (spark.executorEnv.JAVA_HOME, spark.yarn.appMasterEnv.JAVA_HOME)"
        return [failed("java", SettingsError, f"Spark needs {MIN_JAVA} or later: {_listed(old)}", next_step=step)]
    if len(values) > 1:
        return [Check(name="java", state=WARNING, fact=f"versions differ: {_listed(values)}")]
    return [Check(name="java", state=OK, fact=f"{next(iter(values))} in all JVMs")]


def _major(version: str) -> int:
    """Returns 17 for `17.0.15`, 8 for `1.8.0_402`, 0 for any other text."""
    match = re.match(r"(?:1\.)?(\d+)", version)
    return int(match.group(1)) if match else 0
