"""`examine` in a SparkContext that is there, and `tfos-job doctor` as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.command import StartCommand, run
from tests.ports import free_port_range
from tfos_job.doctor.case import Expected
from tfos_job.doctor.diagnosis import FAILED, OK, Check
from tfos_job.driver import executor_probe, preflight, start_limit
from tfos_job.errors import ResourceError, SettingsError

DATA = Path(__file__).resolve().parents[1] / "data"
FOR_EVER_S = 86_400.0  # who waited for its end would be ended by pytest


def test_a_context_that_is_there_is_examined_and_serves_on(spark: SparkSession, tmp_path: Path) -> None:
    expected = Expected(num_executors=2, folder=str(tmp_path / "run/not/there"), port_range=free_port_range(20))
    diagnosis = preflight.examine(spark, expected)
    diagnosis.raise_for_failures()
    (executor,) = diagnosis.executors
    assert executor.versions == diagnosis.driver.versions
    assert executor.java == diagnosis.driver.java
    assert executor.clock_offset_s is not None
    assert executor.trial is not None
    assert executor.trial.place == str(tmp_path)
    assert {check.state for check in diagnosis.checks} == {OK}
    assert list(tmp_path.iterdir()) == []
    assert spark.sparkContext.parallelize([1, 2], 2).sum() == 3


def test_every_failure_is_named_at_once(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_TOKEN_FILE_LOCATION", str(DATA / "golden-protobuf.tokens"))
    monkeypatch.setenv("PATH", os.environ["PATH"])
    (tmp_path / "run").write_text("a file")
    expected = Expected(
        num_executors=3,
        num_gpus=1,
        folder=str(tmp_path / "run"),
        port_range=free_port_range(2),
        min_free_bytes=1 << 60,
        expected_hours=1e6,
    )
    diagnosis = preflight.examine(spark, expected)
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
    monkeypatch.setattr(executor_probe, "probe_here", _Unreadable())
    check = task_problem(spark)
    assert check.fact == "a task cannot be run: ModuleNotFoundError: No module named 'not_shipped'"
    assert check.exit_code == 78


def test_executors_that_hang_are_given_up(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_probe, "_JOB_S", 0.5)
    monkeypatch.setattr(executor_probe, "probe_here", _hang)
    diagnosis = preflight.examine(spark, Expected(num_executors=1, storage_timeout_s=0.0))
    (check,) = [check for check in diagnosis.checks if check.state == FAILED]
    assert (check.fact, check.exit_code) == ("1 came, 0 answered", 69)
    wait_until_idle(spark)


def test_who_waits_can_be_interrupted(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_probe, "probe_here", _hang)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preflight.examine(spark, Expected(num_executors=1), interrupt)
    wait_until_idle(spark)


def wait_until_idle(spark: SparkSession) -> None:
    """Until what hangs has been cancelled: it holds a slot, which the next job needs."""
    while spark.sparkContext.statusTracker().getActiveStageIds():
        time.sleep(0.05)


def task_problem(spark: SparkSession) -> Check:
    diagnosis = preflight.examine(spark, Expected(num_executors=1))
    (check,) = [check for check in diagnosis.checks if check.name == "tasks"]
    with pytest.raises(SettingsError) as caught:
        diagnosis.raise_for_failures()
    assert check.fact in caught.value.fact
    return check


def _hang(*_: Any) -> None:
    time.sleep(FOR_EVER_S)


class _Unreadable:
    """A function of a package that the executors do not have."""

    def __call__(self, *_: Any) -> None:
        raise AssertionError("never run")

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("not_shipped",)


def test_the_alarm_ends_what_waits_for_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_limit, "end_jvm", lambda: None)  # that of the other tests

    def wait_for_spark() -> None:
        with start_limit.time_limit(1):
            try:
                time.sleep(FOR_EVER_S)
            except TimeoutError as e:
                error = ResourceError("Spark does not start: Error while sending or receiving")
                error.add_note("queue gpu has 0 of 1 yarn.io/gpu free")  # as `withdrawal` does
                raise error from e

    with pytest.raises(ResourceError) as caught:
        wait_for_spark()
    assert caught.value.fact == "Spark has not started within 1 s; queue gpu has 0 of 1 yarn.io/gpu free"
    with pytest.raises(ResourceError, match="no such queue"), start_limit.time_limit(1):
        raise ResourceError("no such queue")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)  # nothing rings after it


def test_two_executors(start: StartCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_TOKEN_FILE_LOCATION", str(DATA / "golden-writable.tokens"))
    flags = ("--num_executors", 2, "--train_dir", tmp_path, "--expected_hours", 0)
    done = start("doctor", "--master", "local-cluster[2,2,1024]", *flags)
    done.wait()
    found = done.result()
    assert [executor["executor_id"] for executor in found["executors"]] == ["0", "1"]
    assert [token["owner"] for token in found["executors"][1]["tokens"]] == ["陈", ""]
    assert "secret" not in done.stdout + done.stderr
    # The token of the file has ended by the time of some clock, and lives still by that of another.
    states = {check["name"]: check["state"] for check in found["checks"] if check["name"] != "tokens"}
    assert set(states.values()) == {"ok"}, done.stderr
    assert "executors  2 for 2 nodes: executor 0 on host" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_spark_that_does_not_start_is_a_failure_beside_others(tmp_path: Path) -> None:
    low, high = free_port_range(2)  # a job needs three
    flags = ("--train_dir", tmp_path, "--port_range", f"{low}-{high}")
    done = run("doctor", "--master", "local[0]", *flags, code=69)
    assert done.result()["exit_code"] == 69
    assert "Spark does not start" in done.stderr
    assert "ok         storage" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.search(r"^tfos-job doctor: error: 2 of \d+ checks failed: ports: .* spark: --master local\[0\]: ", last)
