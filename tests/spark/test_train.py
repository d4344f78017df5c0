"""What `train` decides before there is a cluster: where a run begins, what is refused, when nothing is left to do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command import SMALL
from tfos_job import cli
from tfos_job.cluster import control
from tfos_job.errors import BusyError, JobError, MissingInputError, SettingsError
from tfos_job.jobs import train
from tfos_job.jobs.report import RunReport
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.lease import Lease
from tfos_job.model import checkpoints

Jobs = list[train._Job]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """What reached the cluster, which is at its last step at once; the trainings themselves are in tests/cluster."""
    found: Jobs = []

    def attempt(job: train._Job, master: str | None, report: RunReport, lease: Lease) -> None:
        found.append(job)
        steps = job.total_steps
        read = [job.start.positions[0] + (steps - job.start.step) * job.config.batch_size]
        meta = train._assignment(job, {**train._normalization(job.config), "digest": None, "statistics": None})["meta"]
        meta |= {"input_position": {"records_read": read, "order": meta["order"]}, "metrics": {}}
        path = checkpoints.publish(job.run, steps, {"model/x": np.full(1, steps)}, meta)
        report.on_message(control.CheckpointPublished(steps, path))
        report.on_message(
            control.Finished(step=steps, interrupted=False, seconds=1.0, images=1, records_read=read, bound={})
        )

    monkeypatch.setattr(train, "_run_attempt", attempt)
    return found


def run(dataset_dir: Path, train_dir: Path, *flags: object, master: str = "local[2]") -> dict[str, Any]:
    words = ("--dataset_dir", dataset_dir, "--train_dir", train_dir, *SMALL, *flags)
    return train.train(cli.parse_config("train", [str(word) for word in words]), master)


def steps_of(train_dir: Path) -> list[str]:
    return sorted(path.name for path in (train_dir / "checkpoints").iterdir())


def test_a_finished_run_is_left_as_it_is_and_a_longer_one_goes_on(
    small_dataset: Path, tmp_path: Path, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(small_dataset, tmp_path, "--max_number_of_steps", 7)
    report = (tmp_path / "report.json").read_bytes()
    with caplog.at_level("INFO"):
        assert run(small_dataset, tmp_path, "--max_number_of_steps", 7)["step"] == first["step"] == 7
    assert f"{tmp_path} is finished: step 7 of 7. Nothing to do" in caplog.text
    assert (tmp_path / "report.json").read_bytes() == report
    assert len(jobs) == 1
    run(small_dataset, tmp_path, "--max_number_of_steps", 9)
    assert (jobs[1].start.step, jobs[1].start.positions) == (7, (7 * 32,))
    assert steps_of(tmp_path) == ["step-00000007", "step-00000009"]


def test_a_run_whose_report_was_lost_is_finished_without_a_cluster(
    small_dataset: Path, tmp_path: Path, jobs: Jobs
) -> None:
    run(small_dataset, tmp_path, "--max_number_of_steps", 3)
    (tmp_path / "report.json").unlink()
    report = run(small_dataset, tmp_path, "--max_number_of_steps", 3)
    assert (report["state"], report["step"], len(jobs)) == ("finished", 3, 1)


def test_a_run_from_another_runs_checkpoint_has_a_copy_of_its_own(
    small_dataset: Path, tmp_path: Path, jobs: Jobs
) -> None:
    run(small_dataset, tmp_path / "first", "--max_number_of_steps", 2)
    origin = tmp_path / "first" / "checkpoints" / "step-00000002"
    again = ("--restore", origin, "--max_number_of_steps", 4)
    run(small_dataset, tmp_path / "second", *again)
    start = jobs[-1].start
    assert start.checkpoint is not None
    assert (start.step, start.checkpoint.path) == (2, RunLayout(str(tmp_path / "second")).checkpoint(2))
    assert steps_of(tmp_path / "second") == ["step-00000002", "step-00000004"]
    shutil.rmtree(tmp_path / "first")
    # The same command once more is a resumption like any other.
    assert run(small_dataset, tmp_path / "second", *again)["step"] == 4
    assert len(jobs) == 2


def test_a_resumed_run_has_the_statistics_of_its_checkpoint(small_dataset: Path, tmp_path: Path, jobs: Jobs) -> None:
    zca = ("--normalization", "zca", "--whitening_epsilon", 0.05)
    run(small_dataset, tmp_path, *zca, "--max_number_of_steps", 2)
    run(small_dataset, tmp_path, *zca, "--max_number_of_steps", 4)
    # No Spark job for them, nor a file: the context is not even looked at.
    found = train._statistics(None, jobs[1], None, None, None)  # type: ignore[arg-type]
    assert (found["kind"], found["epsilon"], found["statistics"]) == ("zca", 0.05, None)
    with pytest.raises(SettingsError, match=r"normalization zca with epsilon 0\.05, .* normalization pca with epsilon"):
        run(small_dataset, tmp_path, "--normalization", "pca", "--max_number_of_steps", 6)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--image_size", 24), "images 16 × 16 × 1"),
        (("--keep_prob", 0.5), "keep_prob"),
        (("--restore", "none"), "has checkpoints already"),
        (("--dataset_split_name", "test"), "made with dataset"),
        (("--trainable_scopes", "fc3"), "made with trainable scopes all"),
        # Settings that cannot work do not cost the run that is there.
        (("--overwrite", "--num_executors", 12), "cannot be divided among 11 workers"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_and_changes_nothing(
    small_dataset: Path, tmp_path: Path, jobs: Jobs, flags: tuple[object, ...], words: str
) -> None:
    run(small_dataset, tmp_path, "--max_number_of_steps", 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match=words) as caught:
        run(small_dataset, tmp_path, "--max_number_of_steps", 4, *flags, master="local[12]")
    assert caught.value.exit_code == 78
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(jobs) == 1


def test_what_cannot_begin_is_refused(small_dataset: Path, tmp_path: Path, jobs: Jobs) -> None:
    run(small_dataset, tmp_path / "first", "--max_number_of_steps", 2)
    origin = tmp_path / "first" / "checkpoints" / "step-00000002"
    with pytest.raises(SettingsError, match="the checkpoint is of step 2"):
        run(small_dataset, tmp_path / "new", "--restore", origin, "--max_number_of_steps", 2)
    with pytest.raises(SettingsError, match=r"2 slots for 3 nodes.*local\[3\]"):
        run(small_dataset, tmp_path / "new", "--num_executors", 3)
    missing = DatasetLayout(str(tmp_path / "nowhere")).split("train").manifest
    with pytest.raises(MissingInputError, match=missing):
        run(tmp_path / "nowhere", tmp_path / "new")
    assert steps_of(tmp_path / "first") == ["step-00000002"]
    assert not (tmp_path / "new" / "report.json").exists()
    assert len(jobs) == 1


def test_two_at_once_exclude_each_other(small_dataset: Path, tmp_path: Path, jobs: Jobs) -> None:
    with (
        Lease(RunLayout(str(tmp_path)).lock, "another job"),
        pytest.raises(BusyError, match="held by another job") as caught,
    ):
        run(small_dataset, tmp_path)
    assert caught.value.exit_code == 75
    assert jobs == []


def test_what_ends_an_attempt_is_in_the_report_and_the_next_one_goes_on(
    small_dataset: Path, tmp_path: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train._run_attempt

    def fail(*_: Any) -> None:
        raise JobError("it broke", place="there")

    monkeypatch.setattr(train, "_run_attempt", fail)
    with pytest.raises(JobError, match="it broke"):
        run(small_dataset, tmp_path, "--max_number_of_steps", 2)
    report = train.storage.read_json(RunLayout(str(tmp_path)).report)
    assert (report["state"], report["exit_code"], report["first_cause"]["place"]) == ("failed", 70, "there")
    assert not Path(RunLayout(str(tmp_path)).lock).exists()
    monkeypatch.setattr(train, "_run_attempt", whole)
    assert [a["state"] for a in run(small_dataset, tmp_path, "--max_number_of_steps", 2)["attempts"]] == ["finished"]
