"""`verify` on a real Spark: a sound dataset passes, and each kind of damage is found and named."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.no_spark import NoSpark
from tfos_job import cli, storage
from tfos_job.config import ConvertConfig, VerifyConfig
from tfos_job.driver import session
from tfos_job.driver.on_demand import Spark
from tfos_job.errors import BadDataError, BusyError, MissingInputError, SettingsError
from tfos_job.formats import gnt, gnt_reader, tf_example, tfrecord
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest
from tfos_job.jobs import verify as job
from tfos_job.jobs.convert import convert
from tfos_job.jobs.dataframe import convert_dataframe
from tfos_job.jobs.verify import VerifyResult
from tfos_job.layout import DatasetLayout
from tfos_job.lease import Lease

CHARACTERS = "啊阿埃挨哎"


def write_gnt(path: Path, text: str, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    with path.open("wb") as stream:
        for character in text:
            gnt.write(stream, gnt.encode_tag(character), draw.integers(0, 256, draw.integers(3, 30, 2), np.uint8))


def convert_split(spark: SparkSession, root: Path, split: str, **changes: Any) -> None:
    values = {"gnt_dir": str(root / split), "dataset_dir": str(root / "dataset"), "charset_size": 5}
    convert(spark, ConvertConfig(**values | {"dataset_split_name": split} | changes))


@pytest.fixture(scope="module")
def sound(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits, of ten writers and of two; nine of the train writers have a symbol too, one has garbage."""
    root = tmp_path_factory.mktemp("sound")
    for writer in range(10):
        write_gnt(root / "train" / f"{writer:03d}.gnt", CHARACTERS + "!", writer)
    with (root / "train" / "009.gnt").open("ab") as stream:
        stream.write(b"\0" * 20)
    for writer in (100, 101):
        write_gnt(root / "test" / f"{writer}.gnt", CHARACTERS, writer)
    convert_split(spark, root, "train", on_bad_record="quarantine", max_bad_fraction=0.5)
    convert_split(spark, root, "test", image_format="png")
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "copy"))


def verify(spark: Spark, root: Path, **changes: Any) -> VerifyResult:
    return job.verify(spark, VerifyConfig(**{"dataset_dir": str(root / "dataset")} | changes))


def found(result: VerifyResult) -> dict[str, str]:
    """The first finding of each kind, as a line."""
    return {finding.kind: str(finding) for finding in reversed(result.findings.told)}


def load(root: Path, split: str = "train") -> Manifest:
    return manifests.load(DatasetLayout(str(root / "dataset")).split(split))


def store(root: Path, contents: Manifest, split: str = "train") -> None:
    storage.write_json(DatasetLayout(str(root / "dataset")).split(split).manifest, contents.to_json())


def shard_path(root: Path, index: int = 0, split: str = "train") -> Path:
    return root / "dataset" / split / load(root, split).shards[index].file


def payloads(path: Path) -> list[bytes]:
    with path.open("rb") as stream:
        return [data for _, data in tfrecord.read_records(stream, str(path))]


def write_payloads(path: Path, contents: list[bytes]) -> None:
    stream = io.BytesIO()
    for data in contents:
        tfrecord.write_record(stream, data)
    path.write_bytes(stream.getvalue())


def forge(root: Path, change: Callable[[list[bytes]], list[bytes]], index: int = 0) -> None:
    """Rewrites a shard of `train`, and the manifest so that the shard's size, digest and number of records fit."""
    path, contents = shard_path(root, index), load(root)
    before = payloads(path)
    after = change(before)
    write_payloads(path, after)
    data = path.read_bytes()
    shard = dataclasses.replace(
        contents.shards[index],
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        num_records=len(after),
    )
    shards = (*contents.shards[:index], shard, *contents.shards[index + 1 :])
    more = len(after) - len(before)
    first = contents.sources[0]
    store(
        root,
        dataclasses.replace(
            contents,
            shards=shards,
            sources=(dataclasses.replace(first, num_records=first.num_records + more), *contents.sources[1:]),
            class_counts=(contents.class_counts[0] + more, *contents.class_counts[1:]),
        ),
    )


def changed(key: str, value: bytes | int) -> Callable[[list[bytes]], list[bytes]]:
    """The first record with another value."""
    return lambda before: [
        tf_example.encode_example(tf_example.decode_example(before[0]) | {key: value}),
        *before[1:],
    ]


