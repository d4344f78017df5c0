"""Memory that ran out in an attempt of a run: what the next submission of it asks for."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_dry_run import begun, folder  # noqa: F401 - the fixture
from tfos_job import storage
from tfos_job.commands import dry_run, training_memory
from tfos_job.commands import train as train_command
from tfos_job.commands.command import Work
from tfos_job.config import TrainConfig
from tfos_job.layout import RunLayout
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_end import AttemptEnd, NodeRecord
from tfos_job.protocol.failures import Failure, Kind, Process, Reason
from tfos_job.protocol.topology import Task
from tfos_job.run import attempt_account, outgrown
from tfos_job.run.outgrown import Outgrown
from tfos_job.submit import main as submit

GIB = 1 << 30
BOTH = {"spark.driver.memoryOverhead", "spark.executor.memoryOverhead"}


def attempt(task: str | None = "worker:1", *, reason: str = "memory", number: int = 1, **peaks: Any) -> dict[str, Any]:
    """An entry of report.json; `worker_1=5` is the peak of worker:1."""
    nodes = [{"task": name.replace("_", ":"), "peak_bytes": peak} for name, peak in peaks.items()]
    return {"number": number, "first_cause": {"task": task, "reason": reason}, "nodes": nodes}


def found(tmp_path: Path, *attempts: Any) -> Outgrown | None:
    return outgrown.of_run(RunLayout(str(tmp_path)), {"attempts": list(attempts)})


def test_the_highest_peak_of_a_role_in_the_attempts_that_memory_has_ended(tmp_path: Path) -> None:
    known = found(
        tmp_path,
        attempt("worker:1", worker_0=4 * GIB, worker_1=3 * GIB, ps_0=GIB, chief_0=None),
        attempt("worker:0", worker_0=2 * GIB),
        attempt(reason="silent", worker_0=9 * GIB),
        {"first_cause": None, "nodes": []},
        {"start_step": 5},  # of an earlier version
    )
    assert known == Outgrown(roles=frozenset({"worker"}), peak_bytes={"worker": 4 * GIB, "ps": GIB}, container_bytes={})


def test_without_such_an_attempt_there_is_nothing_to_know(tmp_path: Path) -> None:
    assert found(tmp_path, attempt(reason=""), attempt(reason="preempted")) is None
    assert outgrown.of_run(RunLayout(str(tmp_path)), None) is None


def test_nodes_that_the_report_has_dropped_are_in_the_file_of_the_attempt(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    storage.make_dirs(run.attempts_dir)
    storage.write_json(run.attempt(3), attempt(worker_0=5 * GIB))
    short = {"number": 3, "first_cause": {"task": None, "reason": "memory"}}  # Spark's own failure: of some executor
    known = found(tmp_path, short)
    assert known == Outgrown(roles=frozenset({"worker"}), peak_bytes={"worker": 5 * GIB}, container_bytes={})
    gone = found(tmp_path, {**short, "number": 4})
    assert gone == Outgrown(roles=frozenset({"worker"}), peak_bytes={}, container_bytes={})


def test_the_container_of_the_process_that_memory_ran_out_for(tmp_path: Path) -> None:
    places = [
        {"task": "worker:1", "container": "container_1", "limit_bytes": 3 * GIB},
        {"task": "worker:0", "container": "container_2", "limit_bytes": 9 * GIB},
    ]
    known = found(tmp_path, attempt("worker:1") | {"nodes": places}, attempt("ps:0") | {"nodes": [{"task": "ps:0"}]})
    assert known == Outgrown(roles=frozenset({"worker", "ps"}), peak_bytes={}, container_bytes={"worker": 3 * GIB})
    shared = {**places[0], "container": None}  # a limit of the host's, such as that of a whole machine
    known = found(tmp_path, attempt("worker:1") | {"nodes": [shared]})
    assert known == Outgrown(roles=frozenset({"worker"}), peak_bytes={}, container_bytes={})


def test_the_account_of_an_attempt_says_all_of_it(tmp_path: Path) -> None:
    process = Process(Task("worker", 1), "host-a", "container_1")
    record = NodeRecord(process=process, peak_bytes=2 * GIB, limit_bytes=3 * GIB)
    first = Failure(Kind.KILLED, "killed by SIGKILL", process=process, reason=Reason.MEMORY)
    end = AttemptEnd(
        number=2, outcome=failures.to_error([first]), phase="training", first=first, step=5, nodes=(record,)
    )
    account = json.loads(json.dumps(attempt_account.of_end(end)))
    known = Outgrown(roles=frozenset({"worker"}), peak_bytes={"worker": 2 * GIB}, container_bytes={"worker": 3 * GIB})
    assert found(tmp_path, {"number": 2, **account}) == known
    run = RunLayout(str(tmp_path))
    storage.make_dirs(run.attempts_dir)
    storage.write_json(run.attempt(2), account)
    assert found(tmp_path, attempt_account.without_details({"number": 2, **account})) == known


def asked(
    roles: set[str],
    peaks: dict[str, int],
    sizes: dict[str, int] | None = None,
    *,
    ps_place: str = "executor",
) -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
    """Overheads without and with that knowledge, in MiB, by setting, and what the user is told."""
    config = TrainConfig(dataset_dir="d", train_dir="t", num_executors=4, num_ps_tasks=2, ps_place=ps_place)
    work = Work(outgrown=Outgrown(roles=frozenset(roles), peak_bytes=peaks, container_bytes=sizes or {}))
    sizes = [
        {name: int(value.removesuffix("m")) for name, value in settings.items() if name in BOTH}
        for settings in (train_command.containers(config, it, "yarn") for it in (Work(), work))
    ]
    return sizes[0], sizes[1], train_command.remarks(config, work, "yarn")


def test_executors_get_the_peak_and_a_reserve_beside_their_jvm() -> None:
    usual, now, told = asked({"worker"}, {"worker": 8 * GIB, "chief": 99 * GIB})
    assert now["spark.driver.memoryOverhead"] == usual["spark.driver.memoryOverhead"]
    size = now["spark.executor.memoryOverhead"]
    assert 8 * 1024 * 1.25 + 300 <= size < 8 * 1024 * 1.25 + 300 + 256
    assert told == {
        "spark.executor.memoryOverhead": "Memory has run out in an attempt of this run, with 8.00 GiB at the peak: "
        "asking for 1.25 times as much, spark.executor.memoryOverhead="
        f"{size}m instead of {usual['spark.executor.memoryOverhead']}m"
    }


def test_never_less_than_without_that_knowledge() -> None:
    usual, now, told = asked({"worker", "ps", "chief"}, {"worker": 1, "ps": 1, "chief": 1})
    assert now == usual
    assert told == {}


def test_a_peak_that_was_not_measured_counts_as_what_is_usual() -> None:
    usual, now, told = asked({"worker"}, {"ps": 8 * GIB})
    before = usual["spark.executor.memoryOverhead"]
    assert before * 1.25 <= now["spark.executor.memoryOverhead"] < before * 1.25 + 256
    assert "in an attempt of this run: asking for 1.25 times as much, " in told["spark.executor.memoryOverhead"]


def test_what_yarn_has_killed_had_more_than_was_measured_before() -> None:
    _, now, told = asked({"worker"}, {"worker": GIB}, {"worker": 8 * GIB})
    total = now["spark.executor.memoryOverhead"] + 512
    assert 10 * 1024 <= total < 10 * 1024 + 256
    assert "with 1.00 GiB at the peak, in a container of 8.00 GiB: asking" in told["spark.executor.memoryOverhead"]


def test_parameter_servers_beside_the_driver_are_in_its_container() -> None:
    usual, now, told = asked({"ps"}, {"ps": 2 * GIB, "chief": 4 * GIB}, ps_place="driver")
    assert now["spark.executor.memoryOverhead"] == usual["spark.executor.memoryOverhead"]
    assert (4 + 2 * 2) * 1024 * 1.25 + 550 <= now["spark.driver.memoryOverhead"] < 8 * 1024 * 1.25 + 550 + 256
    assert "with 8.00 GiB at the peak" in told["spark.driver.memoryOverhead"]
    usual, now, _ = asked({"ps"}, {"ps": 20 * GIB, "chief": GIB})
    assert now["spark.driver.memoryOverhead"] == usual["spark.driver.memoryOverhead"]
    assert now["spark.executor.memoryOverhead"] >= 25 * 1024


def test_submit_and_the_dry_run_know_it_unless_the_user_does(
    folder: Path,  # noqa: F811 - the fixture
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO")
    begun(folder, dataset_dir=f"file://{folder}/data", train_dir=f"file://{folder}/run")
    run = RunLayout(f"file://{folder}/run")
    storage.write_json(run.report, {**storage.read_json(run.report), "attempts": [attempt(worker_1=8 * GIB)]})
    words = ["train", "--train_dir", f"file://{folder}/run", "--hdfs_dir", "hdfs://nn/me", "--dry_run"]
    assert submit.main(words) == 0
    assert "spark.executor.memoryOverhead=10752m" in shlex.split(capsys.readouterr().out)
    assert caplog.text.count("with 8.00 GiB at the peak") == 1
    caplog.clear()
    assert submit.main([*words, "--", "--conf", "spark.executor.memoryOverhead=3g"]) == 0
    assert "spark.executor.memoryOverhead=3g" in shlex.split(capsys.readouterr().out)
    assert "at the peak" not in caplog.text
    config = train_command.configure({"train_dir": str(folder / "run")})
    assert dry_run.forecast(config, "yarn")["memory_mib"][training_memory.WORKER] == 512 + 10752
    anew = {"train_dir": str(folder / "run"), "dataset_dir": str(folder / "data"), "overwrite": True}
    assert train_command.size_of_work(train_command.configure(anew)).outgrown is None
