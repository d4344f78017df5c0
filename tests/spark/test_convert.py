"""`convert` on a real Spark: what is published, what is refused, and what a killed run leaves."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pyspark.sql import SparkSession

from tests.command import StartCommand
from tests.no_spark import NoSpark
from tfos_job import storage
from tfos_job.config import ConvertConfig
from tfos_job.conversion import gnt_shard as work
from tfos_job.conversion.shard_file import ShardResult
from tfos_job.driver import task_attempts, tasks
from tfos_job.errors import (
    BadDataError,
    BusyError,
    JobError,
    MissingInputError,
    NodeDiedError,
    SettingsError,
    StorageError,
)
from tfos_job.formats import gnt, gnt_reader, tf_example, tfrecord
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest
from tfos_job.jobs.convert import convert
from tfos_job.layout import DatasetLayout
from tfos_job.lease import Lease

CHARACTERS = "啊阿埃挨哎"  # the first of level 1
SPEC = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/width": tf.io.FixedLenFeature([], tf.int64),
    "image/class/text": tf.io.FixedLenFeature([], tf.string),
    "source/file": tf.io.FixedLenFeature([], tf.string),
    "source/offset": tf.io.FixedLenFeature([], tf.int64),
}


@pytest.fixture
def gnt_dir(tmp_path: Path) -> Path:
    """Ten writers of five characters and one symbol; one of the writers in a folder below."""
    folder = tmp_path / "gnt"
    (folder / "more").mkdir(parents=True)
    for writer in range(10):
        name = f"{writer:03d}.gnt" if writer else "more/000.gnt"
        write_gnt(folder / name, CHARACTERS + "!", seed=writer)
    return folder


def write_gnt(path: Path, text: str, seed: int = 0, garbage: bytes = b"") -> None:
    draw = np.random.default_rng(seed)
    with path.open("wb") as stream:
        for character in text:
            shape = draw.integers(3, 30, 2)
            gnt.write(stream, gnt.encode_tag(character), draw.integers(0, 256, shape, np.uint8))
        stream.write(garbage)


def settings(gnt_dir: Path, **changes: Any) -> ConvertConfig:
    values = {"gnt_dir": str(gnt_dir), "dataset_dir": str(gnt_dir.parent / "dataset"), "charset_size": 5}
    return ConvertConfig(**values | changes)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its time and bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def expected_glyphs(gnt_dir: Path, characters: str = CHARACTERS) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for path in gnt_dir.rglob("*.gnt"):
        with path.open("rb") as stream:
            for record in gnt_reader.read_records(stream, str(path), lambda bad: None):
                character = str(gnt.decode_tag(record.tag))
                if character in characters:
                    name = str(path.relative_to(gnt_dir))
                    found[character, record.width, record.height, record.pixels, name, record.offset] += 1
    return found


def converted_glyphs(dataset_dir: Path, split: str = "train") -> Counter[tuple[Any, ...]]:
    """Read as anybody would: by TensorFlow's own reader, from a file pattern."""
    found: Counter[tuple[Any, ...]] = Counter()
    for data in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{dataset_dir}/{split}/gen-*/part-*.tfrecord")):
        example = {key: value.numpy() for key, value in tf.io.parse_single_example(data, SPEC).items()}
        found[
            example["image/class/text"].decode(),
            example["image/width"],
            example["image/height"],
            example["image/encoded"],
            example["source/file"].decode(),
            example["source/offset"],
        ] += 1
    return found


def test_every_record_arrives_with_its_pixels_and_what_is_left_out_is_named(spark: SparkSession, gnt_dir: Path) -> None:
    result = convert(spark, settings(gnt_dir))
    dataset_dir = gnt_dir.parent / "dataset"
    assert converted_glyphs(dataset_dir) == expected_glyphs(gnt_dir)
    assert (result.num_records, result.num_classes, result.num_filtered, result.num_shards) == (50, 5, 10, 8)
    assert json.loads(json.dumps(result.to_dict()))["dataset_digest"] == result.dataset_digest
    manifest = manifests.load(DatasetLayout(str(dataset_dir)).split("train"))
    assert manifest.class_counts == (10,) * 5
    assert manifest.filtered == {"!": 10}
    assert sorted(source.name for source in manifest.sources)[-1] == "more/000.gnt"
    assert sorted(entry.name for entry in dataset_dir.iterdir()) == ["charset.json", "train"]
    assert sorted(entry.name for entry in (dataset_dir / "train").iterdir()) == ["gen-00000", "manifest.json"]


