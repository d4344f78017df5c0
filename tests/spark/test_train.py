"""What `train` decides before there is a cluster: where a run begins, what is refused, when nothing is left to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command import SMALL
from tests.flags import parse_config
from tfos_job import storage
from tfos_job.driver import cluster_run
from tfos_job.driver.run_report import RunReport
from tfos_job.errors import BusyError, JobError, MissingInputError, NodeDiedError, SettingsError
from tfos_job.jobs import train
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.lease import Lease
from tfos_job.protocol import messages
from tfos_job.run import checkpoints
from tfos_job.run.json_values import to_json
from tfos_job.run.preparation import Preparation
from tfos_job.run.specs import normalization_of

Trainings = list[Preparation]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """What reached the cluster, which is at its last step at once; the trainings themselves are in tests/cluster."""
    found: Trainings = []

    def attempt(prepared: Preparation, master: str | None, report: RunReport, lease: Lease) -> None:
        prepared = cluster_run.commit(prepared, report)
        found.append(prepared)
        config, data, begin = prepared.config, prepared.data, prepared.start
        steps = data.total_steps
        read = [begin.positions[0] + (steps - begin.step) * config.batch_size]
        assignment = cluster_run.assignment_to(prepared, normalization_of(config), None, lock_token=lease.token)
        meta = to_json(assignment.meta)
        meta |= {"input_position": {"records_read": read, "order": meta["order"]}, "metrics": {}}
        path = checkpoints.publish(prepared.run, steps, {"model/x": np.full(1, steps)}, meta)
        report.on_message(messages.CheckpointPublished(steps, path))
        report.on_message(messages.Finished(step=steps, interrupted=False, seconds=1.0, images=1, records_read=read))

    monkeypatch.setattr(cluster_run, "run", attempt)
    return found


def run(dataset_dir: Path, train_dir: Path, *flags: object, master: str = "local[2]") -> dict[str, Any]:
    words = ("--dataset_dir", dataset_dir, "--train_dir", train_dir, *SMALL, *flags)
    return train.train(parse_config("train", [str(word) for word in words]), master)


def steps_of(train_dir: Path) -> list[str]:
    return sorted(path.name for path in (train_dir / "checkpoints").iterdir())


def test_a_finished_run_is_left_as_it_is_and_a_longer_one_goes_on(
    small_dataset: Path, tmp_path: Path, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(small_dataset, tmp_path, "--max_number_of_steps", 7)
    report = (tmp_path / "report.json").read_bytes()
    with caplog.at_level("INFO"):
        assert run(small_dataset, tmp_path, "--max_number_of_steps", 7)["step"] == first["step"] == 7
    assert f"{tmp_path} is finished: step 7 of 7. Nothing to do" in caplog.text
    assert (tmp_path / "report.json").read_bytes() == report
    assert len(trainings) == 1
    run(small_dataset, tmp_path, "--max_number_of_steps", 9)
    assert (trainings[1].start.step, trainings[1].start.positions) == (7, (7 * 32,))
    assert steps_of(tmp_path) == ["step-00000007", "step-00000009"]


def test_a_run_whose_report_was_lost_is_finished_without_a_cluster(
    small_dataset: Path, tmp_path: Path, trainings: Trainings
) -> None:
    run(small_dataset, tmp_path, "--max_number_of_steps", 3)
    (tmp_path / "report.json").unlink()
    report = run(small_dataset, tmp_path, "--max_number_of_steps", 3)
    assert (report["state"], report["step"], len(trainings)) == ("finished", 3, 1)


def test_a_run_from_another_runs_checkpoint_has_a_copy_of_its_own(
    small_dataset: Path, tmp_path: Path, trainings: Trainings
) -> None:
    run(small_dataset, tmp_path / "first", "--max_number_of_steps", 2)
    origin = tmp_path / "first" / "checkpoints" / "step-00000002"
    again = ("--restore", origin, "--max_number_of_steps", 4)
    run(small_dataset, tmp_path / "second", *again)
    start = trainings[-1].start
    assert start.checkpoint is not None
    assert (start.step, start.checkpoint.path) == (2, RunLayout(str(tmp_path / "second")).checkpoint(2))
    assert steps_of(tmp_path / "second") == ["step-00000002", "step-00000004"]
    shutil.rmtree(tmp_path / "first")
    # The same command once more is a resumption like any other.
    assert run(small_dataset, tmp_path / "second", *again)["step"] == 4
    assert len(trainings) == 2
    # Also after a resumption by another command, which does not name the origin.
    run(small_dataset, tmp_path / "second", "--max_number_of_steps", 6)
    assert run(small_dataset, tmp_path / "second", "--restore", origin, "--max_number_of_steps", 6)["step"] == 6
    assert len(trainings) == 3


def test_a_run_goes_on_with_what_it_was_committed_to(
    small_dataset: Path, tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt has ended before its first checkpoint: the run's last one is of other data and dropout."""
    whole = cluster_run.run

    def die(prepared: Preparation, master: str | None, report: RunReport, lease: Lease) -> None:
        cluster_run.commit(prepared, report)
        raise NodeDiedError("killed")

    run(small_dataset, tmp_path, "--max_number_of_steps", 2)
    changed = ("--dataset_split_name", "test", "--keep_prob", 0.5, "--change_settings", "--max_number_of_steps", 4)
    monkeypatch.setattr(cluster_run, "run", die)
    with pytest.raises(NodeDiedError):
        run(small_dataset, tmp_path, *changed)
    monkeypatch.setattr(cluster_run, "run", whole)
    assert train.train(parse_config("train", ["--train_dir", str(tmp_path)]), "local[2]")["step"] == 4
    assert (trainings[-1].config.dataset_split_name, trainings[-1].config.keep_prob) == ("test", 0.5)


