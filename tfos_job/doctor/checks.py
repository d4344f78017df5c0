"""What follows from what the processes of a job see: a pure function from sights to checks."""

from __future__ import annotations

from collections.abc import Sequence

from tfos_job.doctor import reach, resources, versions
from tfos_job.doctor.case import Case, Cluster, Expected
from tfos_job.doctor.diagnosis import Check
from tfos_job.doctor.probe import ProbeResult

# In an order in which one explains the next.
_CHECKS = (
    reach.check_executors,
    versions.check_python,
    versions.check_packages,
    versions.check_spark,
    versions.check_java,
    reach.check_network,
    reach.check_clock,
    reach.check_storage,
    reach.check_tokens,
    resources.check_disk,
    resources.check_gpu,
    resources.check_tensorflow,
    resources.check_ports,
    resources.check_memory,
)


def diagnose(
    expected: Expected, cluster: Cluster, driver: ProbeResult, executors: Sequence[ProbeResult]
) -> tuple[Check, ...]:
    """Every check, with each failure named."""
    case = Case(expected, cluster, driver, tuple(executors))
    return tuple(check for look in _CHECKS for check in look(case)) + cluster.problems
