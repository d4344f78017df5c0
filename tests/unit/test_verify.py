"""The core of `verify`, without Spark."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tfos_job.formats import charset as charsets
from tfos_job.formats import example_reader, tf_example, tfrecord
from tfos_job.formats.example_reader import ExampleReader, read_any
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Shard, Source, SourceRange
from tfos_job.formats.png import decode
from tfos_job.verification import record_scan, shard_proof
from tfos_job.verification.consistency import check_names, check_shards, check_splits
from tfos_job.verification.duplicates import KeyTable, check_repeats, repeats, sum_repeats
from tfos_job.verification.findings import MAX_TOLD, Findings
from tfos_job.verification.shard_proof import ShardReport, ShardTask, verify_shard
from tfos_job.verification.source_proof import RangeTask, verify_ranges

FEATURES: dict[str, bytes | int] = {
    "image/class/label": 1,
    "image/class/text": "阿".encode(),
    "image/encoded": bytes(range(12)),
    "image/format": b"raw",
    "image/height": 3,
    "image/width": 4,
    "source/file": b"001.gnt",
    "source/offset": 0,
}


def example(**changes: bytes | int) -> bytes:
    return tf_example.encode_example(FEATURES | {key.replace("__", "/"): value for key, value in changes.items()})


def glyph(index: int = 0, **changes: bytes | int) -> bytes:
    """A record of its own: other pixels and another place."""
    values = {"image__encoded": bytes([index] * 12), "source__offset": 22 * index}
    return example(**values | changes)


# --- examples --------------------------------------------------------------------------------------------------------


def test_what_conversion_writes_is_read_by_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [*range(140), *range(16_250, 16_400), *range(2_097_000, 2_097_160, 9)]  # lengths' varints grow there
    others = itertools.cycle([0, 1, 127, 128, 3754, 16_383, 16_384, 1 << 40])
    encoded = [
        example(image__encoded=bytes(size), image__class__label=next(others), source__offset=next(others))
        for size in lengths
    ]
    expected = [read_any(data) for data in encoded]

    def refuse(_: bytes) -> Any:
        raise AssertionError("read the long way")

    monkeypatch.setattr(example_reader, "read_any", refuse)
    reader = ExampleReader()
    assert [reader.read(data) for data in encoded] == expected


def test_what_others_write_is_read_too() -> None:
    features = {
        key: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        if isinstance(value, int)
        else tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for key, value in reversed(FEATURES.items())
    }
    data = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    assert ExampleReader().read(data) == read_any(example())
    del features["source/file"], features["source/offset"]
    data = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    assert (ExampleReader().read(data).source_file, ExampleReader().read(data).source_offset) == (None, -1)
    negative = example(image__class__label=-1)
    assert ExampleReader().read(negative).label == -1


@pytest.mark.parametrize(
    ("features", "fact"),
    [
        ({key: value for key, value in FEATURES.items() if key != "image/width"}, "no feature 'image/width'"),
        ({key: value for key, value in FEATURES.items() if key != "source/file"}, "no feature 'source/file'"),
        (FEATURES | {"more": 1}, "unknown feature 'more'"),
        (FEATURES | {"image/height": b"3"}, "feature 'image/height' is bytes, expected int"),
    ],
)
def test_examples_that_are_no_glyphs(features: dict[str, bytes | int], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        ExampleReader().read(tf_example.encode_example(features))


READER = ExampleReader()  # one for all cases, so that what it remembers of one is there for the next


@settings(max_examples=1000, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(0, 200),
    st.lists(st.tuples(st.sampled_from(["set", "delete", "insert", "move"]), st.integers(0), st.integers(0, 255))),
)
def test_the_quick_way_never_differs_from_the_long_one(size: int, changes: list[tuple[str, int, int]]) -> None:
    data = example(image__encoded=bytes(size))
    assert READER.read(data) == read_any(data)
    for change, at, byte in changes:
        at %= len(data) or 1
        match change:
            case "set":
                data = data[:at] + bytes((byte,)) + data[at + 1 :]
            case "delete":
                data = data[:at] + data[at + byte % 9 + 1 :]
            case "insert":
                data = data[:at] + bytes((byte,)) + data[at:]
            case "move":
                data = data[at:] + data[:at]
    try:
        expected: Any = read_any(data)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it is that does not fit
            READER.read(data)
    else:
        assert READER.read(data) == expected


# --- a shard ---------------------------------------------------------------------------------------------------------


def tfrecords(payloads: list[bytes]) -> bytes:
    stream = io.BytesIO()
    for payload in payloads:
        tfrecord.write_record(stream, payload)
    return stream.getvalue()


def scanned(data: bytes) -> tuple[list[tuple[int, bytes | None]], list[tuple[str, int]]]:
    faults: list[tuple[str, int]] = []
    return list(record_scan.scan(io.BytesIO(data), lambda kind, offset, _: faults.append((kind, offset)))), faults


def test_scanning_goes_on_behind_damaged_data_and_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [b"x" * size for size in (0, 1, 30, 64, 200, 5)]
    whole = tfrecords(payloads)
    offsets = [offset for offset, _ in tfrecord.read_records(io.BytesIO(whole), "a")]
    for block_bytes in (1, 7, 64, 1 << 20):
        monkeypatch.setattr(record_scan, "BLOCK_BYTES", block_bytes)
        assert scanned(whole) == (list(zip(offsets, payloads, strict=True)), [])
        spoilt = bytearray(whole)
        spoilt[offsets[2] + 20] ^= 1
        found, faults = scanned(bytes(spoilt))
        assert found == [(at, None if at == offsets[2] else data) for at, data in zip(offsets, payloads, strict=True)]
        assert faults == [("checksum", offsets[2])]
        spoilt[offsets[4]] ^= 1
        found, faults = scanned(bytes(spoilt))
        assert [at for at, _ in found] == offsets[:4]
        assert faults == [("checksum", offsets[2]), ("checksum", offsets[4])]
        for cut in range(1, 21):  # the last record has 21 bytes
            assert scanned(whole[:-cut]) == (
                list(zip(offsets[:-1], payloads, strict=False)),
                [("truncated", offsets[-1])],
            )


def test_a_length_that_is_too_large_is_not_believed() -> None:
    length = struct.pack("<Q", 1 << 40)
    found, faults = scanned(length + struct.pack("<I", tfrecord.masked_crc(length)) + bytes(100))
    assert (found, faults) == ([], [("record_size", 0)])


def prove(tmp_path: Path, payloads: list[bytes], **changes: Any) -> shard_proof.ShardProof:
    path = tmp_path / "part"
    path.write_bytes(tfrecords(payloads))
    values: dict[str, Any] = {
        "number": 7,
        "path": str(path),
        "file": "train/part",
        "shard": Shard(
            file="part", size_bytes=path.stat().st_size, sha256="", num_records=len(payloads), sources=("001.gnt",)
        ),
        "image_format": "raw",
        "characters": ("啊", "阿"),
        "sources": {"001.gnt": (3, 1000)},
    }
    return verify_shard(ShardTask(**values | changes))


def test_the_counts_of_a_shard(tmp_path: Path) -> None:
    other = {"image__class__label": 0, "image__class__text": "啊".encode()}
    proof = prove(tmp_path, [glyph(0), glyph(1), glyph(0, source__offset=100, **other)])
    report = proof.report
    assert (report.num_records, report.whole, report.findings.told) == (3, True, [])
    assert (report.class_counts, report.source_counts) == ({1: 2, 0: 1}, {"001.gnt": 3})
    assert proof.places.keys.tolist() == [[3, 0], [3, 22], [3, 100]]
    assert (proof.pixels.keys[0] == proof.pixels.keys[2]).all()
    assert (proof.pixels.keys[0] != proof.pixels.keys[1]).any()
    assert proof.pixels.shards.tolist() == [7, 7, 7]


def test_the_same_bytes_in_another_shape_are_other_pixels_and_png_is_the_same(tmp_path: Path) -> None:
    wide = prove(tmp_path, [glyph(0, image__height=2, image__width=6), glyph(0)]).pixels
    assert (wide.keys[0] != wide.keys[1]).any()
    packed = glyph(0, image__encoded=png(np.zeros((3, 4), np.uint8)), image__format=b"png")
    assert (prove(tmp_path, [packed], image_format="png").pixels.keys[0] == wide.keys[1]).all()


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("encoded", "fact"),
    [
        (png(np.zeros((4, 3), np.uint8)), "expected a grey PNG of 4 × 3, .* found 3 × 4"),
        (png(np.zeros((3, 4, 3), np.uint8)), "found 4 × 3, depth 8, colour type 2"),
        (png(np.zeros((3, 4), np.uint8))[:-1], "ends before its end mark"),
        (png(np.zeros((3, 4), np.uint8))[:50], "longer than the file"),
        (png(np.zeros((3, 4), np.uint8))[:-12], "ends before its end mark"),
        (png(np.zeros((3, 4), np.uint8)) + b"more", "4 bytes behind its end mark"),
        (b"", "does not begin with the signature"),
        (b"GIF89a" + bytes(20), "does not begin with the signature"),
    ],
)
def test_what_is_no_png_of_its_size(encoded: bytes, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        decode(encoded, 3, 4)


def test_pixels_of_a_png_are_those_that_pillow_sees_and_no_flipped_bit_passes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), np.uint8)
    pixels[3:] = np.arange(7)  # rows that Pillow's writer would rather filter
    for encoded in (png(pixels), png(np.zeros((9, 7), np.uint8))):
        with Image.open(io.BytesIO(encoded)) as image:
            assert decode(encoded, 9, 7) == image.tobytes()
        for bit in range(8 * len(encoded)):
            spoilt = bytearray(encoded)
            spoilt[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ValueError, match="PNG"):
                decode(bytes(spoilt), 9, 7)


def test_a_shard_with_faults_is_read_to_its_end(tmp_path: Path) -> None:
    bad = [
        glyph(1, image__height=0),
        glyph(2, image__height=5000),
        glyph(3, source__offset=979),  # byte 1000 is the source's end: 978 is the last that a record may begin at
        glyph(4, source__offset=-1),
        b"\xff",
        glyph(5, source__offset=978),
    ]
    report = prove(tmp_path, bad).report
    assert dict(report.findings.counts) == {"image": 2, "source": 2, "example": 1}
    assert (report.num_records, report.whole, sum(report.class_counts.values())) == (6, False, 5)
    unnamed = {key: value for key, value in FEATURES.items() if not key.startswith("source/")}
    assert dict(prove(tmp_path, [tf_example.encode_example(unnamed)]).report.findings.counts) == {"source": 1}
    assert prove(tmp_path, [tf_example.encode_example(unnamed)], sources=None).report.findings.told == []
    free = prove(tmp_path, [glyph(0), glyph(1), glyph(0), glyph(0, source__file=b"b")], sources=None)
    first, second = repeats([free.places])
    assert free.report.findings.told == []
    assert (len(first), int(second.offsets[0])) == (1, int(free.places.offsets[2]))


def test_source_files_are_compared_range_by_range(tmp_path: Path) -> None:
    path = tmp_path / "001.gnt"
    path.write_bytes(b"onetwo")
    parts = [(0, 3, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"), (3, 6, "ff")]
    tasks = tuple(
        RangeTask(path=str(path), name="001.gnt", size_bytes=6, range=SourceRange(start=start, end=end, sha256=digest))
        for start, end, digest in parts
    )
    (finding,) = verify_ranges(tasks).told
    assert str(finding).startswith("changed_source: 001.gnt, byte 3: bytes 3 to 6: expected SHA-256 ff")


# --- what is twice ---------------------------------------------------------------------------------------------------


def table(rows: list[tuple[int, int, int]]) -> KeyTable:
    """Rows of a key, a shard and an offset."""
    keys = np.array([[key, key * 7] for key, _, _ in rows], np.uint64).reshape(-1, 2)
    return KeyTable(keys, np.array([r[1] for r in rows], np.uint32), np.array([r[2] for r in rows], np.uint64))


def test_buckets_find_what_is_twice_wherever_it_is() -> None:
    draw = np.random.default_rng(0)
    rows = [(int(draw.integers(300)), shard, 10 * index) for shard in range(5) for index in range(100)]
    expected = sum(count - 1 for count in Counter(key for key, _, _ in rows).values())
    for num_buckets in (1, 2, 7):
        buckets: dict[int, list[KeyTable]] = {}
        for shard in range(5):
            for bucket, part in table([row for row in rows if row[1] == shard]).deal(num_buckets):
                assert 0 <= bucket < num_buckets
                buckets.setdefault(bucket, []).append(part)
        assert sum(len(part) for parts in buckets.values() for part in parts) == len(rows)
        pairs = [repeats(parts) for parts in buckets.values()]
        assert sum(len(first) for first, _ in pairs) == expected
        assert all((first.keys == second.keys).all() for first, second in pairs)
    assert len(buckets) == 7
    assert list(table([]).deal(3)) == []
    assert len(repeats([])[0]) == 0


def test_twice_in_two_splits_is_an_error_and_within_one_a_warning() -> None:
    files, splits = ["a/part", "b/part-0", "b/part-1"], ["a", "b", "b"]
    pixels = table([(1, 0, 5), (1, 1, 6), (1, 2, 7), (2, 1, 8), (2, 1, 9), (3, 0, 1), (4, 2, 2)])
    places = table([(9, 1, 3), (9, 2, 4)])
    found = sum_repeats([check_repeats([pixels], [places], files, splits), check_repeats([], [], files, splits)])
    assert [str(finding) for finding in found.told] == [
        "repeated_record: b/part-1, byte 4: the same place in the same source file as b/part-0, byte 3",
        "shared_pixels: b/part-0, byte 6: the same pixels as a/part, byte 5, of split a",
        "repeated_pixels: b: 2 of its records have the pixels of another one: such as b/part-1, byte 7, and b/part-0, "
        "byte 6",
    ]
    assert (found.num_errors, found.num_warnings) == (2, 2)


# --- consistency -----------------------------------------------------------------------------------------------------


def source(name: str = "001.gnt", **changes: Any) -> Source:
    values: dict[str, Any] = {
        "name": name,
        "size_bytes": 10,
        "mtime_s": 1.0,
        "num_records": 3,
        "filtered": {"!": 1},
        "quarantined_bytes": 0,
        "generation": 0,
        "ranges": (SourceRange(start=0, end=10, sha256=f"of {name}"),),
    }
    return Source(**values | changes)


def manifest(**changes: Any) -> Manifest:
    charset = charsets.from_characters("啊阿")
    values: dict[str, Any] = {
        "split_name": "train",
        "generation": 1,
        "image_format": "raw",
        "charset_digest": charset.digest,
        "shards": tuple(
            Shard(file=f"gen-0000{i}/part", size_bytes=5, sha256=str(i), num_records=1, sources=()) for i in (0, 1)
        ),
        "sources": (source(),),
        "class_counts": (2, 0),
        "settings": {},
        "history": (),
        "created": "",
        "package_version": "",
    }
    return Manifest(**values | changes)


def report(number: int, **changes: Any) -> ShardReport:
    values: dict[str, Any] = {
        "number": number,
        "size_bytes": 5,
        "sha256": str(number),
        "num_records": 1,
        "class_counts": {0: 1},
        "source_counts": {"001.gnt": 1},
    }
    return ShardReport(**values | changes)


def test_sums_are_compared_only_where_they_can_be_right() -> None:
    assert check_shards("train", manifest(), [report(0), report(1)]).counts == {}
    off = [report(0, class_counts={1: 1}), report(1, source_counts={"002.gnt": 1})]
    found = check_shards("train", manifest(), off)
    assert dict(found.counts) == {"class_counts": 2, "source_records": 1}
    off[0].whole = False
    assert check_shards("train", manifest(), off).counts == {}
    assert check_shards("train", manifest(sources=()), [report(0), report(1, source_counts={})]).counts == {}


def test_names_that_should_not_be_there() -> None:
    names = [
        "manifest.json",
        "gen-00000/", "gen-00000/part", "gen-00001/", "gen-00001/part", "gen-00001/part.tmp", "gen-00001/more",
        "gen-00002/", "gen-00002/part",
        "_building-x/", "_building-x/deep/", "_building-x/deep/part",
        "_part.1.tmp", "_dir.1.tmp/", "_dir.1.tmp/part",
    ]  # fmt: skip
    found = check_names("train", manifest(sources=(source(quarantined_bytes=3),)), names)
    assert [(finding.kind, finding.file) for finding in found.told] == [
        ("leftover", "train/gen-00001/part.tmp"),
        ("leftover", "train/_building-x/"),
        ("leftover", "train/_part.1.tmp"),
        ("leftover", "train/_dir.1.tmp/"),
        ("unlisted", "train/gen-00001/more"),
        ("unlisted", "train/gen-00002/"),
        ("unlisted", "train/gen-00002/part"),
        ("quarantine", "train/_quarantine/001.gnt.json"),
    ]
    found = check_names("train", manifest(), names, at_work=True)
    assert (dict(found.counts), found.num_errors) == ({"in_progress": 7}, 0)
    (finding,) = check_names("train", manifest(), ["gen-00000/\udcff"]).told
    assert finding.file == "train/gen-00000/\\xff"  # a name that no JSON could hold


def test_splits_that_have_something_in_common() -> None:
    charset = charsets.from_characters("啊阿")
    apart = {"train": manifest(), "test": manifest(split_name="test", sources=(source("002.gnt"),))}
    assert check_splits(apart, charset, apart).counts == {}
    copy = dataclasses.replace(source("other.gnt"), ranges=source().ranges)
    for shared, fact in ((source(), "source 001.gnt is in split train"), (copy, "the same bytes as 001.gnt in split")):
        both = apart | {"test": manifest(split_name="test", sources=(shared,))}
        assert check_splits(both, charset, ["validation"]).counts == {}
        (finding,) = check_splits(both, charset, ["test"]).told
        assert finding.kind == "shared_source"
        assert fact in finding.fact
    empty = SourceRange(start=0, end=0, sha256="of nothing")
    none = {
        name: manifest(split_name=name, sources=(source(f"{name}.gnt", size_bytes=0, ranges=(empty,)),))
        for name in ("train", "test")
    }
    assert check_splits(none, charset, none).counts == {}
    found = check_splits({"train": manifest(split_name="test", charset_digest="0", class_counts=(2,))}, charset, [])
    assert dict(found.counts) == {"manifest": 1, "charset": 2}


def test_a_long_list_is_cut_and_counted() -> None:
    found = Findings()
    for part in range(3):
        more = Findings()
        for index in range(MAX_TOLD - 50):
            more.add("image", "part", "fact", part * 1000 + index)
        found.extend([more])
    found.add("repeated_pixels", "train", "fact", count=7)
    found.add("source", "part", "fact")
    assert (found.counts["image"], found.num_errors, found.num_warnings) == (450, 451, 7)
    assert [finding.kind for finding in found.told] == ["image"] * MAX_TOLD + ["source", "repeated_pixels"]
    assert found.to_dict()["counts"] == {"image": 450, "repeated_pixels": 7, "source": 1}


def test_no_damage_ends_the_proof(tmp_path: Path) -> None:
    """Bytes of a shard changed at random, and bytes of records whose checksums are made to fit again."""
    draw = np.random.default_rng(0)
    packed = {"image__encoded": png(np.zeros((3, 4), np.uint8)), "image__format": b"png"}
    for image_format, one in (("raw", glyph(1)), ("png", glyph(1, **packed))):
        for number in range(1500):
            data = bytearray(one if number % 2 else tfrecords([one, one]))
            for _ in range(int(draw.integers(1, 4))):
                at = int(draw.integers(len(data)))
                match int(draw.integers(3)):
                    case 0:
                        data[at] ^= 1 << int(draw.integers(8))
                    case 1:
                        del data[at : at + int(draw.integers(1, 9))]
                    case 2:
                        data[at:at] = draw.bytes(3)
            path = tmp_path / "part"
            path.write_bytes(tfrecords([bytes(data)]) if number % 2 else data)
            shard = Shard(file="part", size_bytes=1, sha256="", num_records=1, sources=())
            proof = verify_shard(
                ShardTask(
                    number=0,
                    path=str(path),
                    file="train/part",
                    shard=shard,
                    image_format=image_format,
                    characters=("啊", "阿"),
                    sources={"001.gnt": (0, 1000)},
                )
            )
            assert proof.report.size_bytes == path.stat().st_size
            assert proof.report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert number % 2 or proof.report.findings.counts["checksum"] + proof.report.findings.counts["truncated"]
