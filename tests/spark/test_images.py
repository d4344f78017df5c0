"""Splits from folders of images, and of TFRecords that TF-Slim has made of images, on a real Spark."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pyspark.sql import SparkSession

from tests.no_spark import NoSpark
from tests.unit import slim_records
from tfos_job.config import ConvertConfig, TrainConfig, VerifyConfig
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError
from tfos_job.formats import gnt
from tfos_job.formats import manifest as manifests
from tfos_job.formats.form import Form
from tfos_job.formats.manifest import Manifest
from tfos_job.input.pipeline import evaluation_dataset
from tfos_job.jobs.adopt import adopt
from tfos_job.jobs.convert import convert
from tfos_job.jobs.convert_images import ConvertedImages, convert_images
from tfos_job.jobs.verify import verify
from tfos_job.layout import DatasetLayout
from tfos_job.reports import sample
from tfos_job.run import preparation

CLASSES = ("cat", "dog", "甲虫")
SPEC = {
    name: tf.io.FixedLenFeature([], kind)
    for name, kind in {
        "image/class/label": tf.int64,
        "image/class/text": tf.string,
        "image/encoded": tf.string,
        "image/format": tf.string,
        "image/height": tf.int64,
        "image/width": tf.int64,
        "source/file": tf.string,
        "source/offset": tf.int64,
    }.items()
}
SUFFIXES = {"PNG": ".png", "JPEG": ".JPG", "GIF": ".gif"}


def picture(number: int, image_format: str) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (5 + number % 7, 6, 3), np.uint8)
    image = Image.fromarray(pixels).resize((20 + number % 5, 17), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    (image.quantize(40) if image_format == "GIF" else image).save(stream, image_format)
    return stream.getvalue()


@pytest.fixture
def image_dir(tmp_path: Path) -> Path:
    """Three classes of ten pictures of three formats, one of the classes in two folders; and what is none."""
    root = tmp_path / "images"
    for number in range(30):
        label, image_format = CLASSES[number % 3], ("PNG", "JPEG", "GIF")[number // 3 % 3]
        folder = root / ("more/cat" if number == 0 else label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}{SUFFIXES[image_format]}").write_bytes(picture(number, image_format))
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "cat" / "._00.png").write_bytes(b"what macOS keeps beside a file")
    return root


@pytest.fixture
def run(spark: SparkSession, image_dir: Path, tmp_path: Path) -> Callable[..., ConvertedImages]:
    def run(**changes: Any) -> ConvertedImages:
        values: dict[str, Any] = {"image_dir": str(image_dir), "dataset_dir": str(tmp_path / "data")}
        return convert_images(spark, ConvertConfig(**values | changes))

    return run


def manifest_of(tmp_path: Path, split: str = "train") -> Manifest:
    return manifests.load(DatasetLayout(str(tmp_path / "data")).split(split))


def examples(tmp_path: Path, split: str = "train") -> list[list[dict[str, Any]]]:
    """The records of each shard, as TensorFlow reads them."""
    paths = sorted(tf.io.gfile.glob(f"{tmp_path}/data/{split}/gen-*/part-*.tfrecord"))
    return [
        [
            {key: value.numpy() for key, value in tf.io.parse_single_example(data, SPEC).items()}
            for data in tf.data.TFRecordDataset(path)
        ]
        for path in paths
    ]


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and digest of each file."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def verified(spark: SparkSession, tmp_path: Path) -> dict[str, int]:
    return dict(verify(spark, VerifyConfig(dataset_dir=str(tmp_path / "data"))).findings.counts)


def test_a_folder_becomes_records_that_tensorflow_reads(
    run: Callable[..., ConvertedImages], spark: SparkSession, image_dir: Path, tmp_path: Path
) -> None:
    result = run(num_channels=3)
    manifest = manifest_of(tmp_path)
    charset = manifests.load_charset(DatasetLayout(str(tmp_path / "data")))
    assert charset.characters == CLASSES
    assert (result.num_records, result.num_shards, result.up_to_date) == (30, 8, False)
    assert (manifest.class_counts, manifest.num_channels, manifest.dataset_name) == ((10, 10, 10), 3, "images")
    assert (manifest.image_format, manifest.sources) == ("keep", ())
    shards = examples(tmp_path)
    # Dealt: no shard has one class alone, and no class is in one shard alone.
    assert all(len({example["image/class/label"] for example in shard}) == 3 for shard in shards)
    found = {example["source/file"].decode(): example for shard in shards for example in shard}
    paths = {str(path.relative_to(image_dir)): path for path in image_dir.rglob("*.*") if path.parent.name in CLASSES}
    assert sorted(found) == sorted(name for name in paths if not name.endswith((".txt", "._00.png")))
    assert (result.num_other_files, manifest.images and manifest.images.num_other_files) == (2, 2)
    for name, example in found.items():
        assert example["image/encoded"] == paths[name].read_bytes()  # the very bytes
        assert example["image/class/text"].decode() == paths[name].parent.name
        assert CLASSES[example["image/class/label"]] == paths[name].parent.name
        assert example["source/offset"] == 0
        image = tf.io.decode_image(example["image/encoded"], expand_animations=False).numpy()
        assert image.shape[:2] == (example["image/height"], example["image/width"])
    formats = Counter(example["image/format"] for example in found.values())
    assert formats == {b"png": 12, b"jpeg": 9, b"gif": 9}
    assert verified(spark, tmp_path) == {}


def test_a_second_run_touches_nothing_and_a_changed_folder_is_refused(
    run: Callable[..., ConvertedImages], spark: SparkSession, image_dir: Path, tmp_path: Path
) -> None:
    run()
    before = tree(tmp_path / "data")
    request = ConvertConfig(image_dir=str(image_dir), dataset_dir=str(tmp_path / "data"))
    again = convert_images(NoSpark(), request)
    assert again.up_to_date
    assert tree(tmp_path / "data") == before
    (image_dir / "dog" / "new.png").write_bytes(picture(99, "PNG"))
    for changes, words in (
        ({}, r"dog has 11 images, had 10.* --overwrite"),
        ({"num_channels": 3}, r"--num_channels is 3, was 1"),
        ({"image_format": "png"}, r"--image_format is png, was keep"),
    ):
        with pytest.raises(SettingsError, match=words):
            run(**changes)
    assert tree(tmp_path / "data") == before
    assert run(overwrite=True).num_records == 31
    assert [path.name for path in (tmp_path / "data" / "train").glob("gen-*")] == ["gen-00001"]
    assert not run(image_format="png", overwrite=True).up_to_date
    assert {example["image/format"] for shard in examples(tmp_path) for example in shard} == {b"png"}
    assert run(image_format="png", overwrite=True).up_to_date
    # Another size with the same number, and the same size with another time.
    (image_dir / "dog" / "new.png").write_bytes(picture(98, "PNG"))
    with pytest.raises(SettingsError, match=r"its images have \d+ bytes, had \d+|names, classes or times"):
        run(image_format="png")
    assert verified(spark, tmp_path) == {}


def test_unreadable_images_end_it_or_are_set_aside(
    run: Callable[..., ConvertedImages], spark: SparkSession, image_dir: Path, tmp_path: Path
) -> None:
    whole = picture(50, "JPEG")
    bad = {
        "cat/cut.jpg": whole[: len(whole) // 2],
        "cat/empty.png": b"",
        "dog/text.gif": b"no GIF",
        "dog/cut.png": picture(51, "PNG")[:-1],
    }
    for name, data in bad.items():
        (image_dir / name).write_bytes(data)
    with pytest.raises(BadDataError, match=r"images/(cat|dog)/\w+\.\w+: cannot be read: ") as raised:
        run()
    assert raised.value.exit_code == 65
    assert list((tmp_path / "data").iterdir()) == []
    with pytest.raises(BadDataError, match=r"more than --max_bad_fraction 0\.01; the first: cat/cut\.jpg: "):
        run(on_bad_record="quarantine")
    assert list((tmp_path / "data").iterdir()) == []
    result = run(on_bad_record="quarantine", max_bad_fraction=0.5)
    assert (result.num_records, result.quarantined_files) == (30, 4)
    assert result.quarantined_bytes == sum(len(data) for data in bad.values())
    assert manifest_of(tmp_path).quarantined == {name: len(data) for name, data in sorted(bad.items())}
    lines = {}
    for path in (tmp_path / "data" / "train" / "_quarantine").rglob("*.json"):
        line = json.loads(path.read_text("utf-8"))
        lines[line["source"]] = line["ranges"][0]["reason"]
    assert set(lines) == set(bad)
    assert (lines["cat/empty.png"], lines["dog/text.gif"]) == ("an empty file", "not a PNG, JPEG or GIF")
    assert verified(spark, tmp_path) == {}
    assert run(on_bad_record="quarantine").up_to_date
    with pytest.raises(SettingsError, match=r"4 file\(s\) have bytes in quarantine"):
        run()


def test_what_is_left_out_by_its_name_is_told_and_no_folder_is_lost(
    run: Callable[..., ConvertedImages],
    spark: SparkSession,
    image_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ("_ant/_1.png", "cafe\u0301/3.png", "caf\xe9/4.png", "dog/_5.png", "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg")
    for number, name in enumerate(names):
        (image_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (image_dir / name).write_bytes(picture(100 + number, "PNG"))
    (image_dir / "dog" / "6.webp").write_bytes(b"")
    (image_dir / "dog" / "up").symlink_to("..")
    with caplog.at_level("WARNING"):
        result = run()
    assert (result.num_records, result.num_other_files) == (34, 5)
    assert manifests.load_charset(DatasetLayout(str(tmp_path / "data"))).characters == (
        "_ant", "caf\xe9", *CLASSES
    )  # fmt: skip
    assert "3 left out by name, which does not end with .png, .jpg, .jpeg, .gif: .txt × 1, .webp × 1, " in caplog.text
    assert "2 left out by name, which is hidden, or of a hidden folder: .* × 1, @eaDir × 1" in caplog.text
    assert "are one class: caf\xe9" in caplog.text
    (image_dir / "dog" / "7.bmp").write_bytes(b"")
    assert (run().up_to_date, run().num_other_files) == (True, 6)
    with pytest.raises(SettingsError, match="split train was made from images: no GNT files can prove it"):
        verify(spark, VerifyConfig(dataset_dir=str(tmp_path / "data"), gnt_dir="auto"))


def test_the_bad_are_counted_by_files_and_told_under_any_name(
    run: Callable[..., ConvertedImages], spark: SparkSession, image_dir: Path, tmp_path: Path
) -> None:
    names = ["cat/1.png", "cat/1.png.json/2.png", f"cat/{'n' * 240}.png"]
    for name in names:
        (image_dir / name).parent.mkdir(exist_ok=True)
        (image_dir / name).write_bytes(b"")
    (image_dir / "dog" / "link.png").symlink_to("nowhere.png")
    os.mkfifo(image_dir / "dog" / "fifo.png")
    with pytest.raises(BadDataError, match=r"5 of 35 images are unreadable \(14\.29%\)"):
        run(on_bad_record="quarantine", max_bad_fraction=0.1)
    result = run(on_bad_record="quarantine", max_bad_fraction=0.2)
    assert (result.num_records, result.quarantined_files) == (30, 5)
    told = {}
    for path in (tmp_path / "data" / "train" / "_quarantine").rglob("*.json"):
        if path.is_file():
            told[json.loads(path.read_text("utf-8"))["source"]] = path
    assert sorted(told) == sorted([*names, "dog/fifo.png", "dog/link.png"])
    (fifo,) = json.loads(told["dog/fifo.png"].read_text("utf-8"))["ranges"]
    assert fifo["reason"] == "a FIFO, not a file"
    assert verified(spark, tmp_path) == {}
    for name in names:
        (image_dir / name).unlink()
    (image_dir / "dog" / "fifo.png").unlink()
    with pytest.raises(BadDataError, match=r"dog/link\.png: cannot be read: a link that leads nowhere"):
        run(overwrite=True)


def test_labels_decide_what_is_in_and_of_which_class(
    run: Callable[..., ConvertedImages], image_dir: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.csv"
    rows = {"cat/03.JPG": "feline, wild", "./dog/01.png": "canine", "甲虫/02.png": "beetle", "more/cat/00.png": "ape"}
    text = "path,class\n" + "".join(f'{name},"{label}"\n' for name, label in rows.items())
    labels.write_text(text, "utf-8")
    result = run(labels_csv=str(labels))
    assert (result.num_records, result.num_unlisted, result.num_classes) == (4, 26, 4)
    assert {e["source/file"].decode(): e["image/class/text"].decode() for s in examples(tmp_path) for e in s} == {
        name.removeprefix("./"): label for name, label in rows.items()
    }
    labels.write_text(text.replace("beetle", "canine"), "utf-8")
    with pytest.raises(SettingsError, match="beetle has 0 images, had 1, canine has 2 images, had 1"):
        run(labels_csv=str(labels))
    labels.write_text(text + "cat/nowhere.png,cat\n", "utf-8")
    with pytest.raises(MissingInputError, match=r"labels\.csv: 1 of its 5 files .* such as cat/nowhere\.png"):
        run(labels_csv=str(labels))


def test_classes_are_those_of_the_dataset_and_the_rest_is_counted(
    run: Callable[..., ConvertedImages], spark: SparkSession, image_dir: Path, tmp_path: Path
) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("dog\ncat\nno such class\n", "utf-8")
    result = run(charset=str(names))
    assert (result.num_records, result.num_filtered, result.num_classes) == (20, 10, 3)
    manifest = manifest_of(tmp_path)
    assert (manifest.class_counts, manifest.filtered) == ((10, 10, 0), {"甲虫": 10})
    assert run(dataset_split_name="test").charset_digest == result.charset_digest
    # Both hold the same pictures, and verify says so.
    assert verified(spark, tmp_path) == {"shared_pixels": 20}
    with pytest.raises(SettingsError, match=r"split \w+ has images of 1 channel\(s\), this one would have 3"):
        run(dataset_split_name="third", num_channels=3)
    names.write_text("dog\ncat\n", "utf-8")
    with pytest.raises(SettingsError, match="the dataset has 3 classes"):
        run(charset=str(names), dataset_split_name="third")
    names.write_text("mouse\n", "utf-8")
    with pytest.raises(BadDataError, match="no readable image is of the 1 classes; it holds cat × 10, dog × 10"):
        run(charset=str(names), dataset_dir=str(tmp_path / "other"))
    gnt_dir = tmp_path / "gnt"
    gnt_dir.mkdir()
    (gnt_dir / "1.gnt").write_bytes(b"")
    with pytest.raises(SettingsError, match="'dog' is not a character of GBK"):
        convert(spark, ConvertConfig(gnt_dir=str(gnt_dir), dataset_dir=str(tmp_path / "data"), dataset_split_name="x"))


def test_pictures_of_characters_share_a_dataset_with_gnt_files(
    run: Callable[..., ConvertedImages], spark: SparkSession, tmp_path: Path
) -> None:
    for split in ("gnt", "characters/啊", "characters/阿"):
        (tmp_path / split).mkdir(parents=True)
    with (tmp_path / "gnt" / "1.gnt").open("wb") as stream:
        for number, character in enumerate("啊阿" * 5):
            gnt.write(stream, gnt.encode_tag(character), np.full((9, 9), 100 + number, np.uint8))
    for number, character in enumerate("啊阿" * 5):
        image = Image.fromarray(np.full((9, 9), number, np.uint8))
        image.save(tmp_path / "characters" / character / f"{number}.png")
    made = convert(
        spark, ConvertConfig(gnt_dir=str(tmp_path / "gnt"), dataset_dir=str(tmp_path / "data"), charset="auto")
    )
    images = run(image_dir=str(tmp_path / "characters"), dataset_split_name="test")
    assert made.charset_digest == images.charset_digest
    assert manifest_of(tmp_path).dataset_name == "gnt"
    assert verified(spark, tmp_path) == {}
    with pytest.raises(SettingsError, match="it was made from GNT files"):
        run(image_dir=str(tmp_path / "characters"))
    with pytest.raises(SettingsError, match="it was made from images"):
        convert(
            spark,
            ConvertConfig(gnt_dir=str(tmp_path / "gnt"), dataset_dir=str(tmp_path / "data"), dataset_split_name="test"),
        )


def test_mixing_keeps_every_record(run: Callable[..., ConvertedImages], spark: SparkSession, tmp_path: Path) -> None:
    run()
    before = Counter(example["source/file"] for shard in examples(tmp_path) for example in shard)
    assert run(shuffle_at_write=True, overwrite=True).num_records == 30
    assert Counter(example["source/file"] for shard in examples(tmp_path) for example in shard) == before
    assert run(shuffle_at_write=True).up_to_date
    assert verified(spark, tmp_path) == {}


def test_verify_finds_a_flipped_bit_and_another_picture(
    run: Callable[..., ConvertedImages], spark: SparkSession, tmp_path: Path
) -> None:
    run()
    path = sorted((tmp_path / "data" / "train" / "gen-00000").iterdir())[3]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert verified(spark, tmp_path) == {"checksum": 1, "shard_digest": 1}
    assert run(overwrite=True).up_to_date is False  # `--overwrite` compares the digests, and repairs
    assert verified(spark, tmp_path) == {}


def test_training_refuses_another_reader_and_splits_that_differ_in_channels(
    run: Callable[..., ConvertedImages], tmp_path: Path
) -> None:
    run()
    run(dataset_split_name="test")
    data = {"dataset_dir": str(tmp_path / "data"), "train_dir": str(tmp_path / "run")}
    assert preparation.check(TrainConfig(**data, dataset_name="images", validation_split_name="test")) is None
    with pytest.raises(SettingsError, match=r"--dataset_name gnt: .*train was converted for the reader images"):
        preparation.check(TrainConfig(**data, dataset_name="gnt"))
    path = tmp_path / "data" / "test" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"num_channels": 3}), "utf-8")
    with pytest.raises(SettingsError, match=r"images of 3 channel\(s\), those of .*train have 1"):
        preparation.check(TrainConfig(**data, validation_split_name="test"))


@pytest.mark.parametrize(
    ("change", "kind", "fact"),
    [
        (lambda root: (root / "loose.png").write_bytes(picture(1, "PNG")), BadDataError, "1 images lie in no folder"),
        (lambda root: [path.unlink() for path in root.rglob("*.*")], MissingInputError, "none of its 0 files is an im"),
    ],
)
def test_folders_without_classes_or_images(
    run: Callable[..., ConvertedImages],
    image_dir: Path,
    tmp_path: Path,
    change: Callable[[Path], Any],
    kind: type[JobError],
    fact: str,
) -> None:
    change(image_dir)
    with pytest.raises(kind, match=fact):
        run()
    assert not (tmp_path / "data").exists()


# --- TF-Slim's TFRecords, adopted where they are ----------------------------------------------------------------------


def faults(spark: SparkSession, dataset_dir: Path) -> dict[str, int]:
    return dict(verify(spark, VerifyConfig(dataset_dir=str(dataset_dir))).findings.counts)


def labels_seen(shards: list[str]) -> list[int]:
    batches = evaluation_dataset(shards, batch_size=7, form=Form(image_size=8, num_channels=3, antialias=True))
    return [int(label) for _, labels in batches for label in labels]


def test_a_folder_of_slims_is_adopted_trained_on_and_kept_as_it_is(spark: SparkSession, tmp_path: Path) -> None:
    folder = slim_records.flowers(tmp_path / "flowers", num_shards=3, num_records=30)
    slim_records.flowers(folder, "validation", num_shards=2, num_records=12, first=100)
    theirs = tree(folder)
    settings: dict[str, Any] = {"tfrecord_dir": str(folder)}
    made = adopt(spark, ConvertConfig(**settings))
    assert (made.num_records, made.num_classes, made.num_shards, made.num_channels) == (30, 3, 3, 3)
    assert not made.up_to_date
    adopt(spark, ConvertConfig(**settings, dataset_split_name="validation"))
    added = {"charset.json", "train/manifest.json", "validation/manifest.json"}
    assert set(tree(folder)) - set(theirs) == added
    assert {name: tree(folder)[name] for name in theirs} == theirs
    assert manifests.load_charset(DatasetLayout(str(folder))).characters == slim_records.FLOWERS

    # Everything reads it as it reads a converted dataset.
    assert faults(spark, folder) == {}
    split = DatasetLayout(str(folder)).split("train")
    manifest = manifests.load(split)
    assert manifest.class_counts == (10, 10, 10)
    assert sorted(labels_seen(manifests.shard_paths(split, manifest))) == sorted([0, 1, 2] * 10)
    run = {"dataset_dir": str(folder), "train_dir": str(tmp_path / "run"), "validation_split_name": "validation"}
    assert preparation.check(TrainConfig(**run, dataset_name="images")) is None
    shown = sample.take(split, manifest, sample.InputView(image_size=8), num_images=5, seed=0)
    assert shown.stored.shape == (5, 8, 8, 3)

    # A second run does nothing, also where only the times are others; then without reading what has the old ones.
    before = tree(folder)
    assert adopt(NoSpark(), ConvertConfig(**settings)).up_to_date
    assert tree(folder) == before
    shard = folder / "flowers_train_00001-of-00003.tfrecord"
    os.utime(shard, (1e9, 1e9))
    with pytest.raises(BadDataError, match=r"00001-of-00003\.tfrecord was written again"):
        preparation.check(TrainConfig(**run))
    assert adopt(spark, ConvertConfig(**settings)).up_to_date
    assert adopt(NoSpark(), ConvertConfig(**settings)).up_to_date
    assert preparation.check(TrainConfig(**run)) is None

    # A shard that has changed is seen by verify, and adopted anew.
    slim_records.write(shard, [slim_records.of_flowers(200 + n, 1) for n in range(4)])
    os.utime(shard, (1e9, 1e9))
    found = faults(spark, folder)
    assert {"shard_digest", "shard_records", "class_counts"} <= set(found)
    again = adopt(spark, ConvertConfig(**settings))
    assert (again.num_records, again.generation, again.up_to_date) == (24, 1, False)
    assert faults(spark, folder) == {}

    # No conversion takes its place, whatever is asked for.
    gnt_dir = tmp_path / "gnt"
    gnt_dir.mkdir()
    (gnt_dir / "1.gnt").write_bytes(b"")
    for changes in ({}, {"overwrite": True}, {"dataset_split_name": "more"}):
        with pytest.raises(SettingsError):
            convert(spark, ConvertConfig(gnt_dir=str(gnt_dir), dataset_dir=str(folder), **changes))
    kept = list(folder.glob("*.tfrecord"))
    assert len(kept) == 5


def test_labels_that_do_not_fit_publish_nothing(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "imagenet"
    names = ("tench", "crane", "crane")
    for shard in range(2):
        records = [slim_records.of_imagenet(n, 1 + n % 3, names[n % 3]) for n in range(shard, 12, 2)]
        if shard:
            records.append(slim_records.of_imagenet(12, 1, "tench", **{"image/encoded": slim_records.turned(12)}))
        slim_records.write(folder / f"train-{shard:05d}-of-00002", records)
    labels = tmp_path / "labels.txt"
    labels.write_text("tench\ncrane\n", "utf-8")
    data = tmp_path / "data"
    settings: dict[str, Any] = {"tfrecord_dir": str(folder), "dataset_dir": str(data)}
    with pytest.raises(
        BadDataError, match=r"train-00000-of-00002, record \d, byte \d+ \(.*JPEG\): label 3 is no class"
    ):
        adopt(spark, ConvertConfig(**settings, labels=str(labels)))
    assert list(data.iterdir()) == []
    labels.write_text("".join(f"{name}\n" for name in names), "utf-8")
    made = adopt(spark, ConvertConfig(**settings, labels=str(labels)))
    assert (made.num_classes, made.num_empty_classes) == (4, 1)
    characters = manifests.load_charset(DatasetLayout(str(data))).characters
    assert characters == ("background", "tench", "crane (2)", "crane (3)")
    # EXIF turns one picture, which TF-Slim's readers do not heed: a warning.
    assert faults(spark, data) == {"odd_picture": 1}
    # Shards beside the dataset are named by their own folder.
    split = DatasetLayout(str(data)).split("train")
    assert manifests.shard_paths(split, manifests.load(split)) == [str(path) for path in sorted(folder.iterdir())]
    # Other names for the same labels.
    labels.write_text("0:none\n1:tench\n2:bird\n3:machine\n", "utf-8")
    with pytest.raises(SettingsError, match="class 0 is 'none', in the dataset it is 'background'"):
        adopt(spark, ConvertConfig(**settings, labels=str(labels)))
    adopt(spark, ConvertConfig(**settings, labels=str(labels), overwrite=True))
    renamed = manifests.load_charset(DatasetLayout(str(data)))
    assert renamed.characters == ("none", "tench", "bird", "machine")
    assert manifests.load(DatasetLayout(str(data)).split("train")).charset_digest == renamed.digest
    with pytest.raises(SettingsError, match=r"--num_channels is 1, was 3.* --overwrite"):
        adopt(spark, ConvertConfig(**settings, labels=str(labels), num_channels=1))
    assert adopt(spark, ConvertConfig(**settings, labels=str(labels), num_channels=1, overwrite=True)).num_channels == 1
    assert tf.io.gfile.listdir(str(folder)) == ["train-00000-of-00002", "train-00001-of-00002"]
