"""CASIA's GNT files: records of `<I2sHH` = sample_size, tag, width, height, then width × height grey bytes, row by row.

`sample_size` counts the header too (10 + width × height); the background is 255. A tag is a character's two bytes of
GBK in text order, or one byte of ASCII and a zero. A file has no magic number, no length and no checksum, so
the reader trusts a header only when its three numbers agree.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfos_job.errors import BadDataError
from tfos_job.formats import foreign
from tfos_job.storage import Readable, Writable

HEADER = struct.Struct("<I2sHH")
_SIZE = struct.Struct("<I")
MAX_SIDE = 4096
"""Pixels. CASIA's largest glyphs are some 300 pixels high; what is larger than this is not a glyph."""
BUFFER_BYTES = 1 << 20
_CHAIN = 3
_MAX_BLOCK = 1024  # records; where many are bad, each costs a look at those behind it
_FIRST_SEARCH_BYTES = 1 << 14


class Record(NamedTuple):
    """One glyph. `offset` is the byte of its header in the file; `pixels` are `height` rows of `width` grey bytes."""

    offset: int
    tag: bytes
    width: int
    height: int
    pixels: bytes


class BadRange(NamedTuple):
    """The bytes `start` to `end` (exclusive) of a source that could not be read. An empty file's range is empty."""

    source: str
    start: int
    end: int
    reason: str


# --- tags ------------------------------------------------------------------------------------------------------------


def decode_tag(tag: bytes) -> str | None:
    """The character of a tag, or None where it has none.

    GB18030's two-byte codes are GBK and the few that came to it later: a strict `gb2312` fails on real HWDB tags.
    """
    if tag[1] == 0:
        return chr(tag[0]) if 0x21 <= tag[0] <= 0x7E else None
    try:
        text = tag.decode("gb18030")
    except UnicodeDecodeError:
        return None
    return text if len(text) == 1 else None


def encode_tag(character: str) -> bytes:
    """The inverse of `decode_tag`.

    Raises:
      ValueError: not one character, or one that GBK does not have.
    """
    try:
        code = character.encode("gb18030")
    except UnicodeEncodeError:
        code = b""
    tag = code + b"\0" if len(code) == 1 else code
    if len(character) != 1 or len(tag) != 2 or decode_tag(tag) != character:
        raise ValueError(f"{character!r} is not a character of GBK")
    return tag


# --- writing ---------------------------------------------------------------------------------------------------------


def write(stream: Writable, tag: bytes, pixels: npt.NDArray[np.uint8]) -> None:
    """Appends one record.

    Args:
      stream: where to.
      tag: two bytes, see `encode_tag`.
      pixels: [height, width] uint8, background 255.

    Raises:
      ValueError: not such pixels, or more than `MAX_SIDE` of them to a side.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or not all(1 <= side <= MAX_SIDE for side in pixels.shape):
        raise ValueError(f"pixels are {pixels.dtype}{list(pixels.shape)}, not uint8[1..{MAX_SIDE}, 1..{MAX_SIDE}]")
    if len(tag) != 2:
        raise ValueError(f"tag {tag!r} is not two bytes")
    height, width = pixels.shape
    stream.write(HEADER.pack(HEADER.size + width * height, tag, width, height) + pixels.tobytes())


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Records that lie one behind the other in a file.

    Attributes:
      data: the bytes from the first record's header on; more may follow the last record's.
      offset: of `data` in the file.
      starts: position of each record's header in `data`, ascending.
      tags: of each record.
      widths, heights: of each record, in pixels.
    """

    data: bytes
    offset: int
    starts: list[int]
    tags: list[bytes]
    widths: list[int]
    heights: list[int]

    def __iter__(self) -> Iterator[Record]:
        for start, tag, width, height in zip(self.starts, self.tags, self.widths, self.heights, strict=True):
            pixels = self.data[start + HEADER.size : start + HEADER.size + width * height]
            yield Record(self.offset + start, tag, width, height, pixels)


