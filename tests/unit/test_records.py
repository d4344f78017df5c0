"""Files of inputs as a network sees them: what cannot be read is told in its place, and nothing else is lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.unit.conftest import WriteShard, png_bytes
from tests.unit.small_checkpoints import META, model_arrays
from tests.unit.test_infer import gnt_bytes
from tfos_job.errors import StorageError
from tfos_job.formats.charset import Charset
from tfos_job.inference.answering import Answering
from tfos_job.inference.predictor import Predictor
from tfos_job.inference.records import RecordReader, Sight, ahead
from tfos_job.layout import RunLayout
from tfos_job.networks import registry
from tfos_job.run import checkpoints
from tfos_job.scoring import inputs
from tfos_job.scoring.inputs import SHARD, InputFile

CLASSES = "一丁"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    run = RunLayout(str(tmp_path_factory.mktemp("run")))
    checkpoints.publish(run, 1, model_arrays(registry.build(**META["model"], seed=1)), META)
    return Predictor(run.root)


@pytest.fixture
def charset(tmp_path: Path) -> str:
    path = tmp_path / "charset.json"
    path.write_text(json.dumps(Charset(tuple(CLASSES)).to_json()), "utf-8")
    return str(path)


def glyphs(count: int) -> list[tuple[np.ndarray, int]]:
    draw = np.random.default_rng(count)
    return [(draw.integers(0, 256, (8, 8), np.uint8), number % 2) for number in range(count)]


def read(predictor: Predictor, *files: InputFile) -> list[Sight]:
    return list(RecordReader(predictor).read(files))


def shard(path: str, num_records: int, charset: str) -> InputFile:
    """A shard as it was when its manifest was written."""
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return InputFile(SHARD, path, 1, sha256, num_records=num_records, charset=charset)


def test_a_record_that_cannot_be_decoded_costs_no_other_one(
    predictor: Predictor, charset: str, write_shard: WriteShard, tmp_path: Path
) -> None:
    records = glyphs(5)
    path = write_shard("a.tfrecord", records, "png")
    whole = read(predictor, shard(path, 5, charset))
    assert [sight.label for sight in whole] == ["一", "丁", "一", "丁", "一"]
    assert [sight.offset for sight in whole] == sorted({sight.offset for sight in whole})
    for sight, (pixels, _) in zip(whole, records, strict=True):
        np.testing.assert_array_equal(sight.image[:, :, 0], pixels)  # type: ignore[index]
    records[2] = (np.zeros((0, 8), np.uint8), 0)  # raw pixels that are none
    mixed = write_shard("b.tfrecord", records, "raw")
    found = read(predictor, shard(mixed, 5, charset))
    assert [bool(sight.error) for sight in found] == [False, False, True, False, False]
    assert found[2].image is None
    for one, other in zip(found[3:], whole[3:], strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("cut", "num_records", "last", "words"),
    [
        (3, 4, True, "truncated: .* 1 of 4 records are lost"),
        (0, 6, False, "holds 4 records, its manifest says 6"),
    ],
)
def test_what_a_shard_lacks_is_told_behind_what_it_has(
    predictor: Predictor,
    charset: str,
    write_shard: WriteShard,
    cut: int,
    num_records: int,
    last: bool,
    words: str,
) -> None:
    path = Path(write_shard("a.tfrecord", glyphs(4)))
    file = shard(str(path), num_records, charset)
    path.write_bytes(path.read_bytes()[: -cut or None])
    *good, bad = read(predictor, file)
    assert [sight.error for sight in good] == [""] * (4 - last)
    assert re.match(words, bad.error)
    assert (bad.offset is not None) == last


def test_what_is_gone_is_a_row(predictor: Predictor, charset: str, tmp_path: Path) -> None:
    (tmp_path / "1.gnt").write_bytes(gnt_bytes("一"))
    (there,) = inputs.find(str(tmp_path / "1.gnt")).files
    (tmp_path / "1.gnt").unlink()
    (sight,) = read(predictor, there)
    assert (sight.source, sight.offset) == (str(tmp_path / "1.gnt"), None)
    assert "not there" in sight.error


def test_what_has_changed_since_it_was_found_is_told_and_not_mixed_in(
    predictor: Predictor, charset: str, write_shard: WriteShard, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("1.gnt", "2.gnt", "3.gnt"):
        (tmp_path / "in" / name).write_bytes(gnt_bytes("一"))
    with zipfile.ZipFile(tmp_path / "in" / "4.zip", "w") as archive:
        archive.writestr("a.gnt", gnt_bytes("丁"))
    files = inputs.find(str(tmp_path / "in")).files
    (tmp_path / "in" / "1.gnt").write_bytes(gnt_bytes("一丁"))
    os.utime(tmp_path / "in" / "2.gnt", (1, 1))
    os.utime(tmp_path / "in" / "4.zip", (1, 1))
    found = {Path(sight.source).name: sight for sight in read(predictor, *files)}
    assert list(found) == ["1.gnt", "2.gnt", "3.gnt", "a.gnt"]
    assert [sight.image is None for sight in found.values()] == [True, True, False, True]
    assert re.match(r"changed since the job began: it has \d+ bytes, had \d+\. Run infer again", found["1.gnt"].error)
    assert "it was written again" in found["2.gnt"].error
    assert "it was written again" in found["a.gnt"].error

    (tmp_path / "p.png").write_bytes(png_bytes(np.full((9, 9), 255, np.uint8)))
    (picture,) = inputs.find(str(tmp_path / "p.png")).files
    (tmp_path / "p.png").write_bytes(png_bytes(np.full((9, 99), 255, np.uint8)))
    assert read(predictor, picture)[0].error.startswith("changed since the job began")

    path = write_shard("a.tfrecord", glyphs(4))
    planned = shard(path, 4, charset)
    write_shard("a.tfrecord", list(reversed(glyphs(4))))  # of others, who write it again
    *records, last = read(predictor, planned)
    assert len(records) == 4
    assert last.error.startswith("changed since the job began: its SHA-256 is not its manifest's")


def test_of_a_damaged_member_of_an_archive_nothing_is_taken(predictor: Predictor, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.gnt", gnt_bytes("一丁"))
        archive.writestr("2.gnt", gnt_bytes("丁龘"))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(gnt_bytes("一丁")) + 12] ^= 1  # a pixel
    (tmp_path / "a.zip").write_bytes(data)
    found = list(Answering(predictor, top_k=5, batch_size=2).rows(inputs.find(str(tmp_path / "a.zip")).files))
    assert [bool(row.error) for row in found] == [True, False, False]
    assert "CRC-32" in found[0].error
    assert [(row.source.rpartition("/")[2], row.label, row.label_id) for row in found] == [
        ("1.gnt", None, None),
        ("2.gnt", "丁", 1),
        ("2.gnt", "龘", None),  # which the model does not know
    ]
    assert [len(row.classes) for row in found] == [0, 2, 2]
    assert sum(found[1].probabilities) == pytest.approx(1)


def test_what_is_made_ahead_comes_in_order_with_its_error_and_stops_with_its_reader() -> None:
    def failing() -> Iterator[int]:
        yield from range(5)
        raise StorageError("gone")

    coming = ahead(failing(), 2)
    assert [next(coming) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(StorageError, match="gone"):
        next(coming)
    endless = ahead(iter(int, 1), 2)
    assert next(endless) == 0
    endless.close()  # type: ignore[attr-defined]
    while any(thread.name == "ahead" for thread in threading.enumerate()):
        threading.Event().wait(0.01)
