"""`tfos-job doctor` on a live HDFS and YARN."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tfos_job import storage
from tfos_job.submit import environment, watch

pytestmark = pytest.mark.hadoop

ROOT = Path(__file__).resolve().parents[2]


class Run:
    """A finished command."""

    def __init__(self, *args: object, conf: dict[str, str] | None = None, **environment: str) -> None:
        settings = {"spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false", **(conf or {})}
        words = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
        begun_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tfos_job", "doctor", *map(str, args)],
            env={
                **os.environ,
                "PYSPARK_PYTHON": sys.executable,
                "PYSPARK_SUBMIT_ARGS": shlex.join([*words, "pyspark-shell"]),
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        self.seconds = time.monotonic() - begun_s
        self.code, self.stderr = done.returncode, done.stderr
        self.result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    def not_ok(self) -> dict[str, dict[str, Any]]:
        return {check["name"]: check for check in self.result["checks"] if check["state"] != "ok"}


def test_every_process_writes_renames_and_reads_back(hdfs_dir: str) -> None:
    done = Run("--master", "local[1]", "--train_dir", f"{hdfs_dir}/run/not/there")
    assert done.code == 0, done.stderr
    for sight in (done.result["driver"], *done.result["executors"]):
        assert sight["trial"]["place"] == hdfs_dir
        assert sight["trial"]["error"] == ""
        assert abs(sight["trial"]["clock_offset_s"]) < 2
    assert storage.list_dir(hdfs_dir) == []


def test_a_folder_without_permission_is_a_failure_of_each_process(hdfs_dir: str) -> None:
    done = Run("--master", "local[1]", "--train_dir", hdfs_dir, HADOOP_USER_NAME="mallory")
    assert done.code == 77, done.stderr
    check = done.not_ok()["storage"]
    assert "Permission denied: user=mallory, access=WRITE" in check["fact"]
    assert [name.split()[0] for name in check["where"]] == ["driver", "executor"]
    assert f"storage: {', '.join(check['where'])}: {hdfs_dir}: " in done.stderr.splitlines()[-1]


def test_a_namenode_that_is_down_is_a_failure_in_bounded_time(hadoop) -> None:
    done = Run("--master", "local[1]", "--train_dir", "hdfs://127.0.0.1:9/run")
    assert done.code == 74, done.stderr
    assert done.not_ok()["storage"]["where"] == ["hdfs://127.0.0.1:9/run"]
    assert done.result["seconds"] < 120
    assert len(done.result["executors"]) == 1  # all else was looked at


@pytest.mark.timeout(400)
def test_executors_on_yarn(hadoop, ship_dir: str, hdfs_dir: str, tmp_path: Path) -> None:
    shipment = environment.prepare(ship_dir)
    (tmp_path / "gpus.sh").write_text("""#!/bin/sh\necho '{"name": "gpu", "addresses": ["0"]}'\n""")
    # A stand-in: as if each container saw a GPU of its own.
    (tmp_path / "nvidia-smi").write_text('#!/bin/sh\necho "GPU 0: Stand-in (UUID: GPU-$CONTAINER_ID)"\n')
    for script in tmp_path.iterdir():
        script.chmod(0o755)
    conf = {
        "spark.yarn.queue": "gpu",
        "spark.executor.memory": "512m",
        "spark.executor.resource.gpu.amount": "1",
        "spark.task.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": str(tmp_path / "gpus.sh"),
        "spark.archives": shipment.python_archive,
        "spark.yarn.archive": shipment.spark_archive,
        "spark.executorEnv.PYTHONPATH": str(ROOT),
        "spark.executorEnv.PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    flags = ("--num_executors", 2, "--num_gpus", 1, "--port_range", "43000-43019", "--train_dir", hdfs_dir)
    # Without SPARK_HOME, pyspark's script would look for Spark with this Python, which is not there yet.
    python = {"PYSPARK_PYTHON": "./environment/bin/python", "SPARK_HOME": str(watch.spark_home())}
    done = Run("--master", "yarn", *flags, conf=conf, **python)
    assert done.code == 0, done.stderr
    assert done.not_ok() == {}
    one, other = done.result["executors"]
    assert (one["executor_id"], other["executor_id"]) == ("1", "2")
    assert one["container_id"] != other["container_id"]
    for executor in (one, other):
        assert executor["gpus_assigned"] == ["0"]
        assert executor["container_id"] in executor["disk"]["path"]
        assert executor["tokens"][0]["kind"] == "YARN_AM_RM_TOKEN"
    assert "executors of 896 MiB (512 and 384 overhead); YARN gives up to" in done.stderr
    assert storage.list_dir(hdfs_dir) == []


def test_a_container_that_yarn_never_gives_is_named_with_both_sizes(hadoop, hdfs_dir: str) -> None:
    done = Run("--master", "yarn", "--train_dir", hdfs_dir, conf={"spark.executor.memory": "900g"})
    assert done.code == 78, done.stderr
    assert set(done.not_ok()) == {"memory", "spark"}
    fact = done.not_ok()["memory"]["fact"]
    assert fact.startswith("executor container of 1013760 MiB (921600 and 92160 overhead), and YARN gives ")
    assert "Required executor memory" in done.not_ok()["spark"]["fact"]


@pytest.mark.timeout(400)
def test_a_queue_that_gives_nothing_is_given_up(hadoop, hdfs_dir: str) -> None:
    os.kill(hadoop.pid("nodemanager"), signal.SIGSTOP)  # YARN waits ten minutes for it; nothing is given meanwhile
    try:
        done = Run("--master", "yarn", "--train_dir", hdfs_dir, "--start_timeout", 30)
    finally:
        for app in (hadoop.rest("/ws/v1/cluster/apps?states=ACCEPTED")["apps"] or {"app": []})["app"]:
            hadoop.end_application(app["id"])
        os.kill(hadoop.pid("nodemanager"), signal.SIGCONT)
    assert done.code == 69, done.stderr
    assert done.not_ok()["spark"]["fact"] == "Spark has not started within 30 s"
    assert done.seconds < 90
    assert "ok         storage" in done.stderr