def read_records(stream: Readable, source: str, on_bad: Callable[[BadRange], None] | None = None) -> Iterator[Record]:
    """Reads a GNT file from its beginning, holding no more than a few records of it and a buffer.

    Args:
      stream: anything with `read(n)`; short reads are fine.
      source: the file's name, for messages.
      on_bad: takes each byte range that cannot be read; reading goes on at the first offset from where three headers in
        a row parse, or fewer that end with the file. None makes the first such range an error.

    Yields:
      The records in file order.

    Raises:
      BadDataError: unreadable bytes, and `on_bad` is None.
    """
    for block in RangeReader(stream, source, on_bad):
        yield from block


class RangeReader:
    """Reads the records that begin in a range of a GNT file, many at a time.

    Two readers of adjacent ranges have read what one would have read from the first one's start if the first `end` is
    the second `start`. A range that begins within a record has to find the next one by what looks like records, so
    whoever cuts a file into ranges must look whether they meet.

    Args:
      stream: at the byte `start` of the file.
      source: the file's name, for messages.
      on_bad: see `read_records`.
      start: where the range begins.
      stop: where it ends (exclusive); None for the end of the file. A record that begins before is read to its end.
      within: `start` may be within a record: what is before the first one is left to the reader of the range before.

    Attributes:
      start: offset of the first byte that was read here: of the first record's header, where bytes before it were not
        taken; from the first block on.
      end: offset behind the last byte that was read here.
      stop: as given; where it is moved on, iterating once more goes on from `end`.
    """

    def __init__(
        self,
        stream: Readable,
        source: str,
        on_bad: Callable[[BadRange], None] | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        within: bool = False,
    ) -> None:
        self._window = _Window(stream, start)
        self._source = source
        self._on_bad = on_bad
        self.stop = stop
        self._within = within
        self.start = start

    @property
    def end(self) -> int:
        return self._window.offset

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the bytes from `start` to `end`."""
        return self._window.digest.hexdigest()

    def __iter__(self) -> Iterator[Block]:
        """Raises BadDataError for unreadable bytes, where `on_bad` is None."""
        window = self._window
        if self._within:
            _skip_to_record(window, 0)
            window.digest = hashlib.sha256()
            self.start = window.offset
        elif window.offset == 0 and not window.available(1):
            empty = "empty file: expected at least one record, found 0 bytes"
            _report(BadRange(self._source, 0, 0, empty), self._on_bad)
            return
        while self._is_before_stop() and window.available(1):
            block = _sound_block(window, self.stop, certain=self._on_bad is not None)
            if block is None:
                block = self._next_record()
            if block is not None:
                yield block

    def _is_before_stop(self) -> bool:
        return self.stop is None or self._window.offset < self.stop

    def _next_record(self) -> Block | None:
        """The record at the window's beginning, looked at with care; None for bytes that are none."""
        window, on_bad = self._window, self._on_bad
        start = window.offset
        fault = _fault(window)
        if fault is None:
            size, tag, width, height = window.header(0)
            hidden = None if on_bad is None else _hidden_record(window, size)
            if hidden is None:
                block = Block(window.cut(0, size), start, [0], [tag], [width], [height])
                window.skip(size)
                return block
            fault = f"bitmap cut short: expected a record of {size} bytes, found another {hidden} bytes after its start"
            window.skip(hidden)
        elif on_bad is None:
            pass
        elif start == 0 and _foreign(window):
            window.skip_all()  # An archive may hold readable records by accident: none of it is to be trusted.
        elif (framed := _framed(window)) is not None:
            window.skip(framed)
        else:
            _skip_to_record(window, 1)
        _report(BadRange(self._source, start, window.offset, fault), on_bad)
        return None


def _report(bad: BadRange, on_bad: Callable[[BadRange], None] | None) -> None:
    if on_bad is None:
        raise BadDataError(
            bad.reason,
            place=f"{bad.source}, byte {bad.start}",
            next_step="Repair or remove the file, or set such bytes aside with --on_bad_record quarantine",
        )
    on_bad(bad)


