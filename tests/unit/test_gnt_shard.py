"""The executors' side of conversion, without Spark."""

from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfos_job import storage
from tfos_job.conversion import digests, gnt_shard, source_changes
from tfos_job.conversion.gnt_shard import CutTask, GroupTask
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.driver import task_attempts
from tfos_job.driver.task_attempts import TaskFailure
from tfos_job.errors import BadDataError, StorageError
from tfos_job.formats import gnt, tf_example, tfrecord
from tfos_job.formats.manifest_parts import Shard, Source, SourceRange

CHARACTERS = ("啊", "阿", "埃")


def write_gnt(path: Path, text: str, garbage: bytes = b"", first: int = 0) -> SourceFile:
    with path.open("wb") as stream:
        for index, character in enumerate(text, start=first):
            gnt.write(stream, gnt.encode_tag(character), np.full((4 + index - first, 3), index, np.uint8))
        stream.write(garbage)
    return SourceFile(path.name, str(path), path.stat().st_size, path.stat().st_mtime)


def whole(source: SourceFile) -> Piece:
    return Piece(source, 0, source.size_bytes)


def task(folder: Path, *pieces: Piece, **changes: object) -> GroupTask:
    values: dict[str, object] = {
        "shard_file": "part",
        "pieces": pieces,
        "building_dir": str(folder),
        "characters": CHARACTERS,
        "image_format": "raw",
        "quarantine": False,
    }
    return GroupTask(**values | changes)  # type: ignore[arg-type]


def examples(path: str) -> list[dict[str, bytes | int]]:
    with storage.open_read(path) as stream:
        return [tf_example.decode_example(data) for _, data in tfrecord.read_records(stream, path)]


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_executors_import_neither_tensorflow_nor_pyspark() -> None:
    code = "import sys, tfos_job.conversion.gnt_shard; print({'tensorflow', 'keras', 'pyspark'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize("image_format", ["raw", "png"])
def test_a_group_becomes_one_shard(tmp_path: Path, image_format: str) -> None:
    first, second = write_gnt(tmp_path / "1.gnt", "啊阿!"), write_gnt(tmp_path / "2.gnt", "阿一一")
    work = task(tmp_path, whole(first), whole(second), image_format=image_format)
    result = gnt_shard.convert_group(work)
    found = examples(result.written_file)
    assert [(example["source/file"], example["source/offset"], example["image/class/label"]) for example in found] == [
        (b"1.gnt", 0, 0),
        (b"1.gnt", 22, 1),
        (b"2.gnt", 0, 1),
    ]
    if image_format == "raw":
        assert found[1]["image/encoded"] == bytes([1]) * 15
    assert result.class_counts == {0: 1, 1: 2}
    assert [(piece.name, piece.num_records, piece.filtered) for piece in result.pieces] == [
        ("1.gnt", 3, {"!": 1}),
        ("2.gnt", 3, {"一": 2}),
    ]
    written = Path(result.written_file).read_bytes()
    assert result.shard == Shard(
        file="part",
        size_bytes=len(written),
        sha256=sha256(result.written_file),
        num_records=3,
        sources=("1.gnt", "2.gnt"),
    )
    assert result.pieces[0].range == SourceRange(start=0, end=first.size_bytes, sha256=sha256(first.path))
    again = pickle.loads(pickle.dumps(gnt_shard.convert_group(work)))
    assert again.written_file != result.written_file  # a task that runs twice is in nobody's way
    assert Path(again.written_file).read_bytes() == written


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (65, 257)])
def test_png_is_what_others_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(shape[0]).integers(0, 256, shape, np.uint8)
    path = tmp_path / "1.gnt"
    with path.open("wb") as stream:
        gnt.write(stream, gnt.encode_tag("啊"), pixels)
    source = SourceFile(path.name, str(path), path.stat().st_size, path.stat().st_mtime)
    (example,) = examples(gnt_shard.convert_group(task(tmp_path, whole(source), image_format="png")).written_file)
    image = Image.open(io.BytesIO(bytes(example["image/encoded"])))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(tf.io.decode_png(example["image/encoded"])[..., 0], pixels)


def test_pieces_of_a_file_are_the_file(tmp_path: Path) -> None:
    """Cut anywhere at all: what the pieces' readers take is each record once, if they meet; and mostly they do."""
    source = write_gnt(tmp_path / "1.gnt", "啊阿埃啊阿埃啊阿")
    expected = examples(gnt_shard.convert_group(task(tmp_path, whole(source))).written_file)
    for stop in range(1, source.size_bytes):
        pieces = Piece(source, 0, stop), Piece(source, stop, source.size_bytes, within=True)
        first, second = gnt_shard.convert_group(task(tmp_path, *pieces)).pieces
        assert first.range.end == second.range.start, stop
        result = gnt_shard.convert_group(task(tmp_path, *pieces))
        assert examples(result.written_file) == expected
        data = Path(source.path).read_bytes()[first.range.end :]
        assert second.range.sha256 == hashlib.sha256(data).hexdigest()


