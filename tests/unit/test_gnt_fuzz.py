"""Hostile bytes: GNT and TFRecord files, damaged in every way we can think of, and readers that must not be wrong.

The same 5,200 cases each time. `FUZZ_CASES=20 scripts/test.sh tests/unit/test_gnt_fuzz.py` tries twenty times as many,
and others each time: for who has changed a reader.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfos_job.errors import BadDataError
from tfos_job.formats import gnt, gnt_reader, gnt_recovery, gnt_window, tf_example, tfrecord
from tfos_job.formats.quarantine import BadRange

MAX_SIDE = 4096
HEADER_BYTES = 10
TAGS = ("啊".encode("gb18030"), "镕".encode("gb18030"), b"!\0", b"~\0", b"\xfe\xa0")
FOREIGN_SIGNS = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf", b"Rar!")
LARGEST_READ = 64 << 20  # bytes: what a reader may ask a stream for at once, whatever a header says
TIMES_AS_MANY = int(os.environ.get("FUZZ_CASES", "1"))


def cases(count: int) -> Any:
    return settings(
        max_examples=count * TIMES_AS_MANY,
        deadline=None,  # the host may be busy; an endless loop ends with pytest's own timeout
        derandomize=TIMES_AS_MANY == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class Pieces:
    """A stream whose reads are short, in a pattern: each entry is the most bytes that one read gives."""

    def __init__(self, data: bytes, pattern: tuple[int, ...]) -> None:
        self._stream = io.BytesIO(data)
        self._sizes: Iterator[int] = itertools.cycle(pattern)

    def read(self, size: int, /) -> bytes:
        assert 0 < size <= LARGEST_READ
        return self._stream.read(min(size, next(self._sizes)))


# --- valid files, by an encoder of our own ---------------------------------------------------------------------------


def header(size: int, tag: bytes, width: int, height: int) -> bytes:
    return struct.pack("<I2sHH", size & 0xFFFFFFFF, tag, width, height)


def sound_header(tag: bytes, width: int, height: int) -> bytes:
    return header(HEADER_BYTES + width * height, tag, width, height)


tags = st.sampled_from(TAGS)
sides = st.integers(1, 9)
# Headers that agree with themselves, of small, huge and largest glyphs; and headers that lie.
decoys = st.one_of(
    st.builds(sound_header, tags, sides, sides),
    st.builds(sound_header, tags, st.sampled_from((255, 256, 4096)), st.sampled_from((1, 256, 4096))),
    st.builds(
        header,
        st.sampled_from((0, 1, 9, 10, 11, 2**31 - 1, 2**31, 2**32 - 1)),
        tags | st.binary(min_size=2, max_size=2),
        st.sampled_from((0, 1, 4096, 4097, 65535)),
        st.sampled_from((0, 1, 4096, 4097, 65535)),
    ),
)


@st.composite
def bitmaps(draw: st.DrawFn, num_bytes: int) -> bytes:
    """Pixels: white, a repeated pattern, or headers that pretend to be records."""
    filling = draw(st.one_of(st.just(b"\xff"), st.binary(min_size=1, max_size=12), decoys))
    shift = draw(st.integers(0, 3))
    return (b"\xff" * shift + filling * (num_bytes // len(filling) + 1))[:num_bytes]


@st.composite
def glyphs(draw: st.DrawFn) -> bytes:
    width, height = draw(sides), draw(sides)
    return sound_header(draw(tags), width, height) + draw(bitmaps(width * height))


files = st.lists(glyphs(), min_size=1, max_size=6)
mishaps = st.sampled_from(
    ("flip", "delete", "insert", "decoy", "truncate", "repeat", "splice", "overwrite", "noise", "sign")
)
patterns = st.sampled_from(((1 << 30,), (1,), (7,), (10, 1), (3, 1 << 30, 2), (64,)))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` after one to three mishaps."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(1, 40))
        match draw(mishaps):
            case "flip" if at < len(data):
                data = data[:at] + bytes((data[at] ^ 1 << size % 8,)) + data[at + 1 :]
            case "delete":
                data = data[:at] + data[at + size :]
            case "insert":
                data = data[:at] + draw(st.binary(min_size=1, max_size=24)) + data[at:]
            case "decoy":
                data = data[:at] + draw(decoys) + data[at + draw(st.sampled_from((0, HEADER_BYTES))) :]
            case "truncate":
                data = data[:at]
            case "repeat":
                data = data[: at + size] + data[at:]
            case "splice":  # the end of another file, from anywhere within it
                data = data[:at] + whole[draw(st.integers(0, len(whole))) :]
            case "overwrite":
                data = data[:at] + bytes((draw(st.sampled_from((0, 1, 0xFF))),)) * size + data[at + size :]
            case "noise":
                data = draw(st.binary(max_size=60))
            case "sign":
                data = draw(st.sampled_from(FOREIGN_SIGNS)) + data
    return data


# --- what is true of them, said once more and as plainly as can be ---------------------------------------------------


def record_at(data: bytes, offset: int) -> gnt.Record | None:
    """The sound record at a byte of a file; None where there is none."""
    if offset + HEADER_BYTES > len(data):
        return None
    size, tag, width, height = struct.unpack_from("<I2sHH", data, offset)
    sound = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and size == HEADER_BYTES + width * height
    if not sound or offset + size > len(data) or gnt.decode_tag(tag) is None:
        return None
    return gnt.Record(offset, tag, width, height, data[offset + HEADER_BYTES : offset + size])


def sound_beginning(data: bytes) -> tuple[list[gnt.Record], int]:
    """The records up to the first byte that begins none, and that byte."""
    found: list[gnt.Record] = []
    offset = 0
    while (record := record_at(data, offset)) is not None:
        found.append(record)
        offset += HEADER_BYTES + len(record.pixels)
    return found, offset


def read_failing(data: bytes, pattern: tuple[int, ...]) -> tuple[list[gnt.Record], BadDataError | None]:
    found: list[gnt.Record] = []
    try:
        found.extend(gnt_reader.read_records(Pieces(data, pattern), "a.gnt"))  # keeps what came before an error
    except BadDataError as error:
        return found, error
    return found, None


def read_with_quarantine(data: bytes, pattern: tuple[int, ...]) -> tuple[list[gnt.Record], list[BadRange]]:
    bad: list[BadRange] = []
    return list(gnt_reader.read_records(Pieces(data, pattern), "a.gnt", bad.append)), bad


def assert_failing_is_right(data: bytes, pattern: tuple[int, ...]) -> None:
    expected, end = sound_beginning(data)
    found, error = read_failing(data, pattern)
    assert found == expected
    if end == len(data) and data:
        assert error is None
    else:
        assert error is not None
        assert error.place == f"a.gnt, byte {end}"
        assert error.fact


def assert_quarantine_is_right(data: bytes, pattern: tuple[int, ...]) -> None:
    found, bad = read_with_quarantine(data, pattern)
    for record in found:
        assert record == record_at(data, record.offset)
    pieces = [(record.offset, record.offset + HEADER_BYTES + len(record.pixels)) for record in found]
    for item in bad:
        assert item.source == "a.gnt"
        assert item.reason
        assert item.start < item.end or not data
        pieces.append((item.start, item.end))
    at = 0
    for start, end in sorted(pieces):
        assert start == at
        at = end
    assert at == len(data)
    assert [item.start for item in bad] == sorted(item.start for item in bad)
    assert [record.offset for record in found] == sorted(record.offset for record in found)
    assert len(bad) == 1 or data


# --- GNT -------------------------------------------------------------------------------------------------------------


@cases(500)
@given(files, patterns)
def test_an_undamaged_file_is_read_exactly_whatever_its_pixels_pretend(
    parts: list[bytes], pattern: tuple[int, ...]
) -> None:
    data = b"".join(parts)
    expected, end = sound_beginning(data)
    assert (len(expected), end) == (len(parts), len(data))
    assert read_failing(data, pattern) == (expected, None)
    assert read_with_quarantine(data, pattern) == (expected, [])


@cases(1700)
@given(st.data(), files, patterns)
def test_damage_never_gives_a_wrong_record(case: st.DataObject, parts: list[bytes], pattern: tuple[int, ...]) -> None:
    data = case.draw(damaged(b"".join(parts)))
    assert_failing_is_right(data, pattern)
    assert_quarantine_is_right(data, pattern)


@cases(500)
@given(st.binary(max_size=80) | st.lists(decoys | st.binary(max_size=12), max_size=12).map(b"".join), patterns)
def test_bytes_that_never_were_a_file(data: bytes, pattern: tuple[int, ...]) -> None:
    assert_failing_is_right(data, pattern)
    assert_quarantine_is_right(data, pattern)


@cases(500)
@given(st.lists(st.tuples(tags, sides, sides), min_size=1, max_size=7), st.integers(0), patterns)
def test_a_flipped_bit_costs_no_record_but_its_own(
    shapes: list[tuple[bytes, int, int]], position: int, pattern: tuple[int, ...]
) -> None:
    # White bitmaps: no byte of them can be taken for a header, so that what must come back is known.
    data = bytearray(b"".join(sound_header(tag, w, h) + b"\xff" * (w * h) for tag, w, h in shapes))
    expected, _ = sound_beginning(bytes(data))
    position %= len(data) * 8
    data[position // 8] ^= 1 << position % 8
    found, _ = read_with_quarantine(bytes(data), pattern)
    hit = next(record for record in reversed(expected) if record.offset <= position // 8)
    assert [record for record in found if record.offset != hit.offset] == [
        record for record in expected if record is not hit
    ]


TAIL = b"".join(sound_header(tag, 5, 6) + b"\xff" * 30 for tag in TAGS)


def assert_tail_is_found(size: int, pattern: tuple[int, ...]) -> None:
    """Behind so many zeros."""
    found, bad = read_with_quarantine(bytes(size) + TAIL, pattern)
    assert [(item.start, item.end) for item in bad] == [(0, size)]
    assert [record.offset for record in found] == [size + 40 * index for index in range(len(TAGS))]


@pytest.mark.parametrize("pattern", [(1 << 30,), (1,), (100,)])
def test_a_header_may_lie_across_any_border_of_a_block(
    pattern: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gnt_recovery, "_FIRST_SEARCH_BYTES", 32)
    monkeypatch.setattr(gnt_window, "BUFFER_BYTES", 128)
    for size in range(1, 700):  # several blocks of each kind
        assert_tail_is_found(size, pattern)


@pytest.mark.parametrize("exponent", [12, 16, 20])
def test_a_header_may_lie_across_a_power_of_two(exponent: int) -> None:
    for size in range((1 << exponent) - 12, (1 << exponent) + 3):
        assert_tail_is_found(size, (1 << 30,))
    width = (1 << exponent >> 6) - 1
    parts = [sound_header(tag, min(width, MAX_SIDE), 61) + bytes(61 * min(width, MAX_SIDE)) for tag in TAGS * 4]
    assert_failing_is_right(b"".join(parts), (1 << 30, 4095))
    assert_quarantine_is_right(b"".join(parts), (1 << 30, 4095))


# --- GNT, in two parts -----------------------------------------------------------------------------------------------


def read_range(
    data: bytes, pattern: tuple[int, ...], **limits: Any
) -> tuple[gnt_reader.RangeReader, list[gnt.Record], list[BadRange]]:
    bad: list[BadRange] = []
    reader = gnt_reader.RangeReader(Pieces(data[limits.get("start", 0) :], pattern), "a.gnt", bad.append, **limits)
    return reader, [record for block in reader for record in block], bad


@cases(500)
@given(st.data(), files, st.integers(1), patterns)
def test_two_readers_that_meet_have_read_what_one_would(
    case: st.DataObject, parts: list[bytes], cut: int, pattern: tuple[int, ...]
) -> None:
    data = b"".join(parts)
    if case.draw(st.booleans()):
        data = case.draw(damaged(data))
    cut = cut % (len(data) + 1)
    whole, records_of_whole, bad_of_whole = read_range(data, pattern)
    first, records_of_first, bad_of_first = read_range(data, pattern, stop=cut)
    second, records_of_second, bad_of_second = read_range(data, pattern, start=cut, within=True)
    for reader in (whole, first, second):
        assert reader.sha256 == hashlib.sha256(data[reader.start : reader.end]).hexdigest()
    if cut and first.end == second.start:
        assert records_of_first + records_of_second == records_of_whole
        assert bad_of_first + bad_of_second == bad_of_whole


# --- TFRecord --------------------------------------------------------------------------------------------------------


def tfrecord_file(payloads: list[bytes]) -> tuple[bytes, list[int]]:
    """A TFRecord file, and the byte that each of its records begins at."""
    stream = io.BytesIO()
    offsets = []
    for payload in payloads:
        offsets.append(stream.tell())
        tfrecord.write_record(stream, payload)
    return stream.getvalue(), offsets


@cases(800)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(0), patterns)
def test_any_flipped_bit_of_a_tfrecord_file_is_refused_with_its_place(
    payloads: list[bytes], position: int, pattern: tuple[int, ...]
) -> None:
    whole, offsets = tfrecord_file(payloads)
    assert list(tfrecord.read_records(Pieces(whole, pattern), "a.tfrecord")) == list(
        zip(offsets, payloads, strict=True)
    )
    position %= len(whole) * 8
    data = bytearray(whole)
    data[position // 8] ^= 1 << position % 8
    hit = max(index for index, offset in enumerate(offsets) if offset <= position // 8)
    found: list[tuple[int, bytes]] = []
    with pytest.raises(BadDataError) as raised:
        found.extend(tfrecord.read_records(Pieces(bytes(data), pattern), "a.tfrecord"))
    assert found == list(zip(offsets, payloads, strict=True))[:hit]
    assert raised.value.place == f"a.tfrecord, byte {offsets[hit]}"


@cases(350)
@given(st.data(), st.lists(st.binary(max_size=40), min_size=1, max_size=4), patterns)
def test_a_damaged_tfrecord_file_gives_whole_records_or_an_error(
    case: st.DataObject, payloads: list[bytes], pattern: tuple[int, ...]
) -> None:
    data = case.draw(damaged(tfrecord_file(payloads)[0]))
    found: list[tuple[int, bytes]] = []
    error = None
    try:
        found.extend(tfrecord.read_records(Pieces(data, pattern), "a.tfrecord"))
    except BadDataError as raised:
        error = raised
    beginning, offsets = tfrecord_file([payload for _, payload in found])
    assert data.startswith(beginning)
    assert [offset for offset, _ in found] == offsets
    if error is None:
        assert beginning == data
    else:
        assert error.place == f"a.tfrecord, byte {len(beginning)}"


@cases(350)
@given(st.data())
def test_a_damaged_example_is_decoded_or_refused(case: st.DataObject) -> None:
    features = {"image/height": 8, "image/encoded": b"\xff" * 9, "source/file": "甲.gnt".encode(), "source/offset": -1}
    data = case.draw(damaged(tf_example.encode_example(features)))
    try:
        found = tf_example.decode_example(data)
    except ValueError:
        return
    assert all(isinstance(value, bytes | int) for value in found.values())