class _Window:
    """The part of a stream that is in memory. Positions given to its methods count from `offset`.

    `digest` is of all that was skipped.
    """

    def __init__(self, stream: Readable, offset: int) -> None:
        self._stream = stream
        self._data = b""
        self._at = 0
        self.offset = offset
        self.digest = hashlib.sha256()

    def available(self, size: int) -> int:
        """Reads until `size` bytes are there. Returns how many are: fewer only at the end of the file."""
        have = len(self._data) - self._at
        if have >= size:
            return have
        parts = [self._data[self._at :]]
        while have < size:
            part = self._stream.read(max(size - have, BUFFER_BYTES))
            if not part:
                break
            parts.append(part)
            have += len(part)
        self._data, self._at = b"".join(parts), 0
        return have

    def cut(self, start: int, end: int) -> bytes:
        return self._data[self._at + start : self._at + end]

    def header(self, start: int) -> tuple[int, bytes, int, int]:
        size, tag, width, height = HEADER.unpack_from(self._data, self._at + start)
        return size, tag, width, height

    def memory(self) -> tuple[bytes, int]:
        """All that is in memory, and the position in it that `offset` is at."""
        return self._data, self._at

    def skip(self, size: int) -> None:
        self.digest.update(memoryview(self._data)[self._at : self._at + size])
        self._at += size
        self.offset += size

    def skip_all(self) -> None:
        while have := self.available(1):
            self.skip(have)


@functools.cache
def _decodable_tags() -> npt.NDArray[np.bool_]:
    """For each tag, as a little-endian number, whether it has a character."""
    return np.array([decode_tag(tag.to_bytes(2, "little")) is not None for tag in range(1 << 16)])


def _sound_block(window: _Window, stop: int | None, *, certain: bool) -> Block | None:
    """The records at the window's beginning that are there as a whole and sound; None where the first one is not.

    Args:
      window: whose records are taken.
      stop: offset; a record that begins there or later is left.
      certain: only those that are followed by another sound header, or by the end of a buffer's worth of records: lost
        bytes of a bitmap show in what follows it.
    """
    if window.available(BUFFER_BYTES) < HEADER.size:
        return None
    _, tag, _, _ = window.header(0)
    if not _decodable_tags()[int.from_bytes(tag, "little")]:
        return None  # not worth a look at those behind it
    data, begin = window.memory()
    starts = _chain(data, begin, len(data) if stop is None else min(len(data), begin + stop - window.offset))
    if not starts:
        return None
    # Each header as the five little-endian numbers that it is, read from wherever it lies.
    lanes = np.frombuffer(data, np.uint8)[np.asarray(starts)[:, None] + np.arange(HEADER.size)]
    sizes = lanes[:, :4].copy().view("<u4")[:, 0]
    tags, widths, heights = lanes[:, 4:].copy().view("<u2").T
    sound = _agrees_all(sizes, widths, heights) & _decodable_tags()[tags]
    num_sound = len(starts) if sound.all() else int(sound.argmin())
    # The last one may reach beyond what is in memory, and may be one whose bitmap was cut short.
    while num_sound and starts[num_sound - 1] + int(sizes[num_sound - 1]) > len(data):
        num_sound -= 1
    if certain:
        num_sound -= 1
    if num_sound < 1:
        return None
    end = starts[num_sound - 1] + int(sizes[num_sound - 1])
    block = Block(
        data,
        window.offset - begin,
        starts[:num_sound],
        [data[start + 4 : start + 6] for start in starts[:num_sound]],
        widths[:num_sound].tolist(),
        heights[:num_sound].tolist(),
    )
    window.skip(end - begin)
    return block


def _chain(data: bytes, at: int, stop: int) -> list[int]:
    """Positions of headers from `at` on, each as far from the one before as that says; those of whole headers alone."""
    read = _SIZE.unpack_from
    last = min(stop - 1, len(data) - HEADER.size)
    starts: list[int] = []
    while at <= last and len(starts) < _MAX_BLOCK:
        starts.append(at)
        (size,) = read(data, at)
        if size <= HEADER.size:
            break
        at += size
    return starts


def _agrees_all(
    sizes: npt.NDArray[np.uint32], widths: npt.NDArray[np.uint16], heights: npt.NDArray[np.uint16]
) -> npt.NDArray[np.bool_]:
    """`_agrees` for each."""
    wide, high = widths.astype(np.uint32), heights.astype(np.uint32)
    return (wide - 1 < MAX_SIDE) & (high - 1 < MAX_SIDE) & (sizes == HEADER.size + wide * high)


