"""The fault of an unreadable GNT record, and the next record behind it.

A file has no marks to find a record by. A record begins where three headers in a row agree with themselves, or fewer
that end with the file.
"""

from __future__ import annotations

import numpy as np

from tfos_job.formats import foreign, gnt_window
from tfos_job.formats.gnt import HEADER, MAX_SIDE, agrees, agrees_all, decode_tag
from tfos_job.formats.gnt_window import Window

_CHAIN = 3
_FIRST_SEARCH_BYTES = 1 << 14


def fault_of(window: Window) -> str | None:
    """The fault of the record at the window's beginning: expected and found. None for a sound one."""
    have = window.available(HEADER.size)
    if have < HEADER.size:
        where = "truncated header" if window.offset == 0 else "trailing bytes"
        return f"{where}: expected a header of {HEADER.size} bytes, found {have} to the end of the file"
    size, tag, width, height = window.header(0)
    if not agrees(size, width, height):
        if window.offset == 0 and (kind := foreign_kind(window)):
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


def foreign_kind(window: Window) -> str | None:
    """The kind of file that the window's first bytes belong to, if it is a well-known one."""
    window.available(foreign.HEAD_BYTES)
    return foreign.kind_of(window.cut(0, foreign.HEAD_BYTES))


def hidden_record(window: Window, size: int) -> int | None:
    """The start of another record within the first `size` bytes, if what follows them is not a record.

    When bytes of a bitmap are lost, its own header stays sound: only the next record, which begins too early, tells.
    """
    have = window.available(size + HEADER.size)
    if have == size:
        return None
    if have >= size + HEADER.size:
        found_size, _, width, height = window.header(size)
        if agrees(found_size, width, height):
            return None
    return _first_chain(window, 1, size)


def skip_to_record(window: Window, start: int) -> None:
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
        start, size = 0, min(2 * size, gnt_window.BUFFER_BYTES)


def framed_size(window: Window) -> int | None:
    """The size of the bad record at the window's beginning; None unless a chain of others follows it."""
    if window.available(HEADER.size) < HEADER.size:
        return None
    size, _, width, height = window.header(0)
    return size if agrees(size, width, height) and _is_chain(window, size) else None


def _first_chain(window: Window, start: int, end: int) -> int | None:
    """The first position in `start` to `end` (exclusive) where a chain of records begins."""
    block = window.cut(start, end + HEADER.size - 1)
    count = len(block) - HEADER.size + 1
    if count < 1:
        return None
    # Views of the block as if a header began at each of its bytes.
    sizes = np.ndarray((count,), "<u4", block, 0, (1,))
    widths = np.ndarray((count,), "<u2", block, 6, (1,))
    heights = np.ndarray((count,), "<u2", block, 8, (1,))
    possible = agrees_all(sizes, widths, heights)
    return next((at for at in (np.flatnonzero(possible) + start).tolist() if _is_chain(window, at)), None)


def _is_chain(window: Window, at: int) -> bool:
    """True if three headers in a row agree with themselves, or fewer that end with the file; tags are ignored."""
    for index in range(_CHAIN):
        have = window.available(at + HEADER.size)
        if have < at + HEADER.size:
            return index > 0 and have == at
        size, _, width, height = window.header(at)
        if not agrees(size, width, height):
            return False
        at += size
    return True