def test_png_holds_the_same_pixels(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir, image_format="png"))
    for path in sorted((gnt_dir.parent / "dataset").glob("train/gen-*/part-*")):
        for data in tf.data.TFRecordDataset(str(path)):
            example = tf.io.parse_single_example(data, SPEC)
            with (gnt_dir / example["source/file"].numpy().decode()).open("rb") as stream:
                stream.seek(int(example["source/offset"]) + 10)
                pixels = stream.read(int(example["image/height"]) * int(example["image/width"]))
            assert tf.io.decode_png(example["image/encoded"]).numpy().tobytes() == pixels


def test_the_same_again_does_nothing(spark: SparkSession, gnt_dir: Path) -> None:
    first = convert(spark, settings(gnt_dir))
    before = snapshot(gnt_dir.parent / "dataset")
    for request in (
        {},
        {"charset_size": None},
        {"charset_size": None, "charset": "auto"},
        {"prune": True, "compact": True},
        {"overwrite": True},  # compares the bytes of all shards
    ):
        again = convert(spark if "overwrite" in request else NoSpark(), settings(gnt_dir, **request))
        assert again.up_to_date
        assert again.num_added == 0
        assert again.to_dict() | {"seconds": 0, "up_to_date": False, "num_added": 10} == first.to_dict() | {
            "seconds": 0
        }
    assert snapshot(gnt_dir.parent / "dataset") == before


def test_a_command_with_nothing_to_do_starts_no_spark(
    start: StartCommand, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    folders = ("--gnt_dir", small_dataset.parent / "gnt" / "test", "--dataset_dir", small_dataset)
    same = start("convert", *folders, "--dataset_split_name", "test")
    assert same.wait() == 0, same.stderr
    assert same.result()["up_to_date"]
    new = start("convert", *folders, "--dataset_split_name", "another")
    assert new.wait() == 78
    assert "there is no Java, and Spark needs one" in new.stderr
    assert [path.name for path in small_dataset.glob("another/*")] == []


def test_other_settings_need_overwrite(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir))
    before = snapshot(gnt_dir.parent / "dataset")
    with pytest.raises(SettingsError, match=r"--image_format is png, was raw.* --overwrite"):
        convert(NoSpark(), settings(gnt_dir, image_format="png"))
    assert snapshot(gnt_dir.parent / "dataset") == before
    result = convert(spark, settings(gnt_dir, image_format="png", overwrite=True))
    assert (result.generation, result.num_records) == (1, 50)
    assert {name.partition("/")[0] for name in shard_files(gnt_dir)} == {"gen-00001"}


# --- generations -----------------------------------------------------------------------------------------------------


def live(gnt_dir: Path) -> Manifest:
    return manifests.load(DatasetLayout(str(gnt_dir.parent / "dataset")).split("train"))


def shard_files(gnt_dir: Path) -> dict[str, tuple[int, bytes]]:
    found = snapshot(gnt_dir.parent / "dataset" / "train")
    return {name: value for name, value in found.items() if name.endswith(".tfrecord")}


def test_new_files_are_a_generation_beside_the_others(spark: SparkSession, gnt_dir: Path) -> None:
    first = convert(spark, settings(gnt_dir))
    before = shard_files(gnt_dir)
    write_gnt(gnt_dir / "100.gnt", CHARACTERS, seed=100)
    write_gnt(gnt_dir / "101.gnt", CHARACTERS + "一", seed=101)
    second = convert(spark, settings(gnt_dir))
    assert (second.generation, second.num_records, second.num_added, second.num_replaced) == (1, 60, 2, 0)
    after = shard_files(gnt_dir)
    assert {name: after[name] for name in before} == before  # the very same files, untouched
    assert after.keys() - before.keys() == {"gen-00001/part-00000-of-00001.tfrecord"}
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    assert (second.dataset_digest != first.dataset_digest, second.num_filtered) == (True, 11)
    manifest = live(gnt_dir)
    assert [revision.num_added for revision in manifest.history] == [10, 2]
    assert {source.name for source in manifest.sources if source.generation == 1} == {"100.gnt", "101.gnt"}
    assert convert(spark, settings(gnt_dir)).up_to_date