def _agrees(size: int, width: int, height: int) -> bool:
    return 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and size == HEADER.size + width * height


def _fault(window: _Window) -> str | None:
    """What is wrong with the record at the window's beginning: expected and found. None for a sound one."""
    have = window.available(HEADER.size)
    if have < HEADER.size:
        where = "truncated header" if window.offset == 0 else "trailing bytes"
        return f"{where}: expected a header of {HEADER.size} bytes, found {have} to the end of the file"
    size, tag, width, height = window.header(0)
    if not _agrees(size, width, height):
        if window.offset == 0 and (kind := _foreign(window)):
            return f"not a GNT file: expected a record, found {kind}"
        if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
            return f"impossible size: expected width and height of 1 to {MAX_SIDE}, found {width} × {height}"
        return (
            f"sample_size disagrees with width × height: expected {HEADER.size + width * height} for "
            f"{width} × {height}, found {size}"
        )
    have = window.available(size)
    if have < size:
        return f"truncated bitmap: expected {width * height} bytes, found {have - HEADER.size} to the end of the file"
    if decode_tag(tag) is None:
        return f"undecodable tag: expected a character of GBK or ASCII, found bytes {tag.hex(' ')}"
    return None


def _foreign(window: _Window) -> str | None:
    """The kind of file that the window's first bytes belong to, if it is a well-known one."""
    window.available(foreign.HEAD_BYTES)
    return foreign.kind_of(window.cut(0, foreign.HEAD_BYTES))


# --- finding the next record -----------------------------------------------------------------------------------------


def _hidden_record(window: _Window, size: int) -> int | None:
    """Where another record begins within the first `size` bytes, if what follows them is not a record.

    When bytes of a bitmap are lost, its own header stays sound: only the next record, which begins too early, tells.
    """
    have = window.available(size + HEADER.size)
    if have == size:
        return None
    if have >= size + HEADER.size:
        found_size, _, width, height = window.header(size)
        if _agrees(found_size, width, height):
            return None
    return _first_chain(window, 1, size)


def _skip_to_record(window: _Window, start: int) -> None:
    """Moves the window to the first offset from `start` on where a chain of records begins, or to the end of the file.

    Linear in the bytes that are skipped: a block at a time is searched for headers that agree with themselves, and few
    bytes do so by chance (one offset in four thousand million). The first block is a small one: mostly little is lost.
    """
    size = _FIRST_SEARCH_BYTES
    while have := min(window.available(size), size):
        found = _first_chain(window, start, have)
        if found is not None:
            window.skip(found)
            return
        # A header may lie across the end of this block: the next block begins with the last nine bytes of this one.
        window.skip(have if have < size else have - HEADER.size + 1)
        start, size = 0, min(2 * size, BUFFER_BYTES)


def _framed(window: _Window) -> int | None:
    """The size of the bad record at the window's beginning, where it can be believed: a chain of others follows it."""
    if window.available(HEADER.size) < HEADER.size:
        return None
    size, _, width, height = window.header(0)
    return size if _agrees(size, width, height) and _is_chain(window, size) else None


def _first_chain(window: _Window, start: int, end: int) -> int | None:
    """The first position in `start` to `end` (exclusive) where a chain of records begins."""
    block = window.cut(start, end + HEADER.size - 1)
    count = len(block) - HEADER.size + 1
    if count < 1:
        return None
    # Views of the block as if a header began at each of its bytes.
    sizes = np.ndarray((count,), "<u4", block, 0, (1,))
    widths = np.ndarray((count,), "<u2", block, 6, (1,))
    heights = np.ndarray((count,), "<u2", block, 8, (1,))
    possible = _agrees_all(sizes, widths, heights)
    return next((at for at in (np.flatnonzero(possible) + start).tolist() if _is_chain(window, at)), None)


def _is_chain(window: _Window, at: int) -> bool:
    """Whether three headers in a row agree with themselves, or fewer that end with the file. Tags are not looked at."""
    for index in range(_CHAIN):
        have = window.available(at + HEADER.size)
        if have < at + HEADER.size:
            return index > 0 and have == at
        size, _, width, height = window.header(at)
        if not _agrees(size, width, height):
            return False
        at += size
    return True
