"""`examine` in a SparkContext that is there, and `tfos-job doctor` as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tfos_job.doctor.case import Expected
from tfos_job.doctor.diagnosis import FAILED, OK, Check
from tfos_job.errors import ResourceError, SettingsError
from tfos_job.jobs import doctor, looks

DATA = Path(__file__).resolve().parents[1] / "data"


def test_a_context_that_is_there_is_examined_in_seconds(spark: SparkSession, tmp_path: Path) -> None:
    expected = Expected(num_executors=2, folder=str(tmp_path / "run/not/there"), port_range=(42000, 42020))
    doctor.examine(spark, expected)  # the first Python worker of the context takes its time
    began_s = time.monotonic()
    diagnosis = doctor.examine(spark, expected)
    assert time.monotonic() - began_s < 8
    diagnosis.raise_for_failures()
    (executor,) = diagnosis.executors
    assert executor.versions == diagnosis.driver.versions
    assert executor.java == diagnosis.driver.java
    assert executor.clock_offset_s is not None
    assert executor.trial is not None
    assert executor.trial.place == str(tmp_path)
    assert {check.state for check in diagnosis.checks} == {OK}
    assert list(tmp_path.iterdir()) == []
    assert spark.sparkContext.parallelize([1, 2], 2).sum() == 3  # it is still of use


def test_every_failure_is_named_at_once(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_TOKEN_FILE_LOCATION", str(DATA / "golden-protobuf.tokens"))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    (tmp_path / "run").write_text("a file")
    expected = Expected(
        num_executors=3,
        num_gpus=1,
        folder=str(tmp_path / "run"),
        port_range=(42000, 42001),
        min_free_bytes=1 << 60,
        expected_hours=1e6,
    )
    diagnosis = doctor.examine(spark, expected)
    failed = {check.name: check for check in diagnosis.checks if check.state == FAILED}
    assert set(failed) == {"executors", "storage", "tokens", "disk", "gpu", "ports"}
    assert failed["tokens"].where == (diagnosis.driver.name,)  # the workers were there before the variable
    assert failed["storage"].exit_code == 66
    assert diagnosis.exit_code == 78
    json.dumps(diagnosis.to_dict())


def test_hosts_of_another_python_are_a_finding(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark.sparkContext, "pythonVer", "3.9")
    check = task_problem(spark)
    assert "[PYTHON_VERSION_MISMATCH] Python in worker has different version" in check.fact
    assert check.exit_code == 78


def test_a_package_that_was_not_shipped_is_a_finding(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "look_here", _Unreadable())
    check = task_problem(spark)
    assert check.fact == "a task cannot be run: ModuleNotFoundError: No module named 'not_shipped'"
    assert check.exit_code == 78


def test_executors_that_hang_are_given_up(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_JOB_S", 3.0)
    monkeypatch.setattr(looks, "look_here", _hang)
    began_s = time.monotonic()
    diagnosis = doctor.examine(spark, Expected(num_executors=1, storage_timeout_s=0.0))
    assert time.monotonic() - began_s < 20
    (check,) = [check for check in diagnosis.checks if check.state == FAILED]
    assert (check.fact, check.exit_code) == ("1 came, 0 answered", 69)


def test_who_waits_can_be_interrupted(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "look_here", _hang)

    def interrupt() -> None:
        raise KeyboardInterrupt

    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        doctor.examine(spark, Expected(num_executors=1), interrupt)
    assert time.monotonic() - began_s < 10


def task_problem(spark: SparkSession) -> Check:
    diagnosis = doctor.examine(spark, Expected(num_executors=1))
    (check,) = [check for check in diagnosis.checks if check.name == "tasks"]
    with pytest.raises(SettingsError) as caught:
        diagnosis.raise_for_failures()
    assert check.fact in caught.value.fact
    return check


def _hang(*_: Any) -> None:
    time.sleep(60)


class _Unreadable:
    """A function of a package that the executors do not have."""

    def __call__(self, *_: Any) -> None:
        raise AssertionError("never run")

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("not_shipped",)


def test_the_alarm_ends_what_waits_for_spark() -> None:
    began_s = time.monotonic()

    def wait_for_spark() -> None:
        with doctor._alarm(1):
            try:
                time.sleep(60)
            except TimeoutError as e:
                raise ResourceError("Spark does not start: Error while sending or receiving") from e

    with pytest.raises(ResourceError, match="Spark has not started within 1 s"):
        wait_for_spark()
    assert time.monotonic() - began_s < 10
    with pytest.raises(ResourceError, match="no such queue"), doctor._alarm(1):
        raise ResourceError("no such queue")
    time.sleep(1.2)  # nothing rings after it


def run(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tfos_job", "doctor", *map(str, args)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_two_executors(tmp_path: Path) -> None:
    tokens = str(DATA / "golden-writable.tokens")
    done = run(
        *("--master", "local-cluster[2,2,1024]", "--num_executors", 2, "--train_dir", tmp_path, "--expected_hours", 0),
        HADOOP_TOKEN_FILE_LOCATION=tokens,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert [executor["executor_id"] for executor in found["executors"]] == ["0", "1"]
    assert [token["owner"] for token in found["executors"][1]["tokens"]] == ["陈", ""]
    assert "secret" not in done.stdout + done.stderr
    # The token of the file has ended by the time of some clock, and lives still by that of another.
    states = {check["name"]: check["state"] for check in found["checks"] if check["name"] != "tokens"}
    assert set(states.values()) == {"ok"}, done.stderr
    assert "executors  2 for 2 nodes: executor 0 on host" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_gives_the_exit_code_and_is_named() -> None:
    done = run("--master", "local-cluster[1,1,1024]", "--num_gpus", 1, "--min_free_gb", 1e6)
    assert done.returncode == 69, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 69
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tfos-job doctor: error: 2 of 13 checks failed: disk: executor 0 on host")
    assert "gpu: executor 0 on host" in last


def test_spark_that_does_not_start_is_a_failure_beside_others(tmp_path: Path) -> None:
    done = run("--master", "local[0]", "--train_dir", tmp_path)
    assert done.returncode == 69, done.stderr
    assert "Spark does not start" in done.stderr
    assert "ok         storage" in done.stderr
