from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.waits import PATIENCE_S
from tfos_job import storage
from tfos_job.config import TrainConfig
from tfos_job.driver.run_report import RunReport
from tfos_job.errors import NodeDiedError, StorageError
from tfos_job.jobs import train
from tfos_job.layout import RunLayout
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.failures import Failure, Kind, Process
from tfos_job.protocol.messages import Bottleneck, CheckpointPublished, Evaluated, Finished, Progress
from tfos_job.protocol.topology import Task
from tfos_job.reports.curves import draw_loss
from tfos_job.run import attempts, checkpoints

NOTHING_LOST = {"seen_twice": 0, "skipped": 0}
SHARES = {"input": 0.01, "network": 0.6, "compute": 0.39}
BOUND = Bottleneck("network", SHARES, 10, 0.5, 0.005, 0.3, 0.1, 0.195)
SECONDS = 2.0  # of a step
UNKNOWN = Bottleneck(None, None, 10, 0.5, 0.005, None, 0.1, None)


def progress(step: int) -> Progress:
    return Progress(step, 1.0 / step, 0.5, 1e-4, 100.0, 0.01, UNKNOWN, seconds=SECONDS)


def begin(report: RunReport, number: int = 1, start_step: int = 0, **changes: Any) -> None:
    checkpoint = f"checkpoints/step-{start_step:08d}" if start_step else None
    known = {"number": number, "start_step": start_step, "checkpoint": checkpoint, "records": NOTHING_LOST}
    report.begin(**{**known, **changes})


def commit(report: RunReport, run: RunLayout) -> None:
    settings = TrainConfig(dataset_dir="/data", train_dir=run.root)
    report.commit(attempts.begin(run, 1, settings, [], "d" * 64), [])


def died(number: int, step: int, **changes: Any) -> AttemptEnd:
    failure = Failure(Kind.KILLED, "killed", process=Process(task=Task("worker", 0), host="h"))
    known = {"number": number, "outcome": NodeDiedError("killed", place="worker:0 on host h"), "phase": "training"}
    return AttemptEnd(**{**known, "first": failure, "step": step, **changes})


def read(run: RunLayout) -> dict[str, object]:
    value: dict[str, object] = json.loads(Path(run.report).read_text())
    return value


