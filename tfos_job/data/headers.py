"""What the headers of JPEG and GIF files say, for a decision that Pillow tells too little for. Pure."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

# JPEG (ITU-T T.81, annex B): markers are FF and a code; most are followed by their length in two bytes.
_START_OF_FRAME = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_END, _START_OF_SCAN, _RESTART_INTERVAL = 0xD9, 0xDA, 0xDD
_BETWEEN_SCANS = (0xC4, 0xDB, _END, _START_OF_SCAN, _RESTART_INTERVAL)  # what else may be there nobody writes
_MARKER_IN_SCAN = re.compile(rb"\xff([^\x00])", re.DOTALL)  # FF 00 is a byte FF of the scan itself

# GIF (https://www.w3.org/Graphics/GIF/spec-gif89a.txt).
_SCREEN = struct.Struct("<6sHHBBB")
_FRAME = struct.Struct("<HHHHB")
_EXTENSION, _IMAGE, _TRAILER = b"!,;"


def jpeg_frame(data: bytes) -> int | None:
    """The code of a JPEG's frame: C0 to C2 is Huffman coding; None where there is none before the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code in _START_OF_FRAME:
            return code
        if code == _START_OF_SCAN:
            break
        if code == 0xFF:  # a fill byte
            at += 1
        elif code in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def jpeg_end(data: bytes) -> int | None:
    """The byte behind a JPEG's end mark; None where what is before it is not one part behind the other, as written.

    That is: no marker among its pixels, but restarts in their order.

    libjpeg fills up what an unexpected marker cuts short, and goes on behind it; whether it then ends well depends on
    how its user handles the end of the data: Pillow is content with all lines, TensorFlow is not.
    """
    at, num_scans, restart_interval = 2, 0, 0
    while at + 2 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if num_scans and code not in _BETWEEN_SCANS:
            return None
        if code == _END:
            return at + 2 if num_scans else None
        if code == 0xFF:  # a fill byte
            at += 1
            continue
        if code == 0 or code in _WITHOUT_LENGTH:
            return None
        if code == _RESTART_INTERVAL:
            restart_interval = int.from_bytes(data[at + 4 : at + 6], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if code == _START_OF_SCAN:
            num_scans += 1
            at = _behind_scan(data, at, has_restarts=restart_interval > 0)
    return None


def _behind_scan(data: bytes, at: int, *, has_restarts: bool) -> int:
    """The first marker behind `at` that is no restart, or not the one whose turn it is; the end where there is none."""
    expected = 0xD0
    for found in _MARKER_IN_SCAN.finditer(data, at):
        if not has_restarts or found[1][0] != expected:
            return found.start()
        expected = 0xD0 + (expected + 1) % 8
    return len(data)


class Gif(NamedTuple):
    """A GIF's frames.

    Attributes:
      num_frames: pictures in it.
      fills: whether the first one covers the canvas.
      num_colours: that the first one may use; 0 where it has no colour table.
      end: the byte behind the end mark.
    """

    num_frames: int
    fills: bool
    num_colours: int
    end: int


def gif(data: bytes) -> Gif:
    """Reads a GIF from header to end mark, past its pixels.

    Raises:
      ValueError: it ends before its end mark, or holds something else than a GIF does.
    """
    try:
        return _gif(data)
    except (IndexError, struct.error):
        raise ValueError("a GIF that ends before its end mark") from None


def _gif(data: bytes) -> Gif:
    _, width, height, flags, _, _ = _SCREEN.unpack_from(data)
    global_colours = _num_colours(flags)
    at = _SCREEN.size + 3 * global_colours
    num_frames, fills, num_colours = 0, False, 0
    while (kind := data[at]) != _TRAILER:
        if kind == _EXTENSION:
            at = _behind_blocks(data, at + 2)
        elif kind == _IMAGE:
            *box, flags = _FRAME.unpack_from(data, at + 1)
            if num_frames == 0:
                fills = box == [0, 0, width, height]
                num_colours = _num_colours(flags) or global_colours
            minimum_code_size = 1  # a byte before the blocks
            at = _behind_blocks(data, at + 1 + _FRAME.size + 3 * _num_colours(flags) + minimum_code_size)
            num_frames += 1
        else:
            raise ValueError(f"a GIF with something else than a picture at byte {at}")
    return Gif(num_frames, fills, num_colours, at + 1)


def _num_colours(flags: int) -> int:
    """Of the colour table that a screen or a frame has."""
    return 2 << (flags & 7) if flags & 0x80 else 0


def _behind_blocks(data: bytes, at: int) -> int:
    """Blocks begin with their length; an empty one is the last."""
    while size := data[at]:
        at += 1 + size
    return at + 1
