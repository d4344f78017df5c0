from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tfos_job.commands.registry import SUBMISSIONS
from tfos_job.config import TrainConfig
from tfos_job.errors import BadDataError
from tfos_job.submit import application
from tfos_job.submit import main as submit_main
from tfos_job.submit.application_state import Watched
from tfos_job.submit.spark_submit import Request
from tfos_job.submit.verdict import ApplicationEnd, judge

APPLICATION = "application_1_0001"


def end(diagnostics: str, final_status: str = "FAILED", application: str = APPLICATION) -> ApplicationEnd:
    return ApplicationEnd(application=application, final_status=final_status, diagnostics=diagnostics, command="train")


def outcome(exit_code: int | None, **error: str) -> dict:
    return {"exit_code": exit_code, "error": error or None, "attempt": 1, "results": []}


def test_the_jobs_own_account_is_believed_where_it_is_of_this_end() -> None:
    told = outcome(65, fact="damaged", place="shard 3, byte 17", next_step="Convert again")
    error = judge(end("User application exited with status 65"), told)
    assert error is not None
    assert error.exit_code == 65
    assert str(error) == "shard 3, byte 17: damaged. Convert again"
    assert judge(end("", "SUCCEEDED"), outcome(0)) is None


def test_an_account_of_an_attempt_before_is_not_the_end() -> None:
    killed = "AM Container for appattempt_1_0001_000002 exited with exitCode: 137"
    error = judge(end(killed), outcome(69, fact="no room"))
    assert error is not None
    assert error.exit_code == 71
    running = judge(end(killed), outcome(None))
    assert running is not None
    assert running.exit_code == 71
    assert judge(end("", "SUCCEEDED"), outcome(71, fact="of the first attempt")) is None


@pytest.mark.parametrize(
    ("diagnostics", "exit_code", "words"),
    [
        ("User application exited with status 76", 76, "left no outcome"),
        (
            "Application application_1_0001 failed 2 times: AM Container for appattempt_1_0001_000002 exited with "
            "exitCode: -104\nFailing this attempt.Diagnostics: [2026-11-25 13:00:00.000]Container [pid=1,"
            "containerID=container_1_0001_02_000001] is running 1048576B beyond the 'PHYSICAL' memory limit. Current "
            "usage: 1.0 GB of 1 GB physical memory used; 4.1 GB of 2.1 GB virtual memory used. Killing container.",
            71,
            "1.0 GB of 1 GB used",
        ),
        ("AM Container for appattempt_1_0001_000001 exited with exitCode: -102", 75, "preempted"),
        ("AM Container for appattempt_1_0001_000001 exited with exitCode: 137", 71, "memoryOverhead"),
        ("Max number of executor failures (3) reached", 71, "executor failures"),
        ("something nobody has seen before", 71, "something nobody"),
    ],
)
def test_what_yarn_says(diagnostics: str, exit_code: int, words: str) -> None:
    error = judge(end(diagnostics), None)
    assert error is not None
    assert error.exit_code == exit_code
    assert words in str(error)


def test_a_killed_application() -> None:
    error = judge(end("Application application_1_0001 was killed by user ann at 10.0.0.1", "KILLED"), outcome(None))
    assert error is not None
    assert error.exit_code == 143


@pytest.mark.parametrize(
    ("said", "exit_code"),
    [
        (
            'Exception in thread "main" org.apache.hadoop.yarn.exceptions.YarnException: Failed to submit '
            "application_1_0001 to YARN : Application application_1_0001 submitted by user root to unknown queue: nope",
            78,
        ),
        (
            "org.apache.hadoop.security.AccessControlException: User ann does not have permission to submit "
            "application_1_0001 to queue gpu",
            77,
        ),
        (
            'Exception in thread "main" java.lang.IllegalArgumentException: Required executor memory (90000 MB), '
            "offHeap memory (0) MB, overhead (1024 MB), and PySpark memory (0 MB) is above the max threshold (16070 "
            "MB) of this cluster! Please check the values of 'yarn.scheduler.maximum-allocation-mb'",
            78,
        ),
        ("java.net.ConnectException: Call From vm to host:8032 failed on connection exception: Connection refused", 69),
        ("", 69),
    ],
)
def test_what_was_never_submitted(said: str, exit_code: int) -> None:
    error = judge(end(said, "", application=""), None)
    assert error is not None
    assert error.exit_code == exit_code
    assert "\n" not in str(error)


def test_a_report_that_cannot_be_read_hides_no_end(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{")
    told = outcome(65, fact="damaged", place="shard 3", next_step="") | {"started_s": 1.0}
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / f"{APPLICATION}.json").write_text(json.dumps(told))
    config = TrainConfig(dataset_dir="d", train_dir=str(tmp_path))
    words = {"command": "train", "app_args": (), "master": "yarn", "queue": "q", "home": "", "hdfs_dir": str(tmp_path)}
    request = Request(config=config, **words)  # type: ignore[arg-type]
    details = {"final status": "FAILED", "diagnostics": "User application exited with status 65"}
    watched = Watched(application=APPLICATION, state="FINISHED", details=details)
    with pytest.raises(BadDataError, match="damaged"):
        application._conclude(watched, request, None, lambda told: application._phases(watched, told, request, 0, 0))


def test_what_is_no_error_of_ours_ends_with_one_line_and_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: object) -> bool:
        raise RuntimeError("of a library\nin two lines")

    monkeypatch.setitem(SUBMISSIONS, "doctor", dataclasses.replace(SUBMISSIONS["doctor"], check=fail))
    words = ["doctor", "--hdfs_dir", "hdfs://nn/me"]
    assert submit_main.main(words) == 70
    assert capsys.readouterr().err.splitlines() == [
        "tfos-job submit doctor: error: RuntimeError: of a library. "
        "This is a bug; run again with --debug for the traceback"
    ]
