"""Sizes of the containers that Spark requests from YARN, and YARN's limit for a container."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tfos_job import hadoop_conf
from tfos_job.errors import SettingsError

MIB = 1 << 20
_DEFAULT_MEMORY = "1g"
_DEFAULT_OVERHEAD_FACTOR = 0.1
_MIN_OVERHEAD_MB = 384
_SIZE = re.compile(r"(\d+)\s*(?:([kmgtp])b?|b)?", re.IGNORECASE)
_UNIT_POWERS = {"k": -1, "m": 0, "g": 1, "t": 2, "p": 3}
_MAX_ALLOCATION = "yarn.scheduler.maximum-allocation-mb"


@dataclass(frozen=True, kw_only=True)
class Container:
    """The memory of one container: `memory_mb` for the JVM's heap, `overhead_mb` for the rest, including Python."""

    memory_mb: int
    overhead_mb: int

    @property
    def total_mb(self) -> int:
        return self.memory_mb + self.overhead_mb


def executor_container(settings: Mapping[str, str]) -> Container:
    """Returns the container that Spark requests for an executor.

    Args:
      settings: Spark's settings by full name (default: Spark's own defaults).
    """
    container = _container(settings, "spark.executor")
    off_heap_mb = 0
    if settings.get("spark.memory.offHeap.enabled", "false").lower() == "true":
        off_heap_mb = _mb(settings, "spark.memory.offHeap.size", "0", unit_bytes=1)
    python_mb = _mb(settings, "spark.executor.pyspark.memory", "0")
    return Container(memory_mb=container.memory_mb, overhead_mb=container.overhead_mb + off_heap_mb + python_mb)


def driver_container(settings: Mapping[str, str]) -> Container:
    """Returns the container of the driver in cluster mode, or of YARN's application master in client mode."""
    if settings.get("spark.submit.deployMode", "client") == "cluster":
        return _container(settings, "spark.driver")
    memory_mb = _mb(settings, "spark.yarn.am.memory", "512m")
    default_mb = max(_MIN_OVERHEAD_MB, int(memory_mb * _DEFAULT_OVERHEAD_FACTOR))
    return Container(memory_mb=memory_mb, overhead_mb=_mb(settings, "spark.yarn.am.memoryOverhead", f"{default_mb}m"))


def _container(settings: Mapping[str, str], prefix: str) -> Container:
    memory_mb = _mb(settings, f"{prefix}.memory", _DEFAULT_MEMORY)
    factor_key = f"{prefix}.memoryOverheadFactor"
    try:
        factor = float(settings.get(factor_key, _DEFAULT_OVERHEAD_FACTOR))
    except ValueError as e:
        raise SettingsError(f"{settings[factor_key]!r} is not a number", place=factor_key) from e
    minimum_mb = _mb(settings, f"{prefix}.minMemoryOverhead", f"{_MIN_OVERHEAD_MB}m")
    default_mb = max(minimum_mb, int(memory_mb * factor))
    return Container(memory_mb=memory_mb, overhead_mb=_mb(settings, f"{prefix}.memoryOverhead", f"{default_mb}m"))


def _mb(settings: Mapping[str, str], key: str, default: str, unit_bytes: int = MIB) -> int:
    """Parses a size as Spark writes it: `2g`, `512m`, or a number of `unit_bytes`."""
    text = settings.get(key, default)
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise SettingsError(f"{text!r} is not a size", place=key, next_step="Write it as 512m or 2g")
    number, unit = int(match.group(1)), match.group(2)
    if unit:
        return int(number * 1024 ** _UNIT_POWERS[unit.lower()])
    return number // MIB if match.group(0).lower().endswith("b") else number * unit_bytes // MIB


def yarn_limit_mb(conf_dir: str | None) -> int | None:
    """Returns the largest container that YARN grants by a configuration folder; None if it is not configured there.

    Raises:
      SettingsError: its yarn-site.xml cannot be parsed.
    """
    if conf_dir is None:
        return None
    path = Path(conf_dir, "yarn-site.xml")
    value = hadoop_conf.read_settings(Path(conf_dir, "core-site.xml"), path).get(_MAX_ALLOCATION)
    if value is None or "${" in value:  # a variable that only YARN resolves
        return None
    try:
        return int(value)
    except ValueError as e:
        raise SettingsError(f"cannot be understood: {e}", place=str(path), next_step="Check HADOOP_CONF_DIR") from e


def conf_dir() -> str | None:
    """Returns the folder of Hadoop's configuration: the one set here, or Spark's copy in a YARN container."""
    localised = os.path.abspath("__spark_conf__/__hadoop_conf__")
    named = os.environ.get("YARN_CONF_DIR") or os.environ.get("HADOOP_CONF_DIR")
    return named or (localised if os.path.isdir(localised) else None)
