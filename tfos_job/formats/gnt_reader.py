"""GNT files, read a block of records at a time: from the beginning, or from anywhere within."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tfos_job.errors import BadDataError
from tfos_job.formats import gnt_window
from tfos_job.formats.gnt import HEADER, Record, agrees_all, decodable_tags
from tfos_job.formats.gnt_recovery import fault_of, foreign_kind, framed_size, hidden_record, skip_to_record
from tfos_job.formats.gnt_window import Window
from tfos_job.formats.quarantine import BadRange
from tfos_job.storage import Readable

_SIZE = struct.Struct("<I")
_MAX_BLOCK = 1024  # records; each bad one costs a look at those after it


@dataclass(frozen=True)
class RecordBlock:
    """Adjacent records of a file.

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

    Two readers of adjacent ranges have read the same records as one reader of both ranges if the first one's `end` is
    the second one's `start`. A range that begins within a record has to find the next one by what looks like records,
    so the caller that cuts a file into ranges must check that they meet.

    Args:
      stream: at the byte `start` of the file.
      source: the file's name, for messages.
      on_bad: see `read_records`.
      start: where the range begins.
      stop: where it ends (exclusive); None for the end of the file. A record that begins before is read to its end.
      within: `start` may be within a record: bytes before the first record are left to the reader of the range before.

    Attributes:
      start: offset of the first byte that was read here: of the first record's header, where bytes before it were not
        taken; from the first block on.
      end: offset behind the last byte that was read here.
      stop: as given; after it was moved on, another iteration goes on from `end`.
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
        self._window = Window(stream, start)
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

    def __iter__(self) -> Iterator[RecordBlock]:
        """Raises BadDataError for unreadable bytes if `on_bad` is None."""
        window = self._window
        if self._within:
            skip_to_record(window, 0)
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

    def _next_record(self) -> RecordBlock | None:
        """The record at the window's beginning, checked with care; None, and a report, for bytes that are none."""
        window, on_bad = self._window, self._on_bad
        start = window.offset
        fault = fault_of(window)
        if fault is None:
            size, tag, width, height = window.header(0)
            hidden = None if on_bad is None else hidden_record(window, size)
            if hidden is None:
                block = RecordBlock(window.cut(0, size), start, [0], [tag], [width], [height])
                window.skip(size)
                return block
            fault = f"bitmap cut short: expected a record of {size} bytes, found another {hidden} bytes after its start"
            window.skip(hidden)
        elif on_bad is None:
            pass
        elif start == 0 and foreign_kind(window):
            window.skip_all()  # An archive may hold readable records by accident: none of it can be trusted.
        elif (framed := framed_size(window)) is not None:
            window.skip(framed)
        else:
            skip_to_record(window, 1)
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


def _sound_block(window: Window, stop: int | None, *, certain: bool) -> RecordBlock | None:
    """The whole and sound records at the window's beginning; None if the first one is not sound.

    Args:
      window: whose records are taken.
      stop: offset; a record that begins there or later is left.
      certain: only those that are followed by another sound header, or by the end of a buffer's worth of records: lost
        bytes of a bitmap show in what follows it.
    """
    if window.available(gnt_window.BUFFER_BYTES) < HEADER.size:
        return None
    _, tag, _, _ = window.header(0)
    if not decodable_tags()[int.from_bytes(tag, "little")]:
        return None  # too short for a look at the records after it
    data, begin = window.memory()
    starts = _chain(data, begin, len(data) if stop is None else min(len(data), begin + stop - window.offset))
    if not starts:
        return None
    # Each header as the five little-endian numbers that it is, read from wherever it lies.
    lanes = np.frombuffer(data, np.uint8)[np.asarray(starts)[:, None] + np.arange(HEADER.size)]
    sizes = lanes[:, :4].copy().view("<u4")[:, 0]
    tags, widths, heights = lanes[:, 4:].copy().view("<u2").T
    sound = agrees_all(sizes, widths, heights) & decodable_tags()[tags]
    num_sound = len(starts) if sound.all() else int(sound.argmin())
    # The last one may reach beyond what is in memory, and may be one whose bitmap was cut short.
    while num_sound and starts[num_sound - 1] + int(sizes[num_sound - 1]) > len(data):
        num_sound -= 1
    if certain:
        num_sound -= 1
    if num_sound < 1:
        return None
    end = starts[num_sound - 1] + int(sizes[num_sound - 1])
    block = RecordBlock(
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
