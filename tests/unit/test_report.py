from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tfos_job.driver.run_report import RunReport
from tfos_job.errors import NodeDiedError
from tfos_job.layout import RunLayout
from tfos_job.protocol.messages import Bottleneck, CheckpointPublished, Evaluated, Finished, Progress
from tfos_job.reports.curves import draw_loss

NOTHING_LOST = {"seen_twice": 0, "skipped": 0}
SHARES = {"input": 0.01, "network": 0.6, "compute": 0.39}
BOUND = Bottleneck("network", SHARES, 10, 0.5, 0.005, 0.3, 0.1, 0.195)
UNKNOWN = Bottleneck(None, None, 10, 0.5, 0.005, None, 0.1, None)


def progress(step: int) -> Progress:
    return Progress(step, 1.0 / step, 0.5, 1e-4, 100.0, 0.01, UNKNOWN)


def read(run: RunLayout) -> dict[str, object]:
    value: dict[str, object] = json.loads(Path(run.report).read_text())
    return value


def test_the_account_of_a_run_over_two_attempts(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    first = RunReport(run, None, {"num_records": 10})
    first.begin(0, None, NOTHING_LOST)
    assert read(run)["state"] == "running"
    first.on_phase("training")
    for step in (1, 2, 3):
        first.on_message(progress(step))
    first.on_message(CheckpointPublished(2, "checkpoints/step-00000002"))
    first.end(NodeDiedError("killed", place="ps:0", next_step="again"))
    account = read(run)
    assert (account["state"], account["exit_code"], account["step"]) == ("failed", 71, 3)
    assert account["first_cause"] == {"fact": "killed", "place": "ps:0", "next_step": "again"}

    second = RunReport(run, account, {"num_records": 10})
    second.begin(2, "checkpoints/step-00000002", {"seen_twice": 4, "skipped": 0})
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
        "step": 4, "loss": 0.25, "top_1": 0.5, "learning_rate": 1e-4, "images_per_second": 100.0,
    }  # fmt: skip
    assert [a["state"] for a in account["attempts"]] == ["failed", "finished"]  # type: ignore[attr-defined]


def test_a_run_that_goes_on_has_the_metrics_of_the_step_that_it_goes_on_from(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    first = RunReport(run, None, {})
    first.begin(0, None, NOTHING_LOST)
    for step in (2, 4):
        first.on_message(progress(step))
        first.on_message(Evaluated(step, "test", {"top_1": step / 10}))
    first.end(None)
    second = RunReport(run, read(run), {})
    second.begin(3, "checkpoints/step-00000003", NOTHING_LOST)
    assert second.values["metrics"] == {
        "train_step": 2, "train_loss": 0.5, "train_top_1": 0.5, "evaluated_step": 2, "top_1": 0.2,
    }  # fmt: skip


def test_a_report_that_is_held_leaves_the_one_before_until_it_is_committed(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    (tmp_path / "report.json").write_text("the one before")
    for ends in (True, False):
        report = RunReport(run, None, {}, held=True)
        report.begin(0, None, NOTHING_LOST)
        report.on_message(progress(1))
        assert report._writing is None
        if ends:
            report.end(NodeDiedError("killed"))
        assert (tmp_path / "report.json").read_text() == "the one before"
        assert not (tmp_path / "loss.png").exists()
    report.commit("attempts/001.json", [])
    assert read(run)["state"] == "running"


def test_a_picture_that_fails_does_not_change_the_end(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    (tmp_path / "loss.png").mkdir()
    report = RunReport(run, None, {})
    report.begin(0, None, NOTHING_LOST)
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
    report.begin(0, None, NOTHING_LOST)
    report.on_phase("training")
    for step in range(1, 200):
        report.on_message(progress(step))
        if report._writing is not None:
            report._writing.result()
    assert read(run)["step"] == 199
    assert read(run)["first_step_s"] >= 0  # type: ignore[operator]
    report.on_message(progress(200))
    report.end(None)
    assert (read(run)["state"], read(run)["step"]) == ("finished", 200)
