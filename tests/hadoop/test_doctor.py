"""`tfos-job doctor` on a live HDFS and YARN."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.command import Command, StartCommand
from tests.hadoop.conftest import Hadoop, client_mode
from tests.ports import free_port_range
from tfos_job import storage
from tfos_job.doctor.case import Expected
from tfos_job.doctor.diagnosis import OK
from tfos_job.driver import preflight
from tfos_job.errors import AccessError, StorageError
from tfos_job.submit import environment

pytestmark = pytest.mark.hadoop


# --- in a SparkContext that is there: what each process finds of HDFS -------------------------------------------------


def test_every_process_writes_renames_and_reads_back(spark: SparkSession, hdfs_dir: str) -> None:
    diagnosis = preflight.examine(spark, Expected(num_executors=1, folder=f"{hdfs_dir}/run/not/there"))
    diagnosis.raise_for_failures()
    for result in (diagnosis.driver, *diagnosis.executors):
        assert result.trial is not None
        assert (result.trial.place, result.trial.error) == (hdfs_dir, "")
        assert result.trial.clock_offset_s is not None
        assert abs(result.trial.clock_offset_s) < 60  # one clock; but seconds they are
    assert storage.list_dir(hdfs_dir) == []


def test_a_folder_without_permission_is_a_failure_of_each_process(
    spark: SparkSession, hadoop: Hadoop, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").symlink_to(hadoop.conf_dir)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path / "conf"))  # another connection, as another user
    monkeypatch.setenv("HADOOP_USER_NAME", "mallory")
    monkeypatch.setitem(spark.sparkContext.environment, "HADOOP_USER_NAME", "mallory")  # new Python workers have it
    diagnosis = preflight.examine(spark, Expected(num_executors=1, folder=hdfs_dir))
    (check,) = [check for check in diagnosis.checks if check.state != OK]
    assert check.name == "storage"
    assert "Permission denied: user=mallory, access=WRITE" in check.fact
    assert [name.split()[0] for name in check.where] == ["driver", "executor"]
    with pytest.raises(AccessError, match="storage: driver") as caught:
        diagnosis.raise_for_failures()
    assert caught.value.exit_code == 77
    assert f"storage: {', '.join(check.where)}: {hdfs_dir}: " in str(caught.value)


def test_a_namenode_that_is_down_is_a_failure_in_bounded_time(spark: SparkSession) -> None:
    expected = Expected(num_executors=1, folder="hdfs://127.0.0.1:9/run", storage_timeout_s=3.0)
    diagnosis = preflight.examine(spark, expected)
    (check,) = [check for check in diagnosis.checks if check.state != OK]
    assert (check.name, check.where) == ("storage", ("hdfs://127.0.0.1:9/run",))
    assert "no answer for 3 s" in check.fact
    with pytest.raises(StorageError) as caught:
        diagnosis.raise_for_failures()
    assert caught.value.exit_code == 74
    assert len(diagnosis.executors) == 1  # all else was looked at


# --- on YARN ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def start_doctor(start: StartCommand, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Command]:
    """Starts the command with its driver here and its executors on YARN."""

    def start_doctor(variables: dict[str, str], *args: object) -> Command:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return start("doctor", "--master", "yarn", *args)

    return start_doctor


def not_ok(command: Command) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in command.result()["checks"] if check["state"] != OK}


def test_executors_on_yarn(
    hadoop: Hadoop, ship_dir: str, hdfs_dir: str, tmp_path: Path, start_doctor: Callable[..., Command]
) -> None:
    (tmp_path / "gpus.sh").write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["0"]}'\n""")
    # A stand-in: as if each container saw a GPU of its own.
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\necho "GPU 0: Stand-in (UUID: GPU-$CONTAINER_ID)"\n')
    for script in tmp_path.iterdir():
        script.chmod(0o755)
    settings = {
        "spark.yarn.queue": "gpu",
        "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": "1",
        "spark.task.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": str(tmp_path / "gpus.sh"),
        "spark.executorEnv.PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    shipment = environment.prepare(ship_dir)
    variables = client_mode(settings, shipment)
    began_s = time.monotonic()
    ports = "{}-{}".format(*free_port_range(20))
    done = start_doctor(
        variables, "--num_executors", 2, "--num_gpus", 1, "--port_range", ports, "--train_dir", hdfs_dir
    )
    assert done.wait() == 0, done.stderr
    patience_s = math.ceil(time.monotonic() - began_s)  # for Spark's start, and again for as many executors
    assert not_ok(done) == {}
    one, other = done.result()["executors"]
    assert (one["executor_id"], other["executor_id"]) == ("1", "2")
    assert one["container_id"] != other["container_id"]
    for executor in (one, other):
        assert executor["gpus_assigned"] == ["0"]
        assert executor["container_id"] in executor["disk"]["path"]
        assert executor["tokens"][0]["kind"] == "YARN_AM_RM_TOKEN"
    assert "executors of 896 MiB (512 and 384 overhead); YARN gives up to" in done.stderr
    assert storage.list_dir(hdfs_dir) == []

    # Three pairs of GPUs, of which there are two.
    (tmp_path / "gpus.sh").write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["0", "1"]}'\n""")
    pairs = {f"spark.{each}.resource.gpu.amount": "2" for each in ("executor", "task")}
    greedy = start_doctor(
        client_mode(settings | pairs, shipment), "--num_executors", 3, "--num_gpus", 2, "--start_timeout", patience_s
    )
    assert greedy.wait() == 69, greedy.stderr
    assert not_ok(greedy)["executors"]["fact"] == (
        f"2 of 3 executors have come (2 on localhost) within {patience_s} s; queue gpu has 0 of 2 yarn.io/gpu free"
    )


def test_what_yarn_never_gives_and_what_it_does_not_give_now(
    hadoop: Hadoop, hdfs_dir: str, start_doctor: Callable[..., Command]
) -> None:
    hadoop.freeze("nodemanager")  # YARN waits ten minutes for it; nothing is given meanwhile
    try:
        large = start_doctor(client_mode({"spark.executor.memory": "900g"}), "--train_dir", hdfs_dir)
        late = start_doctor(client_mode({}), "--train_dir", hdfs_dir, "--start_timeout", 30)
        assert large.wait() == 78, large.stderr
        assert late.wait() == 69, late.stderr
    finally:
        for application in hadoop.applications("?states=ACCEPTED"):
            hadoop.end_application(application)
        hadoop.thaw("nodemanager")
    assert set(not_ok(large)) == {"memory", "spark"}
    fact = not_ok(large)["memory"]["fact"]
    assert fact.startswith("executor container of 1013760 MiB (921600 and 92160 overhead), and YARN gives ")
    assert "Required executor memory" in not_ok(large)["spark"]["fact"]
    # The node is there for YARN, with all that it has.
    fact = "Spark has not started within 30 s; queue default has room, but has not given 1 container"
    assert not_ok(late)["spark"]["fact"] == fact
    assert "ok         storage" in late.stderr
