"""Splits from numpy arrays, and training that is fed with them, up to its start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.conftest import png_bytes
from tfos_job import FeedConfig, convert_arrays, train_arrays
from tfos_job.errors import BadDataError, JobError, SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.decoder import Decoder
from tfos_job.formats.form import Form
from tfos_job.input.decoder_process import training_view
from tfos_job.input.decoding import decode
from tfos_job.layout import DatasetLayout
from tfos_job.verification.shard_proof import verify_shard
from tfos_job.verification.task_plan import shard_tasks

SIDE = 6


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """TensorFlow is here already: no process of its own decodes files. Notes the calls that would end it."""
    calls: list[str] = []
    monkeypatch.setattr(Decoder, "digest", lambda _, data, image_format: training_view(data, image_format))
    monkeypatch.setattr(Decoder, "close", lambda _: calls.append("close"))
    return calls


def images(count: int, channels: int = 1) -> np.ndarray:
    shape = (count, SIDE, SIDE) if channels == 1 else (count, SIDE, SIDE, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def stored(dataset_dir: Path, split: str = "train", channels: int = 1) -> Counter[tuple[int, bytes]]:
    """Class id and pixels of each record, as training decodes them."""
    form = Form(image_size=SIDE, num_channels=channels, antialias=False)
    found: Counter[tuple[int, bytes]] = Counter()
    for data in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{dataset_dir}/{split}/gen-*/part-*.tfrecord")):
        pixels, labels = decode(data[tf.newaxis], form)
        found[int(labels[0]), pixels.numpy().tobytes()] += 1
    return found


def expected(arrays: np.ndarray, class_ids: Any) -> Counter[tuple[int, bytes]]:
    return Counter((int(label), array.tobytes()) for label, array in zip(class_ids, arrays, strict=True))


def found_by_verify(dataset_dir: Path) -> dict[str, int]:
    """The findings of `verify` in the shards of a split, by kind."""
    dataset = DatasetLayout(str(dataset_dir))
    split = {"train": manifests.load(dataset.split("train"))}
    found: Counter[str] = Counter()
    for task in shard_tasks(dataset, split, manifests.load_charset(dataset)):
        found += verify_shard(task).report.findings.counts
    return dict(found)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_array_becomes_one_record(tmp_path: Path, channels: int) -> None:
    arrays, labels = images(50, channels), np.arange(50) % 3
    made = convert_arrays(arrays, labels, dataset_dir=str(tmp_path), num_shards=4)
    assert stored(tmp_path, channels=channels) == expected(arrays, labels)
    assert (made.num_records, made.num_channels, made.class_counts) == (50, channels, (17, 17, 16))
    assert [shard.num_records for shard in made.shards] == [13, 13, 12, 12]  # dealt: all classes in each
    assert manifests.load_charset(DatasetLayout(str(tmp_path))).characters == ("0", "1", "2")
    assert found_by_verify(tmp_path) == {}


def test_an_iterable_is_gone_through_once_and_not_gathered(tmp_path: Path) -> None:
    arrays = images(40)
    alive: list[int] = []

    def one_by_one() -> Iterator[np.ndarray]:
        for number, array in enumerate(arrays):
            alive.append(number)
            yield array.copy()

    names = ("dog", "cat")
    labels = (names[number % 2] for number in range(40))
    convert_arrays(one_by_one(), labels, dataset_dir=str(tmp_path), class_names=["cat", "dog"])
    assert alive == list(range(40))
    assert stored(tmp_path) == expected(arrays, [1 - number % 2 for number in range(40)])
    with pytest.raises(SettingsError, match="labels: can be gone through only once"):
        convert_arrays(arrays, iter("ab"), dataset_dir=str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_other_splits_have_the_datasets_classes_and_numbers_are_places_in_them(tmp_path: Path) -> None:
    arrays = images(4)
    convert_arrays(arrays, ["b", "a", "b", "c"], dataset_dir=str(tmp_path))
    convert_arrays(arrays, [2, 0, 0, 1], dataset_dir=str(tmp_path), dataset_split_name="test")
    assert stored(tmp_path) == expected(arrays, [1, 0, 1, 2])
    assert stored(tmp_path, "test") == expected(arrays, [2, 0, 0, 1])
    with pytest.raises(SettingsError, match="it is there"):
        convert_arrays(arrays, [0] * 4, dataset_dir=str(tmp_path))
    with pytest.raises(SettingsError, match="num_shards: 0 is less than 1"):
        convert_arrays(arrays, [0] * 4, dataset_dir=str(tmp_path), dataset_split_name="more", num_shards=0)
    with pytest.raises(BadDataError, match="image 1: label 3 is none of the 3 classes"):
        convert_arrays(arrays, [2, 3, 0, 0], dataset_dir=str(tmp_path), dataset_split_name="more")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["charset.json", "test", "train"]


def test_picture_files_and_glyphs(tmp_path: Path, closed: list[str]) -> None:
    arrays = images(3)

    files = [png_bytes(array) for array in arrays]
    made = convert_arrays(files, "啊阿啊", dataset_dir=str(tmp_path / "glyphs"), dataset_name="gnt", num_shards=1)
    assert (made.dataset_name, made.image_format) == ("gnt", "raw")
    assert stored(tmp_path / "glyphs") == expected(arrays, [0, 1, 0])
    assert found_by_verify(tmp_path / "glyphs") == {}
    convert_arrays(files, "aba", dataset_dir=str(tmp_path / "files"), num_shards=1)
    assert found_by_verify(tmp_path / "files") == {}
    assert closed == ["close", "close"]
    with pytest.raises(BadDataError, match="image 0: expected one character, found 'ab'"):
        convert_arrays(arrays[:1], ["ab"], dataset_dir=str(tmp_path / "more"), dataset_name="gnt", class_names=["a"])


@pytest.mark.parametrize(
    ("arrays", "labels", "fact"),
    [
        ([], [], "there are no images"),
        (images(2), [0], "there are 1 labels and more of the other"),
        (images(1), [0, 1], "there are 1 images and more of the other"),
        (images(2) / 255, [0, 1], r"image 0: expected whole numbers from 0 to 255, found float64 from"),
        ([images(1)[0], np.zeros((2, 2, 4), np.uint8)], [0, 1], r"image 1: expected an image of .*, found \[2, 2, 4\]"),
        ([np.full((2, 2), 256)], [0], "image 0: expected whole numbers from 0 to 255, found int64 from 256 to 256"),
        ([[[1, 2], [3]]], [0], "image 0: not an image: "),
        ([None], [0], "image 0: has no image"),
        ([b"no picture"], [0], "image 0: cannot be read: not a PNG, JPEG or GIF"),
        (images(2), [0, -1], "labels: expected a label as text or a whole number of 0 or more, found -1"),
        (images(2), ["a", 1], "labels: some labels are text and some are numbers"),
        (images(2), [0, 1 << 20], "labels: the largest label is 1048576"),
        (images(2), np.zeros((2, 1), int), "labels: one of them is no text and no whole number: .* labels.ravel"),
        (images(2), [True, False], "expected a label as text or a whole number of 0 or more, found"),
    ],
)
def test_what_is_no_image_or_no_label_is_named_and_nothing_is_left(
    tmp_path: Path, arrays: Any, labels: Any, fact: str
) -> None:
    with pytest.raises(BadDataError, match=fact):
        convert_arrays(arrays, labels, dataset_dir=str(tmp_path / "data"))
    assert not (tmp_path / "data").exists() or list((tmp_path / "data").iterdir()) == []


def test_what_cannot_be_fed_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    def fed(config: dict[str, Any], **more: Any) -> None:
        settings = {"train_dir": str(tmp_path / "run"), "epoch": 1} | config
        train_arrays(images(4), [0, 1, 0, 1], FeedConfig(**settings), **more)

    for config, more, fact in (
        ({"dataset_dir": "elsewhere"}, {}, "dataset_dir elsewhere: given, and the images go into"),
        ({"validation_split_name": "test"}, {}, "one of `validation` and `validation_split_name` is not given"),
        ({}, {"validation": (images(1), [0])}, "one of `validation` and `validation_split_name` is not given"),
        ({"num_executors": 5}, {"master": "local[2]"}, "local"),
        ({"validation_split_name": "train"}, {"validation": (images(1), [0])}, "it is the training split's, too"),
        ({"dry_run": True}, {}, "--dry_run: given for images that have to be converted first"),
    ):
        with pytest.raises(JobError, match=fact):
            fed(config, **more)
    assert not (tmp_path / "run").exists()