def test_a_sound_dataset_passes(spark: SparkSession, root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    result = verify(spark, root, gnt_dir="auto")
    assert result.findings.counts == {}
    result.raise_for_findings()
    assert result.lines() == []
    value = json.loads(json.dumps(result.to_dict()))
    assert {name: split["num_records"] for name, split in value["splits"].items()} == {"train": 50, "test": 10}
    assert value["num_errors"] == value["num_warnings"] == 0
    assert value["num_source_bytes"] == sum(path.stat().st_size for path in root.rglob("*.gnt"))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert list(verify(spark, root, dataset_split_name="test").splits) == ["test"]


def test_generations_cut_files_and_mixed_shards_pass(spark: SparkSession, root: Path) -> None:
    draw = np.random.default_rng(0)
    with (root / "train" / "large.gnt").open("wb") as stream:  # of several shards
        for index in range(400):
            gnt.write(stream, gnt.encode_tag(CHARACTERS[index % 5]), draw.integers(0, 256, (100, 90), np.uint8))
    write_gnt(root / "train" / "003.gnt", CHARACTERS, seed=99)
    (root / "train" / "004.gnt").unlink()
    request = {"on_bad_record": "quarantine", "max_bad_fraction": 0.5, "target_shard_mb": 1, "charset_size": None}
    convert_split(spark, root, "train", prune=True, **request)
    convert_split(spark, root, "mixed", gnt_dir=str(root / "test"), shuffle_at_write=True, charset_size=None)
    contents = load(root)
    assert len({shard.file.partition("/")[0] for shard in contents.shards}) == 2
    assert sum("large.gnt" in shard.sources for shard in contents.shards) > 1
    for split, source_dir, counts in (("train", "train", {}), ("mixed", "test", {"shared_source": 2})):
        result = verify(spark, root, dataset_split_name=split, gnt_dir=str(root / source_dir))
        assert result.findings.counts == counts


def test_members_of_archives_are_compared_with_what_was_converted(spark: SparkSession, root: Path) -> None:
    folder = root / "packed"
    for writer in range(4):
        write_gnt(root / "packed" / f"{writer}.gnt", CHARACTERS, seed=200 + writer)
    for archive, names in (("a.zip", ("0.gnt", "1.gnt")), ("b.zip", ("2.gnt", "3.gnt"))):
        with zipfile.ZipFile(folder / archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.write(folder / name, name)
                (folder / name).unlink()
    convert_split(spark, root, "packed", charset_size=None)
    assert verify(spark, root, gnt_dir=str(folder), dataset_split_name="packed").findings.counts == {}
    with zipfile.ZipFile(folder / "a.zip") as packed:
        changed_bytes = packed.read("1.gnt") + b"more"
    with zipfile.ZipFile(folder / "a.zip", "w") as packed:
        packed.writestr("1.gnt", changed_bytes)
    (folder / "b.zip").write_bytes((folder / "b.zip").read_bytes()[:-30])
    result = verify(spark, root, gnt_dir="auto", dataset_split_name="packed")
    why = "its archive is not a whole ZIP archive: its end, where the directory is, is missing"
    assert sorted(map(str, result.findings.told)) == [
        f"changed_source: a.zip/1.gnt, byte 0: expected {len(changed_bytes) - 4} bytes, found more",
        f"changed_source: b.zip/2.gnt: {why}",
        f"changed_source: b.zip/3.gnt: {why}",
        f"missing_source: a.zip/0.gnt: not in {folder}/a.zip",
    ]


def test_a_split_of_a_dataframe_passes_until_a_row_is_there_twice(spark: SparkSession, root: Path) -> None:
    rows = [(CHARACTERS[index % 5], bytes([index] * 12), 3, 4) for index in range(10)]
    frame = spark.createDataFrame(rows, "character string, image binary, height int, width int")
    convert_dataframe(frame, dataset_dir=str(root / "dataset"), dataset_split_name="frame", num_shards=2)
    assert verify(spark, root, dataset_split_name="frame").findings.counts == {}
    for split in ("frame", "all"):
        with pytest.raises(SettingsError, match="split frame was made from a DataFrame: no GNT files can prove it"):
            verify(spark, root, dataset_split_name=split, gnt_dir="auto")
    path = shard_path(root, 0, "frame")
    write_payloads(path, [*payloads(path), payloads(path)[0]])
    assert "repeated_record" in found(verify(spark, root, dataset_split_name="frame"))


def flip_a_bit(root: Path) -> None:
    path = shard_path(root)
    data = bytearray(path.read_bytes())
    data[40] ^= 4
    path.write_bytes(data)


def cut_a_shard(root: Path) -> None:
    path = shard_path(root)
    path.write_bytes(path.read_bytes()[:-7])


def lengthen_a_shard(root: Path) -> None:
    path = shard_path(root)
    path.write_bytes(path.read_bytes() + b"more")


def swap_two_shards(root: Path) -> None:
    first, second = shard_path(root, 0), shard_path(root, 1)
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def miscount_classes(root: Path) -> None:
    contents = load(root)
    store(root, dataclasses.replace(contents, class_counts=(11, 9, *contents.class_counts[2:])))


def lose_a_record(root: Path) -> None:
    path = shard_path(root)
    write_payloads(path, payloads(path)[1:])


def leave_a_folder(root: Path) -> None:
    (root / "dataset" / "train" / "_building-x").mkdir()
    (root / "dataset" / "train" / "_building-x" / "part").write_bytes(b"left")


def leave_a_file(root: Path) -> None:
    (root / "dataset" / "train" / "gen-00000" / "_part.1.tmp").write_bytes(b"left")


def add_a_shard(root: Path) -> None:
    shutil.copy(shard_path(root), shard_path(root).with_name("part-99999-of-00008.tfrecord"))


def add_a_generation(root: Path) -> None:
    shutil.copytree(shard_path(root).parent, root / "dataset" / "train" / "gen-00009")


def damage_the_charset(root: Path) -> None:
    path = root / "dataset" / "charset.json"
    path.write_text(path.read_text("utf-8").replace("啊", "一"), "utf-8")


def use_another_charset(root: Path) -> None:
    store(root, dataclasses.replace(load(root, "test"), charset_digest="0" * 64), "test")


class Here:
    """As much of a SparkContext and of its RDDs as `verify` uses, in this process: its parts are lists."""

    master = "local"

    def __init__(self, parts: Sequence[Sequence[Any]] = ()) -> None:
        self._parts = parts

    def parallelize(self, items: Sequence[Any], num_parts: int) -> Here:
        return Here([items[number::num_parts] for number in range(num_parts)])

    def flatMap(self, function: Callable[[Any], Iterable[Any]]) -> Here:
        return self.mapPartitions(lambda part: [found for item in part for found in function(item)])

    def partitionBy(self, num_parts: int, function: Callable[[Any], int]) -> Here:
        parts: list[list[Any]] = [[] for _ in range(num_parts)]
        for key, value in self.collect():
            parts[function(key) % num_parts].append((key, value))
        return Here(parts)

    def mapPartitions(self, function: Callable[[Iterator[Any]], Iterable[Any]]) -> Here:
        return Here([list(function(iter(part))) for part in self._parts])

    def collect(self) -> list[Any]:
        return [item for part in self._parts for item in part]


DAMAGE: dict[str, tuple[Callable[[Path], Any], dict[str, str]]] = {
    "flipped bit": (
        flip_a_bit,
        {"checksum": r"train/gen-00000/part-00000-of-\d+\.tfrecord, byte 0: of the record's", "shard_digest": "found"},
    ),
    "cut shard": (
        cut_a_shard,
        {
            "truncated": r"part-00000.*, byte \d+: the file ends",
            "shard_size": "",
            "shard_digest": "",
            "shard_records": "",
        },
    ),
    "longer shard": (lengthen_a_shard, {"truncated": "", "shard_size": "", "shard_digest": ""}),
    "missing shard": (lambda root: shard_path(root).unlink(), {"missing_shard": "part-00000"}),
    "swapped shards": (
        swap_two_shards,
        {
            "shard_digest": "these are the bytes of gen-00000/part-00001",
            "shard_size": "",
            "shard_records": "expected 5 records, found 10",
            "source": r"byte 0: it comes from 001\.gnt, of which this shard holds no records",
        },
    ),
    "class count off": (miscount_classes, {"class_counts": "class 0: expected 11 records, found 10"}),
    "record missing": (
        lose_a_record,
        {
            "shard_size": "",
            "shard_digest": "",
            "shard_records": "",
            "class_counts": "",
            "source_records": r"000\.gnt: expected 5 records of it, found 4",
        },
    ),
    "record twice": (
        lambda root: forge(root, lambda before: [*before, before[0]]),
        {"repeated_record": r"byte \d+: the same place .* as .*, byte 0", "repeated_pixels": "1 of its records"},
    ),
    "leftover folder": (leave_a_folder, {"leftover": "train/_building-x/"}),
    "leftover file": (leave_a_file, {"leftover": r"train/gen-00000/_part\.1\.tmp"}),
    "extra shard": (add_a_shard, {"unlisted": "train/gen-00000/part-99999"}),
    "extra generation": (add_a_generation, {"unlisted": "train/gen-00009/"}),
    "charset damaged": (damage_the_charset, {"charset": "charset.json: not a charset|do not fit"}),
    "charset of another dataset": (use_another_charset, {"charset": "test/manifest.json: expected"}),
    "charset gone": (lambda root: (root / "dataset" / "charset.json").unlink(), {"charset": "missing"}),
    "manifest damaged": (
        lambda root: (root / "dataset" / "test" / "manifest.json").write_text("{}"),
        {"manifest": "test/manifest.json: not a manifest"},
    ),
    "manifest gone": (
        lambda root: (root / "dataset" / "test" / "manifest.json").unlink(),
        {"missing_manifest": "such as gen-00000/"},
    ),
    "quarantine file gone": (
        lambda root: (root / "dataset" / "train" / "_quarantine" / "009.gnt.json").unlink(),
        {"quarantine": r"_quarantine/009\.gnt\.json"},
    ),
    "class and text differ": (
        lambda root: forge(root, changed("image/class/text", "阿".encode())),
        {"class": "byte 0: class 0 is 啊, its text says 阿"},
    ),
    "no such class": (
        lambda root: forge(root, changed("image/class/label", 7)),
        {"class": "byte 0: class 7, expected 0 to 4", "class_counts": ""},
    ),
    "wrong number of pixels": (
        lambda root: forge(root, changed("image/encoded", b"12")),
        {"image": r"byte 0: expected \d+ bytes for .*, found 2"},
    ),
    "another format": (
        lambda root: forge(root, changed("image/format", b"png")),
        {"image": "byte 0: format png, expected raw"},
    ),
    "no Example": (lambda root: forge(root, lambda before: [b"\xff", *before[1:]]), {"example": "byte 0"}),
    "another source": (
        lambda root: forge(root, changed("source/file", b"007.gnt")),
        {"source": r"byte 0: it comes from 007\.gnt, of which this shard holds no records", "source_records": ""},
    ),
    "a place behind the source's end": (
        lambda root: forge(root, changed("source/offset", 1 << 40)),
        {"source": f"byte 0: byte {1 << 40} of 000.gnt"},
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found_and_named(
    root: Path, damage: Callable[[Path], Any], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.tasks, "watched", lambda *_: contextlib.nullcontext())
    damage(root)
    result = verify(SimpleNamespace(sparkContext=Here()), root)
    lines = found(result)
    assert set(lines) == set(expected), lines
    for kind, pattern in expected.items():
        assert re.search(pattern, lines[kind]), lines[kind]
    with pytest.raises(BadDataError, match=r"\d+ faults found"):
        result.raise_for_findings()


def test_what_a_job_at_work_has_is_told_and_is_no_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job.tasks, "watched", lambda *_: contextlib.nullcontext())
    dataset = DatasetLayout(str(root / "dataset"))
    here = SimpleNamespace(sparkContext=Here())
    with Lease(dataset.lock, "tfos-job convert"):
        add_a_generation(root)
        leave_a_folder(root)
        leave_a_file(root)
        (root / "dataset" / "__lock.1.tmp").touch()
        result = verify(here, root)
        assert dict(result.findings.counts) == {"in_progress": 4 + len(load(root).shards)}
        assert "in_progress: train/_building-x/: of a job that is at work now" in result.lines()
        result.raise_for_findings()
        (root / "dataset" / "first" / "_building-y").mkdir(parents=True)
        with pytest.raises(BusyError, match="nothing of it is published yet"):
            verify(here, root, dataset_split_name="first")
        assert verify(here, root).findings.num_errors == 0
    assert dict(verify(here, root, dataset_split_name="test").findings.counts) == {"in_progress": 1}  # the lock's, new
    os.utime(root / "dataset" / "__lock.1.tmp", (5, 5))
    assert dict(verify(here, root, dataset_split_name="test").findings.counts) == {"leftover": 1}


def test_shards_that_are_replaced_while_they_are_read_are_no_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(*_: Any) -> contextlib.AbstractContextManager[None]:
        contents = load(root)
        shard_path(root).rename(shard_path(root).with_name("part-new"))
        first = dataclasses.replace(contents.shards[0], file="gen-00000/part-new")
        store(root, dataclasses.replace(contents, shards=(first, *contents.shards[1:])))
        return contextlib.nullcontext()

    monkeypatch.setattr(job.tasks, "watched", replaced)
    with pytest.raises(BusyError, match="train: another job has published a generation while this one was read"):
        verify(SimpleNamespace(sparkContext=Here()), root)


def test_a_changed_source_is_found(spark: SparkSession, root: Path) -> None:
    data = bytearray((root / "train" / "003.gnt").read_bytes())
    data[100] ^= 1
    (root / "train" / "003.gnt").write_bytes(data)
    (root / "train" / "004.gnt").unlink()
    with (root / "train" / "005.gnt").open("ab") as stream:
        stream.write(b"more")
    (root / "train" / "006.gnt").write_bytes(b"")
    result = verify(spark, root, dataset_split_name="train", gnt_dir=str(root / "train"))
    assert dict(result.findings.counts) == {"changed_source": 3, "missing_source": 1}
    assert {finding.file for finding in result.findings.told} == {"003.gnt", "004.gnt", "005.gnt", "006.gnt"}
    assert verify(spark, root).findings.counts == {}  # nobody has asked


def test_a_writer_in_two_splits(spark: SparkSession, root: Path) -> None:
    """Under the same name, and under another one."""
    for name in ("003.gnt", "other.gnt"):
        folder = root / name
        folder.mkdir()
        shutil.copy(root / "train" / "003.gnt", folder / name)
        convert_split(spark, root, "more", gnt_dir=str(folder), charset_size=None, overwrite=True)
        lines = found(verify(spark, root))
        assert set(lines) == {"shared_source", "shared_pixels"}
        assert "003.gnt" in lines["shared_source"]
        assert set(found(verify(spark, root, dataset_split_name="more"))) == {"shared_source"}


def test_the_same_pixels_in_two_splits_and_in_one(spark: SparkSession, root: Path) -> None:
    with (root / "train" / "003.gnt").open("rb") as stream:
        glyph = next(gnt_reader.read_records(stream, "003.gnt"))
    pixels = np.frombuffer(glyph.pixels, np.uint8).reshape(glyph.height, glyph.width)
    white = np.full((20, 20), 255, np.uint8)
    (root / "more").mkdir()
    with (root / "more" / "a.gnt").open("wb") as stream:
        for picture in (white, white, pixels, white, white.reshape(10, 40)):
            gnt.write(stream, glyph.tag, picture)
    convert_split(spark, root, "more", charset_size=None, image_format="png")
    result = verify(spark, root)
    assert dict(result.findings.counts) == {"shared_pixels": 1, "repeated_pixels": 2}
    shared, repeated = result.findings.told
    assert shared.file.startswith("train/gen-00000/part-")
    assert repeated.file == "more"
    assert "the same pixels as more/gen-00000/part-00000-of-00001.tfrecord, byte" in shared.fact
    assert repeated.fact.startswith("2 of its records")
    assert result.findings.num_errors == 1


def test_only_warnings_are_no_error(spark: SparkSession, root: Path) -> None:
    white = np.full((20, 20), 255, np.uint8)
    (root / "more").mkdir()
    with (root / "more" / "a.gnt").open("wb") as stream:
        for _ in range(3):
            gnt.write(stream, gnt.encode_tag("啊"), white)
    convert_split(spark, root, "more", charset_size=None)
    result = verify(spark, root)
    assert (result.findings.num_errors, result.findings.num_warnings) == (0, 2)
    result.raise_for_findings()


def test_what_is_not_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such dataset"):
        verify(NoSpark(), tmp_path / "nowhere")
    (tmp_path / "empty" / "dataset").mkdir(parents=True)
    with pytest.raises(MissingInputError, match="no such split"):
        verify(NoSpark(), tmp_path / "empty")
    with pytest.raises(MissingInputError, match="no such split"):
        verify(NoSpark(), root, dataset_split_name="validation")
    with pytest.raises(MissingInputError, match="no such folder of GNT files"):
        verify(NoSpark(), root, dataset_split_name="test", gnt_dir=str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="--gnt_dir auto"):
        verify(NoSpark(), root, gnt_dir=str(root / "train"))


def test_the_command_ends_with_65_and_the_list(
    spark: SparkSession, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the session that is there; other commands' tests start their own."""
    monkeypatch.setattr(session, "open_session", lambda app_name, master: contextlib.nullcontext(spark))
    flip_a_bit(root)
    assert cli.main(["verify", "--dataset_dir", str(root / "dataset"), "--master", "local[1]"]) == 65
    told = capfd.readouterr()
    value = json.loads(told.out.splitlines()[-1])
    assert value["counts"] == {"checksum": 1, "shard_digest": 1}
    (checksum,) = (finding for finding in value["findings"] if finding["kind"] == "checksum")
    assert checksum["offset"] == 0
    assert f"checksum: {checksum['file']}, byte 0: " in told.err
    assert "tfos-job verify: error: " in told.err.splitlines()[-1]