def test_a_cut_that_was_guessed_wrong_is_found(tmp_path: Path) -> None:
    """A bitmap that holds what looks like records: a reader that begins within it takes them for records."""
    trap = io.BytesIO()
    for index in range(4):
        gnt.write(trap, gnt.encode_tag("啊"), np.full((2, 2), index, np.uint8))
    bait = np.frombuffer(trap.getvalue(), np.uint8)[None, :]
    path = tmp_path / "1.gnt"
    with path.open("wb") as stream:
        for pixels in (np.zeros((3, 3), np.uint8), bait, np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8)):
            gnt.write(stream, gnt.encode_tag("阿"), pixels)
    source = SourceFile(path.name, str(path), path.stat().st_size, path.stat().st_mtime)
    stop = 25  # within the second record
    pieces = Piece(source, 0, stop), Piece(source, stop, source.size_bytes, within=True)
    first, second = gnt_shard.convert_group(task(tmp_path, *pieces, quarantine=True)).pieces
    assert first.range.end != second.range.start
    cut, end = gnt_shard.find_cuts(CutTask(source, (stop, source.size_bytes), quarantine=False))
    assert (cut, end) == (first.range.end, source.size_bytes)


def test_no_piece_of_an_archive_is_searched_for_records(tmp_path: Path) -> None:
    write_gnt(tmp_path / "1.gnt", "啊阿埃啊阿埃")
    with tarfile.open(tmp_path / "2.gnt", "w") as archive:
        archive.add(tmp_path / "1.gnt", "1.gnt")
    size = (tmp_path / "2.gnt").stat().st_size
    source = SourceFile("2.gnt", str(tmp_path / "2.gnt"), size, 0.0)
    pieces = [Piece(source, 0, 515), Piece(source, 515, 600, within=True), Piece(source, 600, size, within=True)]
    found = gnt_shard.convert_group(task(tmp_path, *pieces, quarantine=True)).pieces
    assert [(piece.num_records, piece.range.start, piece.range.end) for piece in found] == [
        (0, 0, size),
        (0, size, size),
        (0, size, size),
    ]
    assert [(bad.start, bad.end, bad.reason) for piece in found for bad in piece.bad_ranges] == [
        (0, size, "not a GNT file: expected a record, found a TAR archive")
    ]


def test_bad_bytes_fail_or_are_set_aside(tmp_path: Path) -> None:
    bad = write_gnt(tmp_path / "1.gnt", "啊阿", garbage=b"\0" * 13)
    failure = task_attempts.attempt(gnt_shard.convert_group, task(tmp_path, whole(bad)))
    assert isinstance(failure, TaskFailure)
    copy = pickle.loads(pickle.dumps(failure)).error
    assert (type(copy), str(copy)) == (BadDataError, str(failure.error))
    assert f"{bad.path}, byte 47: impossible size" in str(copy)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1.gnt"]
    result = gnt_shard.convert_group(task(tmp_path, whole(bad), quarantine=True))
    assert [(found.source, found.start, found.end) for found in result.pieces[0].bad_ranges] == [("1.gnt", 47, 60)]
    assert result.pieces[0].range.end == bad.size_bytes
    assert gnt_shard.scan_tags(task(tmp_path, whole(bad), quarantine=True)) == ("啊", "阿")


def test_a_file_that_grows_while_it_is_read_is_not_believed(tmp_path: Path) -> None:
    before = write_gnt(tmp_path / "1.gnt", "啊")
    write_gnt(tmp_path / "1.gnt", "啊阿")
    with pytest.raises(StorageError, match="changed while it was read"):
        gnt_shard.convert_group(task(tmp_path, whole(before)))


def test_changes_of_the_input_are_named(tmp_path: Path) -> None:
    texts = {"1": "啊", "2": "阿", "3": "埃", "4": "啊"}
    files = {name: write_gnt(tmp_path / name, text) for name, text in texts.items()}
    converted = [
        Source(
            name=name,
            size_bytes=file.size_bytes,
            mtime_s=file.mtime_s,
            num_records=1,
            filtered={},
            quarantined_bytes=0,
            generation=0,
            ranges=(SourceRange(start=0, end=file.size_bytes, sha256=sha256(file.path)),),
        )
        for name, file in files.items()
    ]

    def changes(*found: SourceFile) -> source_changes.Changes:
        compared = [each for each in source_changes.comparisons(found, converted) if digests.has_same_bytes(each)]
        return source_changes.source_changes(found, converted, compared)

    assert source_changes.comparisons(list(files.values()), converted) == []  # nothing need be read
    assert str(changes(*files.values())) == ""
    copied = SourceFile("1", files["1"].path, files["1"].size_bytes, 1.0)  # another time, the same bytes
    found = changes(copied, *list(files.values())[1:])
    assert (str(found), found.touched) == ("", (copied,))
    other = write_gnt(tmp_path / "2", "埃", first=7)
    other = SourceFile("2", other.path, other.size_bytes, 2.0)
    longer = write_gnt(tmp_path / "3", "埃埃")
    new = write_gnt(tmp_path / "5", "埃埃埃")
    found = changes(copied, other, longer, new)
    assert (found.added, found.changed, found.gone, found.renamed) == ((new,), (other, longer), ("4",), ())
    assert str(found) == "5 is new, 2 has other bytes, 3 has other bytes, 4 is gone"
    renamed = SourceFile("6", files["4"].path, files["4"].size_bytes, 9.0)
    found = changes(*list(files.values())[:1], renamed)
    assert found.renamed == ("6 is 4 under another name",)
