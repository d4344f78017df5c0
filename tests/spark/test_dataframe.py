"""Splits from DataFrames, on a real Spark."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pyspark.sql import SparkSession

from tfos_job import ConvertConfig, convert, convert_dataframe
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.layout import DatasetLayout

SPEC = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/class/text": tf.io.FixedLenFeature([], tf.string),
}


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (5 + number % 7, 6), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def glyphs(dataset_dir: Path, split: str = "train") -> Counter[tuple[str, int, bytes]]:
    found: Counter[tuple[str, int, bytes]] = Counter()
    for data in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{dataset_dir}/{split}/gen-*/part-*.tfrecord")):
        example = {key: value.numpy() for key, value in tf.io.parse_single_example(data, SPEC).items()}
        found[example["image/class/text"].decode(), int(example["image/height"]), example["image/encoded"]] += 1
    return found


def rows(count: int = 40, characters: str = "啊阿!") -> list[tuple[str, int]]:
    return [(characters[number % len(characters)], number) for number in range(count)]


def test_every_row_becomes_a_record(spark: SparkSession, tmp_path: Path) -> None:
    """Twice: as PNG files, and as grey bytes with their sides. Both give the same records."""
    expected = Counter((c, len(pixels_of(n)), pixels_of(n).tobytes()) for c, n in rows() if c != "!")
    files = spark.createDataFrame([(c, png(pixels_of(n))) for c, n in rows()], "character string, image binary")
    manifest = convert_dataframe(files, dataset_dir=str(tmp_path / "data"), charset="啊阿", num_shards=5)
    assert glyphs(tmp_path / "data") == expected
    assert manifest == manifests.load(DatasetLayout(str(tmp_path / "data")).split("train"))
    assert (manifest.num_records, len(manifest.shards), manifest.class_counts) == (27, 5, (14, 13))
    grey = spark.createDataFrame(
        [(c, pixels_of(n).tobytes(), *pixels_of(n).shape) for c, n in rows()],
        "character string, image binary, height int, width int",
    )
    convert_dataframe(grey, dataset_dir=str(tmp_path / "data"), dataset_split_name="more")
    assert glyphs(tmp_path / "data", "more") == expected
    assert sorted(entry.name for entry in (tmp_path / "data" / "more").iterdir()) == ["gen-00000", "manifest.json"]


def test_a_split_is_replaced_only_where_that_is_asked(spark: SparkSession, tmp_path: Path) -> None:
    def write(count: int, **changes: Any) -> manifests.Manifest:
        values = [(c, png(pixels_of(n))) for c, n in rows(count, "啊阿")]
        frame = spark.createDataFrame(values, "character string, image binary")
        return convert_dataframe(frame, dataset_dir=str(tmp_path / "data"), **changes)

    write(10, charset="auto")
    with pytest.raises(SettingsError, match="it is there"):
        write(12)
    assert write(12, overwrite=True).num_records == glyphs(tmp_path / "data").total() == 12
    (tmp_path / "gnt").mkdir()
    (tmp_path / "gnt" / "1.gnt").write_bytes(b"")
    with pytest.raises(SettingsError, match="made from a DataFrame"):
        convert(spark, ConvertConfig(gnt_dir=str(tmp_path / "gnt"), dataset_dir=str(tmp_path / "data")))
    with pytest.raises(SettingsError, match="the dataset has 2 classes"):
        write(3, charset="啊", dataset_split_name="other")


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        (("啊", b"not a picture"), "partition 0, row 1: not an image that Pillow reads"),
        (("啊", None), "partition 0, row 1: has no image"),
        (("", b""), "partition 0, row 1: expected a label as text or a whole number of 0 or more, found ''"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_published(
    spark: SparkSession, tmp_path: Path, row: tuple[str, bytes | None], fact: str
) -> None:
    frame = spark.createDataFrame([("啊", png(pixels_of(1))), row], "character string, image binary").coalesce(1)
    with pytest.raises(BadDataError, match=fact):
        convert_dataframe(frame, dataset_dir=str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []
    with pytest.raises(SettingsError, match="it has the columns character, picture"):
        convert_dataframe(frame.withColumnRenamed("image", "picture"), dataset_dir=str(tmp_path / "data"))


def test_transparent_paper_is_white_and_sixteen_bits_are_scaled(spark: SparkSession, tmp_path: Path) -> None:
    ink = np.zeros((4, 5, 4), np.uint8)  # black everywhere, and nearly everywhere transparent
    ink[1, 2, 3] = 255
    deep = np.full((4, 5), 0x8000, np.uint16)
    frame = spark.createDataFrame([("啊", png(ink)), ("阿", png(deep))], "character string, image binary")
    convert_dataframe(frame, dataset_dir=str(tmp_path / "data"), charset="啊阿", num_shards=1)
    found = {character: np.frombuffer(data, np.uint8) for character, _, data in glyphs(tmp_path / "data")}
    assert found["啊"].tolist() == [255] * 7 + [0] + [255] * 12
    assert found["阿"].tolist() == [128] * 20
    for wrong in ({"image_format": "PNG"}, {"dataset_split_name": "../x"}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            convert_dataframe(frame, dataset_dir=str(tmp_path / "other"), **wrong)


def test_rows_of_pictures_and_arrays_of_named_classes(spark: SparkSession, tmp_path: Path) -> None:
    """As files, as nested numbers and as flat colours: the same pictures; numbers are ids of the dataset's classes."""
    coloured = np.random.default_rng(5).integers(0, 256, (30, 4, 6, 3), np.uint8)
    names = ["a dog", "cat"]
    files = [(names[n % 2], png(pixels)) for n, pixels in enumerate(coloured)]
    numbers = [(1 - n % 2, pixels.tolist()) for n, pixels in enumerate(coloured)]
    flat = [(n % 2, pixels.tobytes(), 4, 6) for n, pixels in enumerate(coloured)]
    frames = {
        "files": spark.createDataFrame(files, "label string, image binary"),
        "numbers": spark.createDataFrame(numbers, "label int, image array<array<array<int>>>"),
        "flat": spark.createDataFrame(flat, "label long, image binary, height int, width int"),
    }
    for split, frame in frames.items():
        made = convert_dataframe(
            frame,
            dataset_dir=str(tmp_path),
            dataset_split_name=split,
            dataset_name="images",
            charset=["cat", "a dog"] if split == "files" else None,
            num_channels=3,
            num_shards=3,
        )
        assert (made.num_records, made.class_counts, made.dataset_name) == (30, (15, 15), "images")
    spec = {**SPEC, "image/class/label": tf.io.FixedLenFeature([], tf.int64)}
    found = {}
    for split in frames:
        data = tf.data.TFRecordDataset(tf.io.gfile.glob(f"{tmp_path}/{split}/gen-*/part-*.tfrecord"))
        examples = [tf.io.parse_single_example(record, spec) for record in data]
        found[split] = sorted(
            (int(example["image/class/label"]), tf.io.decode_png(example["image/encoded"]).numpy().tobytes())
            for example in examples
        )
    ids = {"files": lambda n: 1 - n % 2, "numbers": lambda n: 1 - n % 2, "flat": lambda n: n % 2}
    for split, id_of in ids.items():
        assert found[split] == sorted((id_of(n), pixels.tobytes()) for n, pixels in enumerate(coloured))
    bad = spark.createDataFrame([(0, [[0, 256]])], "label int, image array<array<int>>")
    with pytest.raises(
        BadDataError, match="partition 0, row 0: expected whole numbers from 0 to 255, found int64 from"
    ):
        convert_dataframe(bad.coalesce(1), dataset_dir=str(tmp_path / "bad"), dataset_name="images")