def test_a_run_is_finished_when_its_last_step_is_evaluated(
    small_dataset: Path, tmp_path: Path, trainings: Trainings
) -> None:
    flags = ("--validation_split_name", "test", "--max_number_of_steps", 3)
    for _ in range(2):  # the attempts here evaluate nothing
        run(small_dataset, tmp_path, *flags)
    assert len(trainings) == 2
    storage.make_dirs(RunLayout(str(tmp_path)).evaluation_dir)
    storage.write_json(RunLayout(str(tmp_path)).evaluation(3, "test"), {})
    run(small_dataset, tmp_path, *flags)
    assert len(trainings) == 2


def test_a_resumed_run_has_the_statistics_of_its_checkpoint(
    small_dataset: Path, tmp_path: Path, trainings: Trainings
) -> None:
    zca = ("--normalization", "zca", "--whitening_epsilon", 0.05)
    run(small_dataset, tmp_path, *zca, "--max_number_of_steps", 2)
    run(small_dataset, tmp_path, *zca, "--max_number_of_steps", 4)
    # No Spark job for them, nor a file: the context is not even looked at.
    found, path = cluster_run._normalization(None, trainings[1], None, None)  # type: ignore[arg-type]
    assert (found.kind, found.epsilon, path) == ("zca", 0.05, None)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        # One of each place that refuses; tests/unit/test_start.py and test_training_data.py have all of them.
        (("--learning_rate", 1), "learning_rate 0.0002 → 1"),
        (("--random_zoom", 0.1, "--max_number_of_steps", 2), "random_zoom 0 → 0.1"),  # with nothing left to do, too
        (("--change_settings", "--image_size", 24), "images 16 × 16 × 1"),
        # Settings that cannot work do not cost the run that is there.
        (("--overwrite", "--num_executors", 12), "cannot be divided among 11 workers"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_and_changes_nothing(
    small_dataset: Path, tmp_path: Path, trainings: Trainings, flags: tuple[object, ...], words: str
) -> None:
    run(small_dataset, tmp_path, "--max_number_of_steps", 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match=words) as caught:
        run(small_dataset, tmp_path, "--max_number_of_steps", 4, *flags, master="local[12]")
    assert caught.value.exit_code == 78
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(trainings) == 1


def test_a_run_goes_on_with_its_own_settings_and_keeps_those_of_each_attempt(
    small_dataset: Path, tmp_path: Path, trainings: Trainings, caplog: pytest.LogCaptureFixture
) -> None:
    run(small_dataset, tmp_path, "--max_number_of_steps", 2, "--learning_rate", 4e-3, "--random_zoom", 0.1)
    with caplog.at_level("INFO"):
        train.train(parse_config("train", ["--train_dir", str(tmp_path), "--epoch", "2"]), "local[2]")
    assert (
        f"Resuming {tmp_path} at step 2 of {trainings[1].data.total_steps}: chinese_rec on {small_dataset}"
        in caplog.text
    )
    assert "batch 32, learning rate 0.004 exponential, with the run's own settings but " in caplog.text
    assert "epoch none → 2, max_number_of_steps 2 → none" in caplog.text
    recipe = (trainings[1].config.batch_size, trainings[1].config.learning_rate, trainings[1].config.random_zoom)
    assert recipe == (32, 4e-3, 0.1)

    wanted = ["--train_dir", str(tmp_path), "--epoch", "3", "--batch_size", "16", "--change_settings"]
    report = train.train(parse_config("train", wanted), "local[2]")
    assert report["attempts"][2]["changes"] == ["epoch 2 → 3", "batch_size 32 → 16"]
    kept = [json.loads(Path(attempt["settings"]).read_text())["settings"] for attempt in report["attempts"]]
    assert [(each["batch_size"], each["learning_rate"]) for each in kept] == [(32, 4e-3), (32, 4e-3), (16, 4e-3)]
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 16


def test_a_dataset_that_has_moved_is_the_same_one(small_dataset: Path, tmp_path: Path, trainings: Trainings) -> None:
    run(small_dataset, tmp_path / "run", "--max_number_of_steps", 2)
    shutil.copytree(small_dataset, tmp_path / "moved")
    run(tmp_path / "moved", tmp_path / "run", "--max_number_of_steps", 4)
    assert (trainings[1].start.step, trainings[1].start.positions) == (2, (2 * 32,))


def test_what_overwrites_a_run_leaves_it_alone_until_nothing_can_be_refused(
    small_dataset: Path, tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(small_dataset, tmp_path, "--max_number_of_steps", 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    whole = cluster_run.run

    def fail(*_: Any) -> None:
        raise JobError("no slots", place="the queue")

    monkeypatch.setattr(cluster_run, "run", fail)  # as Spark's start and the preflight do
    with pytest.raises(JobError, match="no slots"):
        run(small_dataset, tmp_path, "--max_number_of_steps", 4, "--overwrite")
    weights = tmp_path / "checkpoints" / "step-00000002"
    with pytest.raises(SettingsError, match="is in the folder that --overwrite clears"):
        run(small_dataset, tmp_path, "--overwrite", "--checkpoint_path", weights)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    monkeypatch.setattr(cluster_run, "run", whole)
    report = run(small_dataset, tmp_path, "--max_number_of_steps", 4, "--overwrite", "--batch_size", 16)
    assert [attempt["start_step"] for attempt in report["attempts"]] == [0]
    assert steps_of(tmp_path) == ["step-00000004"]
    assert sorted(path.name for path in (tmp_path / "attempts").iterdir()) == ["001.json"]


def test_what_cannot_begin_is_refused(small_dataset: Path, tmp_path: Path, trainings: Trainings) -> None:
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
    assert len(trainings) == 1


def test_two_at_once_exclude_each_other(small_dataset: Path, tmp_path: Path, trainings: Trainings) -> None:
    with (
        Lease(RunLayout(str(tmp_path)).lock, "another job"),
        pytest.raises(BusyError, match="held by another job") as caught,
    ):
        run(small_dataset, tmp_path)
    assert caught.value.exit_code == 75
    assert trainings == []


@pytest.mark.parametrize("has_another_begun", [False, True])
def test_the_loss_of_the_lock_is_in_the_report_unless_another_job_has_begun(
    small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_another_begun: bool
) -> None:
    layout = RunLayout(str(tmp_path))

    def lose(prepared: Preparation, master: str | None, report: RunReport, lease: Lease) -> None:
        Path(layout.lock).unlink()
        if has_another_begun:
            other = RunReport(layout, storage.read_json(layout.report), {})
            other.begin(number=2, start_step=0, checkpoint=None, records=None)
        lease.check()

    monkeypatch.setattr(cluster_run, "run", lose)
    with pytest.raises(BusyError, match="tfos-job train lost its lock: it was removed"):
        run(small_dataset, tmp_path, "--max_number_of_steps", 2)
    report = storage.read_json(layout.report)
    assert [a.get("state") for a in report["attempts"]] == (["abandoned", None] if has_another_begun else ["failed"])
    assert (report["state"], report["exit_code"]) == (("running", None) if has_another_begun else ("failed", 75))


def test_what_ends_an_attempt_is_in_the_report_and_the_next_one_goes_on(
    small_dataset: Path, tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cluster_run.run

    def fail(*_: Any) -> None:
        raise JobError("it broke", place="there")

    monkeypatch.setattr(cluster_run, "run", fail)
    with pytest.raises(JobError, match="it broke"):
        run(small_dataset, tmp_path, "--max_number_of_steps", 2)
    report = storage.read_json(RunLayout(str(tmp_path)).report)
    assert (report["state"], report["exit_code"], report["first_cause"]["place"]) == ("failed", 70, "there")
    assert not Path(RunLayout(str(tmp_path)).lock).exists()
    monkeypatch.setattr(cluster_run, "run", whole)
    attempts = run(small_dataset, tmp_path, "--max_number_of_steps", 2)["attempts"]
    assert [(a["number"], a["state"]) for a in attempts] == [(1, "failed"), (2, "finished")]