def test_the_account_of_a_run_over_two_attempts(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    first = RunReport(run, None, {"num_records": 10})
    begin(first)
    assert read(run)["state"] == "running"
    first.on_phase("training")
    for step in (1, 2, 3):
        first.on_message(progress(step))
    first.on_message(CheckpointPublished(2, "checkpoints/step-00000002"))
    first.end(NodeDiedError("killed", place="ps:0", next_step="again"))
    account = read(run)
    assert (account["state"], account["exit_code"], account["step"]) == ("failed", 71, 3)
    cause = {"fact": "killed", "place": "ps:0", "next_step": "again", "exit_code": 71, "class": "NodeDiedError"}
    assert account["first_cause"] == cause
    assert account["attempts"][0]["first_cause"] == cause  # type: ignore[index]

    second = RunReport(run, account, {"num_records": 10})
    begin(second, 2, 2, records={"seen_twice": 4, "skipped": 0})
    second.on_message(progress(4))
    second.on_message(Evaluated(4, "test", {"num_examples": 5, "loss": 0.1, "top_1": 0.9}))
    assert second.values["bound"] == UNKNOWN.to_json()
    second.on_message(Finished(4, False, 2.0, 64, [64], BOUND))
    second.end(None)
    account = read(run)
    assert (account["state"], account["exit_code"], account["first_cause"]) == ("finished", 0, None)
    assert account["images_per_second"] == 32
    assert account["bound"] == BOUND.to_json()
    assert [a["records"] for a in account["attempts"]] == [NOTHING_LOST, {"seen_twice": 4, "skipped": 0}]  # type: ignore[attr-defined]
    assert account["metrics"] == {
        "train_step": 4, "train_loss": 0.25, "train_top_1": 0.5,
        "evaluated_step": 4, "num_examples": 5, "loss": 0.1, "top_1": 0.9,
    }  # fmt: skip
    # Step 3 came after the checkpoint that the second attempt began with: its curve goes on from there.
    assert [point["step"] for point in account["curve"]] == [1, 2, 4]  # type: ignore[attr-defined]
    assert account["curve"][-1] == {  # type: ignore[index]
        "step": 4, "loss": 0.25, "top_1": 0.5, "learning_rate": 1e-4, "images_per_second": 100.0, "seconds": 6.0,
    }  # fmt: skip
    assert [a["state"] for a in account["attempts"]] == ["failed", "finished"]  # type: ignore[attr-defined]


def test_a_run_that_goes_on_has_the_metrics_of_the_step_that_it_goes_on_from(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    first = RunReport(run, None, {})
    begin(first)
    for step in (2, 4):
        first.on_message(progress(step))
        first.on_message(Evaluated(step, "test", {"top_1": step / 10}))
    first.end(None)
    second = RunReport(run, read(run), {})
    begin(second, 2, 3)
    assert second.values["metrics"] == {
        "train_step": 2, "train_loss": 0.5, "train_top_1": 0.5, "evaluated_step": 2, "top_1": 0.2,
    }  # fmt: skip


def test_a_report_that_is_held_leaves_the_one_before_until_it_is_committed(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    (tmp_path / "report.json").write_text("the one before")
    for ends in (True, False):
        report = RunReport(run, None, {}, held=True)
        begin(report)
        report.on_message(progress(1))
        if ends:
            report.end(NodeDiedError("killed"))
        assert (tmp_path / "report.json").read_text() == "the one before"
        assert not (tmp_path / "loss.png").exists()
    commit(report, run)
    assert read(run)["state"] == "running"


def test_a_picture_that_fails_does_not_change_the_end(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    (tmp_path / "loss.png").mkdir()
    report = RunReport(run, None, {})
    begin(report)
    report.on_message(progress(1))
    report.end(None)
    assert read(run)["state"] == "finished"


@pytest.mark.parametrize("validation", [[], [{"step": 2, "loss": 0.5, "top_1": 0.7}]])
def test_the_picture_is_a_png(validation: list[dict[str, float]]) -> None:
    png = draw_loss([{"step": 1, "loss": 2.0, "top_1": 0.1}], validation)
    assert Image.open(io.BytesIO(png)).size == (1000, 400)


def test_those_who_watch_see_the_steps_between_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfos_job.driver.run_report._PROGRESS_S", 0.0)
    run = RunLayout(str(tmp_path))
    report = RunReport(run, None, {})
    begin(report)
    report.on_phase("first_step")
    report.on_phase("training")
    for step in range(1, 200):
        report.on_message(progress(step))
    report._writer.flush()
    assert read(run)["step"] == 199
    assert read(run)["first_step_s"] >= 0  # type: ignore[operator]
    report.on_message(progress(200))
    report.end(None)
    assert (read(run)["state"], read(run)["step"]) == ("finished", 200)


def test_a_restart_goes_on_in_one_account_with_files_of_its_attempts(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    report = RunReport(run, None, {})
    begin(report)
    commit(report, run)
    for step in (1, 2, 3):
        report.on_message(progress(step))
    report.end_attempt(died(1, 3), "restarted at once: 1 of 3", excluded={"h": "two attempts failed there"})
    report.on_phase("backoff")
    begin(report, 2, 2)
    report.on_message(progress(3))
    report.end_attempt(died(2, 3), "ended: 0 of 0")
    report.end(NodeDiedError("killed (followed by ps:0)", place="worker:0 on host h", next_step="again"))
    account = read(run)
    assert [(a["number"], a["state"], a["decision"]) for a in account["attempts"]] == [  # type: ignore[attr-defined]
        (1, "failed", "restarted at once: 1 of 3"),
        (2, "failed", "ended: 0 of 0"),
    ]
    assert (account["num_attempts"], account["num_restarts"], account["counted_s"]) == (2, 1, 6.0)
    cause: Any = account["first_cause"]
    assert (cause["fact"], cause["task"], cause["host"]) == ("killed (followed by ps:0)", "worker:0", "h")
    assert (account["exit_code"], account["exit_class"]) == (71, "NodeDiedError")
    files = [json.loads(Path(run.attempt(number)).read_text()) for number in (1, 2)]
    for number, file in enumerate(files, start=1):
        assert (file["attempt"], file["state"]) == (number, "failed")
        assert file["first_cause"]["task"] == "worker:0"
        assert file["settings"]["dataset_dir"] == "/data"
        assert file["settings"] == account["flags"]
    assert files[0]["excluded_hosts"] == account["excluded_hosts"]
    assert account["excluded_hosts"] == [{"host": "h", "reason": "two attempts failed there"}]
    assert files[1]["excluded_hosts"] == []


def test_a_disk_that_fails_ends_no_run_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunLayout(str(tmp_path))
    report = RunReport(run, None, {})
    begin(report)
    commit(report, run)
    hangs = threading.Event()
    with monkeypatch.context() as patched:

        def fail(*_: object) -> None:
            hangs.wait(60)
            raise StorageError("no answer for 120 s")

        patched.setattr(storage, "write_json", fail)
        report.on_message(CheckpointPublished(1, "c"))
        report.end_attempt(died(1, 1), "restarted")
        begin(report, 2, 1)
        report.on_message(progress(2))
        hangs.set()
        report._writer.hold()
    assert len(read(run)["attempts"]) == 1  # type: ignore[arg-type]
    report.on_message(CheckpointPublished(3, "c"))
    report._writer.flush()
    assert [a.get("state") for a in read(run)["attempts"]] == ["failed", None]  # type: ignore[attr-defined]
    assert Path(run.attempt(2)).exists()
    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_json", fail)
        with pytest.raises(StorageError):
            report.end(None)


@pytest.mark.parametrize("clears", [False, True])
def test_a_report_that_another_job_has_begun_is_left_to_it(tmp_path: Path, *, clears: bool) -> None:
    run = RunLayout(str(tmp_path))
    report = RunReport(run, None, {})
    begin(report)
    assert report.is_undisturbed()
    report.end_attempt(died(1, 0), "restarted")
    begin(report, 2)
    assert report.is_undisturbed()
    if clears:
        Path(run.report).unlink()
    else:
        begin(RunReport(run, read(run), {}), 3)
    assert not report.is_undisturbed()
    report.on_message(CheckpointPublished(3, "c"))
    report._writer.hold()
    assert not Path(run.report).exists() if clears else read(run)["num_attempts"] == 3


def test_a_command_that_cannot_ask_whose_the_run_is_leaves_no_thread_that_writes(tmp_path: Path) -> None:
    class Lease:
        def check(self) -> None:
            raise StorageError("no NameNode")

    run = RunLayout(str(tmp_path))
    report = RunReport(run, None, {})
    begin(report)
    lease: Any = Lease()
    with pytest.raises(NodeDiedError), train._ending(report, lease):
        raise NodeDiedError("killed")
    writer = report._writer._thread
    assert writer is not None
    writer.join(PATIENCE_S)
    assert not writer.is_alive()
    report.on_message(CheckpointPublished(3, "c"))
    assert read(run)["checkpoint"] is None


def test_the_digest_of_the_checkpoint_is_in_the_report(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    path = checkpoints.publish(run, 3, {"a": np.zeros(1, np.float32)}, {key: {} for key in checkpoints.META_KEYS})
    report = RunReport(run, None, {})
    begin(report)
    assert read(run)["checkpoint_digest"] is None
    report.on_message(CheckpointPublished(3, path))
    report.on_message(CheckpointPublished(4, str(tmp_path / "gone")))
    report._writer.flush()
    report.on_message(CheckpointPublished(3, path))
    report.end(None)
    document = json.loads(Path(path, "checkpoint.json").read_text())
    assert read(run)["checkpoint_digest"] == report.values["checkpoint_digest"] == document["document_sha256"]