def test_a_changed_file_replaces_its_records_and_a_removed_one_stays_until_pruned(
    spark: SparkSession, gnt_dir: Path
) -> None:
    convert(spark, settings(gnt_dir))
    before = shard_files(gnt_dir)
    manifest = live(gnt_dir)
    write_gnt(gnt_dir / "003.gnt", "阿!!一", seed=99)
    expected = expected_glyphs(gnt_dir)
    (gnt_dir / "002.gnt").unlink()
    result = convert(spark, settings(gnt_dir))
    assert (result.num_replaced, result.num_gone, result.num_pruned, result.num_added) == (1, 1, 0, 0)
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected
    touched = {shard.file for shard in manifest.shards if "003.gnt" in shard.sources}
    after = shard_files(gnt_dir)
    assert before.keys() - after.keys() == touched
    assert live(gnt_dir).filtered == {"!": 11, "一": 1}
    again = convert(spark, settings(gnt_dir))
    assert (again.up_to_date, again.num_gone) == (True, 1)
    pruned = convert(spark, settings(gnt_dir, prune=True))
    assert (pruned.num_pruned, pruned.num_gone, pruned.generation) == (1, 0, 2)
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    manifest = live(gnt_dir)
    assert sum(manifest.class_counts) == expected_glyphs(gnt_dir).total() == pruned.num_records
    assert [(revision.replaced, revision.pruned) for revision in manifest.history] == [
        ((), ()),
        (("003.gnt",), ()),
        ((), ("002.gnt",)),
    ]


def test_compacting_makes_one_generation_of_many(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir))
    for writer in (100, 101):
        write_gnt(gnt_dir / f"{writer}.gnt", CHARACTERS, seed=writer)
        convert(spark, settings(gnt_dir))
    before = live(gnt_dir)
    result = convert(spark, settings(gnt_dir, compact=True))
    assert {name.partition("/")[0] for name in shard_files(gnt_dir)} == {"gen-00003"}
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    after = live(gnt_dir)
    assert (after.sources, after.class_counts) == (before.sources, before.class_counts)
    assert [revision.compacted for revision in after.history] == [False, False, False, True]
    assert convert(spark, settings(gnt_dir, compact=True)).up_to_date
    write_gnt(gnt_dir / "101.gnt", CHARACTERS, seed=5)  # a file can still be replaced after its shards were copied
    assert convert(spark, settings(gnt_dir)).num_replaced == 1
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    assert result.num_records == 60


def test_records_mixed_at_write_are_the_same_records(spark: SparkSession, gnt_dir: Path) -> None:
    first = convert(spark, settings(gnt_dir, shuffle_at_write=True))
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    manifest = live(gnt_dir)
    assert sorted(shard.num_records for shard in manifest.shards) == [6, 6, 6, 6, 6, 6, 7, 7]
    assert all(shard.sources == () for shard in manifest.shards)
    assert convert(spark, settings(gnt_dir, shuffle_at_write=True)).up_to_date
    write_gnt(gnt_dir / "100.gnt", CHARACTERS, seed=100)
    with pytest.raises(SettingsError, match=r"mixed over all of its shards .*100\.gnt is new"):
        convert(spark, settings(gnt_dir, shuffle_at_write=True))
    (gnt_dir / "100.gnt").unlink()
    shutil.rmtree(gnt_dir.parent / "dataset")
    again = convert(spark, settings(gnt_dir, shuffle_at_write=True))
    assert again.dataset_digest == first.dataset_digest
    other = convert(spark, settings(gnt_dir, dataset_split_name="other", shuffle_at_write=True, seed=1))
    assert other.dataset_digest != first.dataset_digest


