"""The SparkSession of the program that a command is called from, such as a notebook's: used as it is, never stopped."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job.errors import SettingsError
from tfos_job.protocol.topology import is_in_driver, task_failures_of

log = logging.getLogger(__name__)

_FAILURES = "spark.task.maxFailures"
_REUSE = "spark.python.worker.reuse"
# The settings that decide whether a node is one task, run once, and Spark's defaults for them.
_DEFAULTS = {
    _FAILURES: "4",
    _REUSE: "true",
    "spark.speculation": "false",
    "spark.dynamicAllocation.enabled": "false",
    "spark.task.cpus": "1",
}


@contextlib.contextmanager
def borrowed(context: SparkContext, master: str | None, settings: Mapping[str, str]) -> Iterator[SparkSession]:
    """Lends the program's SparkSession to a command for the length of a `with` block.

    Args:
      context: of the program, which runs.
      master: that the command was given; None for any.
      settings: that the command would start a session of its own with.

    Raises:
      SettingsError: it cannot do the command's work; what was running goes on.
    """
    others = _DEFAULTS | dict(context.getConf().getAll())
    is_one_process = is_in_driver(context.master)
    if is_one_process:
        others[_FAILURES] = str(task_failures_of(context.master))
        others[_REUSE] = settings.get(_REUSE, others[_REUSE])  # can be changed, as below
    wrong = {key: settings[key] for key in _DEFAULTS if key in settings and settings[key] != others[key]}
    if master is not None and master != context.master:
        wrong["spark.master"] = master
    if wrong:
        raise SettingsError(
            "this program has a SparkSession of its own that the command cannot use, since it has "
            + ", ".join(f"{key}={others.get(key, '')}" for key in wrong),
            next_step="Stop it before (spark.stop()), so that the command starts its own, or build it with "
            + ", ".join(f'.config("{key}", "{value}")' for key, value in wrong.items()),
        )
    log.info("Using this program's SparkSession (%s)", context.master)
    with _reuse(context, others[_REUSE]) if is_one_process else contextlib.nullcontext():
        yield SparkSession.builder.getOrCreate()


@contextlib.contextmanager
def _reuse(context: SparkContext, value: str) -> Iterator[None]:
    """Gives each task a Python process of its own, or not: where the driver is the executor, that can be changed."""
    java: Any = context._jsc
    conf = java.sc().conf()
    before = conf.get(_REUSE, _DEFAULTS[_REUSE])
    conf.set(_REUSE, value)
    try:
        yield
    finally:
        conf.set(_REUSE, before)
