from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tfos_job.errors import BadDataError
from tfos_job.formats import gnt, gnt_reader, gnt_recovery, gnt_window
from tfos_job.formats.quarantine import BadRange
from tfos_job.storage import Readable

TAGS = [gnt.encode_tag(character) for character in "啊阿埃挨哎唉哀皑癌蔼"]


class Trickle:
    """A stream whose reads are short, as a pipe's or a socket's may be, and which notes how much was asked for."""

    def __init__(self, data: bytes, size: int = 7) -> None:
        self._stream = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._size))


def record(index: int, width: int = 9, height: int = 11) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 256, (height, width), np.uint8)
    gnt.write(stream, TAGS[index % len(TAGS)], pixels)
    return stream.getvalue()


def header(size: int, tag: bytes, width: int, height: int) -> bytes:
    return struct.pack("<I2sHH", size, tag, width, height)


def read_all(data: bytes) -> tuple[list[gnt.Record], list[BadRange]]:
    bad: list[BadRange] = []
    return list(gnt_reader.read_records(io.BytesIO(data), "a.gnt", bad.append)), bad


@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_records_come_back_with_their_offsets(stream: Callable[[bytes], Readable]) -> None:
    # 300 and 256: headers read as bytes and shifted (`header[1] << 8` on uint8) turn these into 44 and 0.
    shapes = [(1, 1), (300, 256), (7, 3), (256, 513)]
    parts = [record(index, width, height) for index, (width, height) in enumerate(shapes)]
    offset = 0
    for index, found in enumerate(gnt_reader.read_records(stream(b"".join(parts)), "a.gnt")):
        assert (found.offset, found.tag, found.width, found.height) == (offset, TAGS[index], *shapes[index])
        assert found.pixels == parts[index][10:]
        offset += len(parts[index])
    assert offset == sum(map(len, parts))


def test_tags() -> None:
    assert gnt.decode_tag(b"\xb0\xa1") == "啊"
    assert gnt.decode_tag("镕".encode("gbk")) == "镕"  # not in GB2312
    assert gnt.decode_tag(b"!\0") == "!"
    for tag in (b"\0\0", b"\xff\xff", b"\xb0\x20", b"ab", b"\x80\0", b"\x07\0"):
        assert gnt.decode_tag(tag) is None
    assert gnt.encode_tag("!") == b"!\0"
    for not_one in ("", "一二", "😀", "\ud800"):
        with pytest.raises(ValueError, match="not a character of GBK"):
            gnt.encode_tag(not_one)


GOOD = record(0)  # 109 bytes
BAD_CASES = {
    "empty file": (b"", 0, "expected at least one record, found 0 bytes"),
    "truncated header": (GOOD[:6], 0, "expected a header of 10 bytes, found 6"),
    "truncated bitmap": (GOOD + GOOD[:50], 109, "expected 99 bytes, found 40"),
    "trailing bytes": (GOOD + b"\0\0\0", 109, "expected a header of 10 bytes, found 3"),
    "sample_size": (header(110, TAGS[0], 9, 11) + GOOD, 0, "expected 109 for 9 × 11, found 110"),
    "zero width": (header(10, TAGS[0], 0, 11) + GOOD, 0, "found 0 × 11"),
    "absurd size": (GOOD + header(10 + 60000 * 60000, TAGS[0], 60000, 60000), 109, "found 60000 × 60000"),
    "undecodable tag": (header(109, b"\xff\xff", 9, 11) + GOOD[10:], 0, "found bytes ff ff"),
    "zip": (b"PK\x03\x04" + bytes(100), 0, "expected a record, found a ZIP archive"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(100), 0, "expected a record, found a gzip file"),
}


@pytest.mark.parametrize(("data", "offset", "fact"), BAD_CASES.values(), ids=BAD_CASES.keys())
def test_bad_input_names_file_offset_expected_and_found(data: bytes, offset: int, fact: str) -> None:
    with pytest.raises(BadDataError) as raised:
        list(gnt_reader.read_records(io.BytesIO(data), "dir/a.gnt"))
    assert raised.value.place == f"dir/a.gnt, byte {offset}"
    assert fact in raised.value.fact
    assert "--on_bad_record quarantine" in raised.value.next_step
    # The same bytes are a range with a callback, and every byte is in a record or in a range.
    records, bad = read_all(data)
    assert (bad[0].start, bad[0].reason) == (offset, raised.value.fact)
    assert sum(10 + len(found.pixels) for found in records) + sum(end - start for _, start, end, _ in bad) == len(data)


def test_reading_goes_on_at_the_next_record_wherever_bytes_are_spoilt() -> None:
    """Garbage of several lengths at each border of a file of six records: it goes, and the six come back."""
    parts = [record(index, 3 + index, 4) for index in range(6)]
    whole = read_all(b"".join(parts))[0]
    for border in range(7):
        for size in (1, 9, 10, 11, 300):
            garbage = np.random.default_rng(size).integers(1, 256, size, np.uint8).tobytes()
            records, bad = read_all(b"".join([*parts[:border], garbage, *parts[border:]]))
            start = sum(map(len, parts[:border]))
            assert [(found.tag, found.pixels) for found in records] == [(found.tag, found.pixels) for found in whole]
            assert [(found.start, found.end) for found in bad] == [(start, start + size)]


