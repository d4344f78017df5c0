"""Training on what a Python program holds: the programs of examples/, and what their runs leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import example, run
from tfos_job import FeedConfig, train_arrays

pytestmark = pytest.mark.cluster


def report_of(train_dir: Path) -> dict[str, Any]:
    return dict(json.loads((train_dir / "report.json").read_text()))


def never() -> Iterator[Any]:
    raise AssertionError("a run that has its images does not ask for them")
    yield


def again(train_dir: Path) -> dict[str, Any]:
    """The report of a run that is asked for again, with its own settings."""
    config = FeedConfig(**json.loads((train_dir / "config.json").read_text()) | {"dataset_dir": ""})
    return train_arrays(never(), never(), config, validation=(never(), never()), class_names=["bar"])


def test_arrays_are_learned_and_their_copy_is_removed(tmp_path: Path) -> None:
    (said,) = example("train_arrays.py", tmp_path, folder=tmp_path, num_images=3 * 600)
    assert said.startswith("finished after 57 steps: top-1 ")
    report = report_of(tmp_path / "run")
    assert report["metrics"]["top_1"] > 0.9
    assert (report["num_records"], report["records_read"]) == (600, [57 * 32])
    assert not (tmp_path / "run" / "dataset").exists()
    # Once more: the run is finished, and no image is made.
    assert again(tmp_path / "run") == report
    assert run("train", "--train_dir", tmp_path / "run").result()["state"] == "finished"


def test_rows_are_learned_and_a_run_that_has_them_asks_for_none(tmp_path: Path) -> None:
    trained, predicted = example("train_dataframe.py", tmp_path, folder=tmp_path, num_images=3 * 300)
    assert trained.startswith("finished after 30 steps: top-1 ")
    assert predicted.partition(": ")[2].startswith("red, ")
    train_dir = tmp_path / "run"
    report = report_of(train_dir)
    assert (report["num_records"], report["metrics"]["num_examples"]) == (300, 90)
    # The run as a function of a column, and nothing of TensorFlow in Spark's workers.
    pictures = tmp_path / "test"
    (pictures / "green" / "torn.png").write_bytes((pictures / "green" / "301.png").read_bytes()[:-20])
    *told, errors = example("predict_dataframe.py", train_dir, pictures, folder=tmp_path)
    counts = {words[0]: list(map(int, words[1:])) for words in map(str.split, told)}
    assert {name: num_pictures for name, (num_pictures, _) in counts.items()} == {"blue": 30, "green": 31, "red": 30}
    assert sum(num_right for _, num_right in counts.values()) / 90 == pytest.approx(report["metrics"]["top_1"])
    assert errors.startswith("torn.png: not a readable PNG")
    # The commands work on what is kept, and know the run.
    planned = run("train", "--train_dir", train_dir, "--epoch", 5, "--dry_run").result()
    assert planned["total_steps"] == 50
    # A call that finds the rows in the run reads none; the run is finished, and the rows are no longer kept.
    assert again(train_dir) == report
    assert not (train_dir / "dataset").exists()
