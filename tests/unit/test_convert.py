"""The executors' side of conversion, without Spark."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfos_job import storage
from tfos_job.data import convert, gnt, records
from tfos_job.data.convert import Failure, GroupTask, SourceFile
from tfos_job.data.manifest import Source
from tfos_job.errors import BadDataError, StorageError

CHARACTERS = ("啊", "阿", "埃")


def write_gnt(path: Path, text: str, garbage: bytes = b"") -> SourceFile:
    with path.open("wb") as stream:
        for index, character in enumerate(text):
            gnt.write(stream, gnt.encode_tag(character), np.full((4 + index, 3), index, np.uint8))
        stream.write(garbage)
    return SourceFile(path.name, str(path), path.stat().st_size, path.stat().st_mtime)


def task(folder: Path, *sources: SourceFile, **changes: object) -> GroupTask:
    values: dict[str, object] = {
        "shard_file": "part",
        "sources": sources,
        "building_dir": str(folder),
        "characters": CHARACTERS,
        "image_format": "raw",
        "quarantine": False,
    }
    return GroupTask(**values | changes)  # type: ignore[arg-type]


def source(name: str, size_bytes: int) -> SourceFile:
    return SourceFile(name, f"/in/{name}", size_bytes, 0.0)


def test_executors_import_neither_tensorflow_nor_pyspark() -> None:
    code = "import sys, tfos_job.data.convert; print({'tensorflow', 'keras', 'pyspark'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize("num_sources", [1, 2, 7, 8, 9, 90, 300])
def test_groups_share_out_every_source_once_in_order(num_sources: int) -> None:
    sizes = np.random.default_rng(num_sources).integers(0, 20 << 20, num_sources).tolist()
    sources = [source(f"{index:03d}.gnt", size) for index, size in enumerate(sizes)]
    groups = convert.plan_groups(sources[::-1])
    assert [member for group in groups for member in group] == sources
    assert all(groups)
    assert len(groups) == min(num_sources, max(8, -(-sum(sizes) // convert.TARGET_SHARD_BYTES)))
    largest = max(sum(member.size_bytes for member in group) for group in groups)
    assert largest <= sum(sizes) / len(groups) + max(sizes)


def test_one_huge_file_or_empty_ones_do_not_upset_the_plan() -> None:
    assert [len(group) for group in convert.plan_groups([source("a", 1 << 40)])] == [1]
    assert len(convert.plan_groups([source(f"{index}", 0) for index in range(20)])) == 8
    assert len(convert.plan_groups([source("a", 1 << 33), *[source(f"b{i}", 1) for i in range(9)]])) == 10


@pytest.mark.parametrize("image_format", ["raw", "png"])
def test_a_group_becomes_one_shard(tmp_path: Path, image_format: str) -> None:
    first, second = write_gnt(tmp_path / "1.gnt", "啊阿!"), write_gnt(tmp_path / "2.gnt", "阿一一")
    result = convert.convert_group(task(tmp_path, first, second, image_format=image_format))
    with storage.open_read(str(tmp_path / "part")) as stream:
        found = [records.decode_example(data) for _, data in records.read_records(stream, "part")]
    assert [(example["source/file"], example["source/offset"], example["image/class/label"]) for example in found] == [
        (b"1.gnt", 0, 0),
        (b"1.gnt", 22, 1),
        (b"2.gnt", 0, 1),
    ]
    if image_format == "raw":
        assert found[1]["image/encoded"] == bytes([1]) * 15
    assert (result.class_counts, result.filtered, result.bad_ranges) == ({0: 1, 1: 2}, {"!": 1, "一": 2}, ())
    assert result.shard.sha256 == convert.file_sha256(str(tmp_path / "part"))
    assert result.shard.size_bytes == (tmp_path / "part").stat().st_size
    assert [member.num_records for member in result.shard.sources] == [3, 3]
    assert result.shard.sources[0].sha256 == convert.file_sha256(first.path)
    before = (tmp_path / "part").read_bytes()
    assert pickle.loads(pickle.dumps(convert.convert_group(task(tmp_path, first, second, image_format=image_format))))
    assert (tmp_path / "part").read_bytes() == before  # a task that runs twice is harmless


def test_bad_bytes_fail_or_are_accounted_for(tmp_path: Path) -> None:
    bad = write_gnt(tmp_path / "1.gnt", "啊阿", garbage=b"\0" * 13)
    failure = convert.attempt(convert.convert_group, task(tmp_path, bad))
    assert isinstance(failure, Failure)
    copy = pickle.loads(pickle.dumps(failure)).error
    assert (type(copy), str(copy)) == (BadDataError, str(failure.error))
    assert f"{bad.path}, byte 47: impossible size" in str(copy)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1.gnt"]
    result = convert.convert_group(task(tmp_path, bad, quarantine=True))
    assert [(found.source, found.start, found.end) for found in result.bad_ranges] == [("1.gnt", 47, 60)]
    assert result.shard.sources[0].size_bytes == bad.size_bytes
    assert convert.scan_tags(task(tmp_path, bad, quarantine=True)) == ("啊", "阿")


def test_a_file_that_grows_while_it_is_read_is_not_believed(tmp_path: Path) -> None:
    before = write_gnt(tmp_path / "1.gnt", "啊")
    write_gnt(tmp_path / "1.gnt", "啊阿")
    with pytest.raises(StorageError, match="changed while it was read"):
        convert.convert_group(task(tmp_path, before))


def test_changes_of_the_input_are_named(tmp_path: Path) -> None:
    texts = {"1": "啊", "2": "阿", "3": "埃", "4": "啊"}
    files = {name: write_gnt(tmp_path / name, text) for name, text in texts.items()}
    converted = [
        Source(
            name=name,
            size_bytes=file.size_bytes,
            mtime_s=file.mtime_s,
            sha256=convert.file_sha256(file.path),
            num_records=1,
        )
        for name, file in files.items()
    ]
    assert convert.source_changes(list(files.values()), converted) == []
    os.utime(tmp_path / "1", (1, 1))  # a copy: another time, the same bytes
    copied = SourceFile("1", files["1"].path, files["1"].size_bytes, 1.0)
    assert convert.source_changes([copied, *list(files.values())[1:]], converted) == []
    other = write_gnt(tmp_path / "2", "埃")
    other = SourceFile("2", other.path, other.size_bytes, 2.0)
    longer = write_gnt(tmp_path / "3", "埃埃")
    new = write_gnt(tmp_path / "5", "埃")
    assert convert.source_changes([copied, other, longer, new], converted) == [
        "5 is new",
        "4 is gone",
        "2 has other bytes",
        f"3 has {longer.size_bytes} bytes, had {files['3'].size_bytes}",
    ]