def test_lost_bytes_cost_the_record_they_are_lost_from_and_no_other() -> None:
    """However many bytes are cut out of one of six records, at whatever place, the five others are read."""
    parts = [record(index, 5, 6) for index in range(6)]
    for index in range(6):
        for cut_at in range(0, 40, 3):
            for size in range(1, 40 - cut_at, 5):
                spoilt = parts[index][:cut_at] + parts[index][cut_at + size :]
                records, bad = read_all(b"".join([*parts[:index], spoilt, *parts[index + 1 :]]))
                assert [found.tag for found in records] == [TAGS[other] for other in range(6) if other != index]
                assert [(found.start, found.end) for found in bad] == [(40 * index, 40 * index + len(spoilt))]


def test_two_bad_tags_do_not_cost_the_good_record_between_them() -> None:
    bad_tag = header(109, b"\xff\xff", 9, 11) + GOOD[10:]
    records, bad = read_all(bad_tag + record(1) + bad_tag + record(2))
    assert [found.offset for found in records] == [109, 327]
    assert [(found.start, found.end) for found in bad] == [(0, 109), (218, 327)]


def test_an_archive_is_set_aside_whole_even_with_readable_records_in_it() -> None:
    records, bad = read_all(b"PK\x03\x04" + b"".join(record(index) for index in range(6)))
    assert records == []
    assert [(found.start, found.end) for found in bad] == [(0, 4 + 6 * 109)]


def tar(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def old_tar() -> bytes:
    """Of before there was a magic number."""
    data = bytearray(tar(a=record(0)))
    data[257:265], data[148:156] = bytes(8), b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (tar(a=record(0)), "a TAR archive"),
        (b"b" + tar(a=record(0))[1:], "a TAR archive"),  # its checksum is wrong
        (old_tar(), "a TAR archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "a zstd file"),
        (b"\r\n<!DOCTYPE HTML><html><body>Please log in</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"ALZ\x01" + bytes(100), "an ALZip archive"),
    ],
)
def test_what_is_no_gnt_file_is_named_and_not_searched_for_records(
    data: bytes, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadDataError, match=f"not a GNT file: expected a record, found {kind}"):
        list(gnt_reader.read_records(io.BytesIO(data), "a.gnt"))
    monkeypatch.setattr(gnt_recovery, "_first_chain", None)
    records, (bad,) = read_all(data + b"".join(map(record, range(6))))
    assert records == []
    assert (bad.start, bad.end) == (0, len(data) + 6 * 109)
    assert kind in bad.reason


def test_a_large_garbage_region_is_passed_in_bounded_memory_and_time() -> None:
    class Endless:
        """60 MB of noise between records, made as it is read."""

        def __init__(self) -> None:
            self.left = [record(0), *[np.random.default_rng(i).bytes(1 << 20) for i in range(60)], record(1), record(2)]
            self.largest = 0

        def read(self, size: int, /) -> bytes:
            self.largest = max(self.largest, size)
            return self.left.pop(0) if self.left else b""

    stream, bad = Endless(), []
    records = list(gnt_reader.read_records(stream, "a.gnt", bad.append))
    assert [found.tag for found in records] == TAGS[:3]
    assert [(found.start, found.end) for found in bad] == [(109, 109 + (60 << 20))]
    assert stream.largest <= gnt_window.BUFFER_BYTES


def test_the_writer_refuses_what_the_reader_would() -> None:
    for pixels in (np.zeros((0, 3), np.uint8), np.zeros((3, 4097), np.uint8), np.zeros((3, 3)), np.zeros(3, np.uint8)):
        with pytest.raises(ValueError, match="pixels are"):
            gnt.write(io.BytesIO(), TAGS[0], pixels)


@pytest.mark.real
def test_real_handwriting_is_read_to_the_last_byte(real_data: Path) -> None:
    num_records = 0
    for path in sorted((real_data / "casia-small").rglob("*.gnt")):
        with path.open("rb") as stream:
            records = list(gnt_reader.read_records(stream, str(path)))
        num_records += len(records)
        assert sum(10 + found.width * found.height for found in records) == path.stat().st_size
    assert num_records == 3180 + 795


def test_a_bad_tag_costs_its_own_record_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no search: a file whose tags are all of another encoding would seem to hang."""
    monkeypatch.setattr(gnt_recovery, "_first_chain", None)
    bad = header(10 + 6, b"\xff\xff", 2, 3) + bytes(6)
    data = bad * 500 + record(1) + bad + record(2) + record(3) + record(4) + record(5)
    found, ranges = read_all(data)
    assert [bad_range.start for bad_range in ranges[:500]] == [16 * number for number in range(500)]
    assert [(item.end - item.start, item.reason[:15]) for item in ranges] == [(16, "undecodable tag")] * 501
    assert len(found) == 5
