"""The dataset in the folder of a run that is fed, up to the start of the training: whose it is, and what is removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfos_job import FeedConfig, convert_arrays, train_arrays
from tfos_job.config import TrainConfig, to_dict
from tfos_job.errors import BusyError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.run import fed_dataset

IMAGES = np.zeros((6, 4, 4), np.uint8)
LABELS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    """A run with two splits that were fed."""
    made = RunLayout(str(tmp_path / "run"))
    for split in ("train", "test"):
        convert_arrays(IMAGES, LABELS, dataset_dir=made.fed_dataset, dataset_split_name=split, num_shards=2)
    return made


def disown(run: RunLayout, split: str) -> None:
    """Makes a split one that another command has written."""
    path = Path(run.fed_dataset, split, "manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"gnt_dir": "gnt"}}))


def files(run: RunLayout) -> list[str]:
    root = Path(run.root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class Asked(Exception):
    """An image is wanted."""


def asked() -> Iterator[Any]:
    raise Asked
    yield


def feed(run: RunLayout, **settings: Any) -> dict[str, Any]:
    config = FeedConfig(**{"train_dir": run.root, "epoch": 2, "batch_size": 3} | settings)
    return train_arrays(asked(), asked(), config, class_names=["0", "1"])


def test_a_fed_dataset_is_removed_as_a_whole(run: RunLayout) -> None:
    Path(run.fed_dataset, "statistics-train-4-mean-1.npz").write_bytes(b"")
    fed_dataset.remove(run, ["train", "test"])
    assert list(Path(run.root).iterdir()) == []
    fed_dataset.remove(run, ["train", "test"])


def test_nothing_else_is_removed_with_it(run: RunLayout) -> None:
    convert_arrays(IMAGES, LABELS, dataset_dir=run.fed_dataset, dataset_split_name="more", num_shards=1)
    Path(run.fed_dataset, "train", "drawing.png").write_bytes(b"1")
    Path(run.fed_dataset, "train", "gen-2").mkdir()
    Path(run.fed_dataset, "train", "gen-2", "b.png").write_bytes(b"1")
    fed_dataset.remove(run, ["train", "test"])
    own = ("charset.json", "more/gen-00000/part-00000-of-00001.tfrecord", "more/manifest.json")
    assert files(run) == [f"dataset/{name}" for name in (*own, "train/drawing.png", "train/gen-2/b.png")]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_dataset_of_others_is_neither_trained_on_nor_removed(run: RunLayout, overwrite: bool) -> None:
    disown(run, "train")
    before = files(run)
    with pytest.raises(SettingsError, match="it was made from a DataFrame, and the images that are given would go"):
        feed(run, overwrite=overwrite)
    with pytest.raises(SettingsError):
        fed_dataset.remove(run, ["test", "train"])
    assert files(run) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_replaced_while_a_training_reads_it(run: RunLayout, overwrite: bool) -> None:
    before = files(run)
    with Lease(run.lock, "another"), pytest.raises(BusyError, match="held by another"):
        feed(run, overwrite=overwrite)
    assert files(run) == before


def test_overwrite_takes_other_classes(run: RunLayout) -> None:
    """The old ones go with the old images."""
    fed_dataset.remove(run, ["test"])
    with pytest.raises(Asked):
        feed(run, overwrite=True)
    assert not Path(run.fed_dataset, "charset.json").exists()


def test_a_finished_run_asks_for_images_only_where_more_steps_are_wanted(run: RunLayout) -> None:
    fed_dataset.remove(run, ["train", "test"])
    report = {"state": "finished", "step": 4, "num_records": 6}
    Path(run.report).write_text(json.dumps(report))
    settings = to_dict(TrainConfig(dataset_dir=run.fed_dataset, train_dir=run.root, epoch=2, batch_size=3))
    Path(run.config).write_text(json.dumps(settings))
    assert feed(run) == report
    with pytest.raises(Asked):
        feed(run, epoch=3)


def test_what_does_not_go_with_the_run_is_told_before_an_image_is_read(run: RunLayout) -> None:
    fed_dataset.remove(run, ["train", "test"])
    Path(run.checkpoint(2)).mkdir(parents=True)
    settings = to_dict(TrainConfig(dataset_dir=run.fed_dataset, train_dir=run.root, epoch=2, batch_size=3))
    Path(run.config).write_text(json.dumps(settings))
    with pytest.raises(SettingsError, match="batch_size"):
        feed(run, batch_size=6)
    with pytest.raises(Asked):
        feed(run)
