"""The diagnosis: a pure function from probe results to checks."""

from __future__ import annotations

from collections.abc import Sequence

from tfos_job.doctor import reach, resources, versions
from tfos_job.doctor.case import Case, Cluster, Expected
from tfos_job.doctor.diagnosis import Check
from tfos_job.doctor.probe import ProbeResult

# In this order an earlier failure explains later ones.
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
    resources.check_isolation,
    resources.check_memory,
)


def diagnose(
    expected: Expected, cluster: Cluster, driver: ProbeResult, executors: Sequence[ProbeResult]
) -> tuple[Check, ...]:
    """Runs all checks."""
    case = Case(expected, cluster, driver, tuple(executors))
    return tuple(check for checks_of in _CHECKS for check in checks_of(case)) + cluster.problems