def test_a_renamed_file_is_not_taken_for_another_one(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir))
    before = snapshot(gnt_dir.parent / "dataset")
    (gnt_dir / "003.gnt").rename(gnt_dir / "w003.gnt")
    with pytest.raises(SettingsError, match=r"would be there twice: w003\.gnt is 003\.gnt under another name"):
        convert(spark, settings(gnt_dir))
    assert snapshot(gnt_dir.parent / "dataset") == before
    result = convert(spark, settings(gnt_dir, prune=True))
    assert (result.num_added, result.num_pruned, result.num_records) == (1, 1, 50)
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)


def test_a_time_that_has_changed_is_looked_into_once(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir))
    os.utime(gnt_dir / "003.gnt", (5, 5))
    assert convert(spark, settings(gnt_dir)).up_to_date
    assert {source.name: source.mtime_s for source in live(gnt_dir).sources}["003.gnt"] == 5


def test_a_split_whose_charset_is_gone_is_not_built_upon(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir))
    (gnt_dir.parent / "dataset" / "charset.json").unlink()
    write_gnt(gnt_dir / "100.gnt", CHARACTERS, seed=100)
    with pytest.raises(BadDataError, match="made with the charset"):
        convert(spark, settings(gnt_dir))


def test_overwrite_finds_a_bit_that_has_changed(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir))
    path = gnt_dir.parent / "dataset" / "train" / "gen-00000" / "part-00003-of-00008.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert convert(spark, settings(gnt_dir)).up_to_date  # by the sizes
    assert convert(spark, settings(gnt_dir, overwrite=True)).generation == 1
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    assert convert(spark, settings(gnt_dir, overwrite=True)).up_to_date


# --- archives --------------------------------------------------------------------------------------------------------


