"""A run with statistics of its training split: made once, in every checkpoint, the same wherever pixels are seen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.command import SMALL, StartCommand, run
from tfos_job.layout import RunLayout
from tfos_job.model import checkpoints

pytestmark = pytest.mark.cluster

AUGMENTED = ("--random_rotation", 10, "--elastic_distortion", 0.02, "--stroke_width", 1, "--random_contrast")


def test_statistics_are_made_once_and_travel_with_the_checkpoints(
    small_dataset: Path, tmp_path: Path, start: StartCommand
) -> None:
    train_dir = tmp_path / "run"
    flags = ("--dataset_dir", small_dataset, "--train_dir", train_dir, *SMALL, "--validation_split_name", "test")
    zca = ("--normalization", "zca", "--whitening_epsilon", 0.05)
    run("train", *flags, *zca, *AUGMENTED, "--max_number_of_steps", 6)
    (statistics,) = small_dataset.glob("statistics-train-16-whitening-*.npz")
    assert not (train_dir / "_scratch").exists()

    info = checkpoints.latest(RunLayout(str(train_dir)))
    assert info is not None
    arrays = checkpoints.load(info)
    assert arrays["normalization/matrix"].shape == (256, 256)
    assert (info.normalization["kind"], info.normalization["epsilon"]) == ("zca", 0.05)
    assert re.fullmatch("[0-9a-f]{64}", info.normalization["digest"])

    # Evaluation in training, by workers, and afterwards from the checkpoint alone count the same.
    statistics.unlink()
    report = json.loads((train_dir / "report.json").read_text())
    evaluation = run("evaluate", "--dataset_dir", small_dataset, "--train_dir", train_dir).result()
    assert evaluation["loss"] == pytest.approx(report["metrics"]["loss"], rel=1e-4)
    assert evaluation["top_1"] == pytest.approx(report["metrics"]["top_1"])

    # It goes on with what it has, and with nothing else.
    other = start("train", *map(str, flags), "--normalization", "pca", "--max_number_of_steps", "9")
    assert other.wait() == 78
    assert "normalization zca with epsilon 0.05" in other.stderr
    assert "normalization pca with epsilon 0.01" in other.stderr
    run("train", *flags, *zca, *AUGMENTED, "--max_number_of_steps", 9)
    assert not statistics.exists()
    again = checkpoints.latest(RunLayout(str(train_dir)))
    assert again is not None
    assert (again.step, again.normalization) == (9, info.normalization)
    np.testing.assert_array_equal(checkpoints.load(again)["normalization/matrix"], arrays["normalization/matrix"])
