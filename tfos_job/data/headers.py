"""What the headers of JPEG and GIF files say, for a decision that Pillow tells too little for. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

# JPEG (ITU-T T.81, annex B): markers are FF and a code; most are followed by their length in two bytes.
_START_OF_FRAME = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_START_OF_SCAN = 0xDA

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
