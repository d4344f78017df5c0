"""Spark's settings for a training that is restarted in one application. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MAX_FAILURES = "spark.executor.maxNumFailures"
_OLD_MAX_FAILURES = "spark.yarn.max.executor.failures"  # Spark takes it where the other one is not set

# A silent executor is dropped after a minute, not after two to three: Spark looks for those without a heartbeat only
# every `timeoutInterval`. A host that is cut off is noticed sooner, by the lines of its nodes.
HEARTBEATS = {
    "spark.executor.heartbeatInterval": "5s",
    "spark.network.timeout": "60s",
    "spark.network.timeoutInterval": "5s",
}
_INTERVAL_S = 900


def executor_failures(num_executors: int, max_restarts: int) -> dict[str, str]:
    """How many executors YARN's ApplicationMaster may see end before it ends the application.

    By default it is twice the number of executors, whenever they ended: a host that reboots twice would be enough. The
    number here is above that of an attempt and all restarts after it which lose every executor, within a quarter of an
    hour. Executors that are preempted, or that are killed to be replaced, do not count.

    Args:
      num_executors: of the application.
      max_restarts: `--max_restarts`.
    """
    number = max(3, 2 * num_executors * (max_restarts + 1))
    return {MAX_FAILURES: str(number), "spark.executor.failuresValidityInterval": f"{_INTERVAL_S}s"}


def doubts(settings: Mapping[str, str], num_executors: int, max_restarts: int) -> list[str]:
    """What of the user's settings keeps `--max_restarts` from having an effect, each as a sentence.

    Args:
      settings: of the application.
      num_executors: of the application.
      max_restarts: `--max_restarts`.
    """
    key = _OLD_MAX_FAILURES if _OLD_MAX_FAILURES in settings and MAX_FAILURES not in settings else MAX_FAILURES
    given = settings.get(key, str(max(3, 2 * num_executors)))
    if not given.isdecimal() or int(given) > num_executors * max_restarts:
        return []
    needed = executor_failures(num_executors, max_restarts)[MAX_FAILURES]
    return [
        f"Spark ends the application when {given} executors have ended, and --max_restarts {max_restarts} may need "
        f"more: {key}={needed} allows them"
    ]
