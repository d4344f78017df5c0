"""The task of a TFCluster before TFoS gives it a role, in a real Python worker of Spark."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from tests.unit.waits import PATIENCE_S
from tfos_job.driver import launch
from tfos_job.errors import ResourceError
from tfos_job.host import ports
from tfos_job.nodes import tfos_task
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import EXECUTOR, Task


def test_a_task_without_a_port_tells_the_driver_why(spark: SparkSession) -> None:
    key, host, task = new_key(), "127.0.0.1", Task(EXECUTOR, 0)
    switchboard = Switchboard(host, key, attempt=1)
    with ports.listen(host) as taken:
        port = taken.getsockname()[1]
        run = tfos_task.wrapped(b"", switchboard.address, key, 1, (port, port))
        with pytest.raises(Exception, match="NodeFailed: no port of") as caught:
            spark.sparkContext.parallelize([0], 1).foreachPartition(run)
    joined, said, lost = (switchboard.events.get(timeout=PATIENCE_S) for _ in range(3))
    switchboard.close()
    assert isinstance(joined, Joined)
    assert isinstance(said, Said)
    assert isinstance(said.message, Failure)
    assert isinstance(lost, Lost)
    assert joined.task == said.task == lost.task == task
    assert (said.message.kind, said.message.exit_code) == (Kind.RAISED, ResourceError.exit_code)
    assert said.message.place == f"host {host}, --port_range {port}-{port}"
    # Spark's own words for it have no exit code that counts.
    assert launch._spark_cause(caught.value)[0].startswith("tfos_job.nodes.account.NodeFailed: no port of")
