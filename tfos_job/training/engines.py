"""Which engine a cluster has: the one place that knows all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfos_job.protocol.topology import PS
from tfos_job.training.all_reduce import AllReduceEngine
from tfos_job.training.engine import Engine
from tfos_job.training.parameter_server import ParameterServerEngine


def engine_of(cluster: Mapping[str, Sequence[str]]) -> Engine:
    """The engine, connected to the cluster's servers.

    Args:
      cluster: `host:port` of each task, by role.
    """
    return ParameterServerEngine(cluster) if cluster.get(PS) else AllReduceEngine(cluster)