def pack(gnt_dir: Path, archive: str, names: Sequence[str]) -> None:
    """Moves files into an archive, in a folder there, as CASIA's are."""
    with zipfile.ZipFile(gnt_dir / archive, "a", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.write(gnt_dir / name, f"HWDB/{name}")
            (gnt_dir / name).unlink()


def origins(glyphs: Counter[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    """Glyphs that were packed, as if they had never been."""
    return Counter({(*glyph[:4], glyph[4].rpartition("HWDB/")[2], glyph[5]): n for glyph, n in glyphs.items()})


def test_members_of_an_archive_are_sources_of_their_own(spark: SparkSession, gnt_dir: Path) -> None:
    expected = expected_glyphs(gnt_dir)
    pack(gnt_dir, "a.zip", [f"00{writer}.gnt" for writer in range(1, 7)])
    dataset_dir = gnt_dir.parent / "dataset"
    assert convert(spark, settings(gnt_dir, charset_size=None, charset="auto")).num_records == 60
    shutil.rmtree(dataset_dir)
    result = convert(spark, settings(gnt_dir))
    assert (result.num_records, result.num_added, result.num_other_files) == (50, 10, 0)
    assert origins(converted_glyphs(dataset_dir)) == expected
    packed = [source for source in live(gnt_dir).sources if source.archive]
    assert [source.name for source in packed] == [f"a.zip/HWDB/00{writer}.gnt" for writer in range(1, 7)]
    assert {source.archive for source in packed} == {"a.zip"}
    assert convert(spark, settings(gnt_dir)).up_to_date
    os.utime(gnt_dir / "a.zip", (5, 5))
    assert convert(spark, settings(gnt_dir)).up_to_date  # known by the members' bytes
    pack(gnt_dir, "a.zip", ["007.gnt"])
    with pytest.raises(SettingsError, match=r"twice: a\.zip/HWDB/007\.gnt is 007\.gnt under another name"):
        convert(spark, settings(gnt_dir))
    result = convert(spark, settings(gnt_dir, prune=True))
    assert (result.num_added, result.num_replaced, result.num_pruned, result.num_records) == (1, 0, 1, 50)
    write_gnt(gnt_dir / "001.gnt", "阿哎", seed=77)
    with zipfile.ZipFile(gnt_dir / "a.zip") as archive:
        names = archive.namelist()
        for name in names[1:]:
            (gnt_dir / name.rpartition("/")[2]).write_bytes(archive.read(name))
    (gnt_dir / "a.zip").unlink()
    expected = expected_glyphs(gnt_dir)
    pack(gnt_dir, "a.zip", [name.rpartition("/")[2] for name in names])
    result = convert(spark, settings(gnt_dir))
    assert (result.num_added, result.num_replaced, result.num_gone) == (0, 1, 0)
    assert origins(converted_glyphs(dataset_dir)) == expected


# --- large files -----------------------------------------------------------------------------------------------------


@pytest.fixture
def large_gnt_dir(tmp_path: Path) -> Path:
    """A file of 5 MB and one of 3 MB, the bitmaps of the second full of what looks like records."""
    folder = tmp_path / "gnt"
    folder.mkdir()
    draw = np.random.default_rng(0)
    with (folder / "large.gnt").open("wb") as stream:
        while stream.tell() < 5_000_000:
            pixels = draw.integers(0, 256, draw.integers(20, 90, 2), np.uint8)
            gnt.write(stream, gnt.encode_tag(CHARACTERS[int(draw.integers(5))]), pixels)
    bait = io.BytesIO()
    for _ in range(300):
        gnt.write(bait, gnt.encode_tag("啊"), draw.integers(0, 256, (3, 5), np.uint8))
    pixels = np.frombuffer(bait.getvalue(), np.uint8).reshape(-1, 100)
    with (folder / "trap.gnt").open("wb") as stream:
        while stream.tell() < 3_000_000:
            gnt.write(stream, gnt.encode_tag("阿"), pixels)
    return folder


def test_a_large_file_is_shared_by_tasks_and_every_record_is_there_once(
    spark: SparkSession, large_gnt_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        result = convert(spark, settings(large_gnt_dir))
    assert "1 files were not cut where a record begins" in caplog.text  # the trap was one
    assert converted_glyphs(large_gnt_dir.parent / "dataset") == expected_glyphs(large_gnt_dir)
    manifest = live(large_gnt_dir)
    sizes = [shard.size_bytes for shard in manifest.shards]
    assert result.num_shards == len(sizes) == 7
    assert max(sizes) <= 1.1 * sum(sizes) / 7
    assert min(sizes) >= 0.9 * sum(sizes) / 7
    assert [len(source.ranges) > 1 for source in manifest.sources] == [True, True]
    os.utime(large_gnt_dir / "large.gnt", (5, 5))
    assert convert(spark, settings(large_gnt_dir)).up_to_date  # known by the digests of its ranges


@pytest.mark.parametrize("name", ["large.gnt", "trap.gnt"])
def test_bad_bytes_in_a_large_file_are_named_by_their_own_offset(
    spark: SparkSession, large_gnt_dir: Path, name: str
) -> None:
    path = large_gnt_dir / name
    data = bytearray(path.read_bytes())
    with path.open("rb") as stream:
        found = [record.offset for record in gnt_reader.read_records(stream, name)]
    bad = next(offset for offset in found if offset > len(data) * 0.7)
    data[bad + 6 : bad + 8] = b"\0\0"
    path.write_bytes(data)
    with pytest.raises(BadDataError, match=rf"{name}, byte {bad}: impossible size"):
        convert(spark, settings(large_gnt_dir))
    convert(spark, settings(large_gnt_dir, on_bad_record="quarantine", max_bad_fraction=0.1))
    assert converted_glyphs(large_gnt_dir.parent / "dataset") == expected_glyphs(large_gnt_dir)


def test_a_second_split_has_the_first_ones_classes(spark: SparkSession, gnt_dir: Path, tmp_path: Path) -> None:
    convert(spark, settings(gnt_dir, charset_size=None, charset="auto"))
    other = tmp_path / "test"
    other.mkdir()
    write_gnt(other / "a.gnt", "阿哎一丁丁")
    result = convert(spark, settings(other, charset_size=None, charset="auto", dataset_split_name="test"))
    assert (result.num_records, result.num_classes, result.num_filtered) == (2, 6, 3)
    manifest = manifests.load(DatasetLayout(result.dataset_dir).split("test"))
    assert manifest.filtered == {"一": 1, "丁": 2}
    assert manifest.charset_digest == manifests.load_charset(DatasetLayout(result.dataset_dir)).digest
    (tmp_path / "classes.txt").write_text("啊\n阿\n", "utf-8")
    for request in ({"charset_size": 6}, {"charset_size": None, "charset": str(tmp_path / "classes.txt")}):
        with pytest.raises(SettingsError, match=r"the dataset has 6 classes \(digest .{12}\), the request is for [26]"):
            convert(spark, settings(other, dataset_split_name="more", **request))


def test_a_file_of_characters_decides_the_order_of_classes(spark: SparkSession, gnt_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("挨 啊\n!\n", "utf-8")
    result = convert(spark, settings(gnt_dir, charset_size=None, charset=str(tmp_path / "classes.txt")))
    assert manifests.load_charset(DatasetLayout(result.dataset_dir)).characters == ("挨", "啊", "!")
    assert (result.num_records, result.num_filtered) == (30, 30)


def test_nothing_to_convert(spark: SparkSession, gnt_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("丁", "utf-8")
    with pytest.raises(BadDataError, match="none of its 60 records is of the 1 classes; it holds !, 哎"):
        convert(spark, settings(gnt_dir, charset_size=None, charset=str(tmp_path / "classes.txt")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match=r"no \*\.gnt files"):
        convert(NoSpark(), settings(tmp_path / "empty"))
    assert list((gnt_dir.parent / "dataset").iterdir()) == []


# --- bad input -------------------------------------------------------------------------------------------------------


def test_the_first_bad_file_fails_the_job_and_nothing_is_published(spark: SparkSession, gnt_dir: Path) -> None:
    for name in ("009.gnt", "002.gnt", "005.gnt"):
        write_gnt(gnt_dir / name, CHARACTERS, garbage=b"\0" * 20)
    with pytest.raises(BadDataError, match=r"002\.gnt, byte \d+: impossible size") as raised:
        convert(spark, settings(gnt_dir))
    assert "\n" not in str(raised.value)
    with pytest.raises(BadDataError, match=r"002\.gnt, byte \d+: impossible size"):
        convert(spark, settings(gnt_dir, charset_size=None, charset="auto"))
    assert list((gnt_dir.parent / "dataset").iterdir()) == []


def test_quarantine_sets_aside_what_is_bad_and_keeps_the_rest(spark: SparkSession, gnt_dir: Path) -> None:
    whole = (gnt_dir / "002.gnt").read_bytes()
    with (gnt_dir / "002.gnt").open("rb") as stream:
        third = list(gnt_reader.read_records(stream, "002.gnt"))[2]
    size = 10 + len(third.pixels)
    (gnt_dir / "002.gnt").write_bytes(whole[: third.offset] + b"\xff" * size + whole[third.offset + size :])
    (gnt_dir / "more" / "empty.gnt").write_bytes(b"")
    request = {"on_bad_record": "quarantine", "max_bad_fraction": 0.5}
    result = convert(spark, settings(gnt_dir, **request))
    assert (result.num_records, result.quarantined_bytes, result.quarantined_files) == (49, size, 2)
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    quarantine = gnt_dir.parent / "dataset" / "train" / "_quarantine"
    assert sorted(str(path.relative_to(quarantine)) for path in quarantine.rglob("*.json")) == [
        "002.gnt.json",
        "more/empty.gnt.json",
    ]
    (found,) = storage.read_json(str(quarantine / "002.gnt.json"))["ranges"]
    assert (found["start"], found["end"]) == (third.offset, third.offset + size)
    assert "impossible size" in found["reason"]
    assert convert(spark, settings(gnt_dir, **request)).up_to_date
    with pytest.raises(SettingsError, match=r"--on_bad_record is fail, but 2 file\(s\) have bytes in quarantine"):
        convert(spark, settings(gnt_dir))


def test_too_many_bad_bytes_fail_even_with_quarantine(spark: SparkSession, gnt_dir: Path) -> None:
    (gnt_dir / "002.gnt").write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(BadDataError, match=r"1004 of \d+ bytes are unreadable .* 0\.01; .*ZIP archive"):
        convert(spark, settings(gnt_dir, on_bad_record="quarantine"))
    assert list((gnt_dir.parent / "dataset").iterdir()) == []


# --- interruptions ---------------------------------------------------------------------------------------------------


def test_two_at_once_exclude_each_other(spark: SparkSession, gnt_dir: Path) -> None:
    dataset = DatasetLayout(str(gnt_dir.parent / "dataset"))
    with Lease(dataset.lock, "the first"), pytest.raises(BusyError, match="held by the first"):
        convert(spark, settings(gnt_dir))
    assert convert(spark, settings(gnt_dir)).num_records == 50


def test_tasks_that_ran_twice_are_there_once(
    spark: SparkSession, gnt_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Spark runs them whose first executor it believes to be lost, or slow."""
    num_made = spark.sparkContext.accumulator(0)

    def twice(task: work.GroupTask) -> ShardResult:  # of no module, so that executors need not import this one
        first, second = work.convert_group(task), work.convert_group(task)
        num_made.add(len({first.written_file, second.written_file}))
        return second

    monkeypatch.setattr(work, "convert_group", twice)
    result = convert(spark, settings(gnt_dir))
    assert num_made.value == 2 * result.num_shards
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)
    assert sorted(entry.name for entry in (gnt_dir.parent / "dataset" / "train").iterdir()) == [
        "gen-00000",
        "manifest.json",
    ]
    assert len(shard_files(gnt_dir)) == result.num_shards


def test_an_io_error_is_for_spark_to_try_again_and_bad_data_is_not(
    spark: SparkSession, gnt_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert task_attempts.max_attempts(spark.sparkContext) == 2
    log = gnt_dir.parent / "attempts"

    def failing_once(task: work.GroupTask) -> ShardResult:
        first = not Path(f"{log}-{task.shard_file}").exists()
        Path(f"{log}-{task.shard_file}").touch()
        if first:
            storage.write_bytes(f"{task.building_dir}/{'n' * 300}", b"")  # a StorageError: the name is too long
        return work.convert_group(task)

    with monkeypatch.context() as patch:
        patch.setattr(work, "convert_group", failing_once)
        result = convert(spark, settings(gnt_dir))
    assert len(list(log.parent.glob("attempts-*"))) == result.num_shards
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)

    def failing(kind: str) -> None:
        with log.open("a") as stream:
            stream.write(kind)
        if kind == "s":
            storage.write_bytes(str(log.with_name("n" * 300)), b"")
        list(gnt_reader.read_records(io.BytesIO(b"no GNT file"), kind))

    outcomes = tasks.run(spark.sparkContext, "fail", failing, ["s", "b"])
    assert sorted(log.read_text()) == ["b", "s", "s"]
    with pytest.raises(StorageError, match="cannot write it: File name too long"):
        tasks.results(outcomes)
    with pytest.raises(BadDataError, match="b, byte 0"):
        tasks.results(outcomes[1:])


def test_what_ends_a_job_of_spark_is_one_line_with_its_own_exit_code(spark: SparkSession) -> None:
    def killed(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def wrong(_: int) -> None:
        raise LookupError("a bug of ours")

    with pytest.raises(
        NodeDiedError, match="executor driver: a task's process has ended: Python worker exited"
    ) as dead:
        tasks.run(spark.sparkContext, "kill", killed, [1])
    with pytest.raises(JobError, match=r"a task of Spark's: LookupError: a bug of ours\. This is a bug") as bug:
        tasks.run(spark.sparkContext, "raise", wrong, [1])
    assert bug.value.exit_code == 70
    assert "\n" not in f"{dead.value}{bug.value}"


def test_what_killed_runs_left_is_swept(spark: SparkSession, gnt_dir: Path) -> None:
    """Killed while it built; killed between the rename of the folder and the manifest; killed after charset.json."""
    dataset_dir = gnt_dir.parent / "dataset"
    leftovers = (
        "train/_building-x/_part.1.tmp",
        "train/gen-00000/part-00000-of-00001.tfrecord",
        "train/_quarantine/more/_x.gnt.json.1.tmp",
        "_charset.json.1.tmp",
        "charset.json",
    )
    for left in leftovers:
        (dataset_dir / left).parent.mkdir(parents=True, exist_ok=True)
        (dataset_dir / left).write_bytes(b"left")
    for overwrite in (False, True):
        result = convert(spark, settings(gnt_dir, overwrite=overwrite))
        assert converted_glyphs(dataset_dir) == expected_glyphs(gnt_dir)
        assert result.up_to_date is overwrite
        for left in ("train/_building-y/part", "train/gen-00007/part-00000-of-00001.tfrecord"):
            (dataset_dir / left).parent.mkdir(parents=True, exist_ok=True)
            (dataset_dir / left).write_bytes(b"left")
    assert convert(spark, settings(gnt_dir)).up_to_date
    assert sorted(entry.name for entry in (dataset_dir / "train").iterdir()) == ["gen-00000", "manifest.json"]


def test_a_damaged_split_is_noticed_and_rebuilt(spark: SparkSession, gnt_dir: Path) -> None:
    convert(spark, settings(gnt_dir))
    split_dir = gnt_dir.parent / "dataset" / "train"
    (split_dir / "gen-00000" / "part-00003-of-00008.tfrecord").unlink()
    with pytest.raises(SettingsError, match=r"part-00003-of-00008\.tfrecord is missing"):
        convert(spark, settings(gnt_dir))
    assert convert(spark, settings(gnt_dir, overwrite=True)).generation == 1
    (split_dir / "manifest.json").write_text("{}")
    with pytest.raises(BadDataError, match="--overwrite"):
        convert(spark, settings(gnt_dir))
    convert(spark, settings(gnt_dir, overwrite=True))
    assert converted_glyphs(gnt_dir.parent / "dataset") == expected_glyphs(gnt_dir)


def test_after_a_sigkill_in_the_middle_the_next_run_makes_it_right(
    spark: SparkSession, tmp_path: Path, start: StartCommand
) -> None:
    num_each, num_shards = 2000, 8  # made one after the other: when the first is there, most of the work is to come
    (tmp_path / "gnt").mkdir()
    for writer in range(num_shards):
        write_gnt(tmp_path / "gnt" / f"{writer}.gnt", CHARACTERS * (num_each // 5), seed=writer)
    split_dir = tmp_path / "dataset" / "train"
    flags = ("--gnt_dir", tmp_path / "gnt", "--dataset_dir", tmp_path / "dataset", "--image_format", "png")
    driver = start("convert", *flags, "--master", "local[1]")
    driver.wait_until(lambda: list(split_dir.glob("_building-*/work/part-*")))
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert not (split_dir / "manifest.json").exists()
    assert (tmp_path / "dataset" / "_lock").exists()
    result = convert(spark, settings(tmp_path / "gnt", image_format="png", charset_size=None))  # waits for no lease
    assert (result.num_records, result.num_shards) == (num_shards * num_each, num_shards)
    manifest = manifests.load(DatasetLayout(result.dataset_dir).split("train"))
    found = Counter()
    for path in manifests.shard_paths(DatasetLayout(result.dataset_dir).split("train"), manifest):
        with storage.open_read(path) as stream:
            for _, data in tfrecord.read_records(stream, path):
                example = tf_example.decode_example(data)
                found[example["source/file"], example["source/offset"]] += 1
    assert len(found) == found.total() == num_shards * num_each
    assert sorted(entry.name for entry in split_dir.iterdir()) == ["gen-00000", "manifest.json"]
    assert sorted(entry.name for entry in (tmp_path / "dataset").iterdir()) == ["charset.json", "train"]
