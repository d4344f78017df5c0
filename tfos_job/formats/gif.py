"""The parts of a GIF, from its header to its end mark (https://www.w3.org/Graphics/GIF/spec-gif89a.txt). Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

SIGNATURES = (b"GIF87a", b"GIF89a")
_SCREEN = struct.Struct("<6sHHBBB")
_FRAME = struct.Struct("<HHHHB")
_EXTENSION, _IMAGE, _TRAILER = b"!,;"
_GRAPHIC_CONTROL = 0xF9  # the one extension that says something of pixels: which are transparent


class Gif(NamedTuple):
    """Attributes: `num_frames`, the pictures in it; `bare`, the file without what its pixels do not depend on."""

    num_frames: int
    bare: bytes


def parse(data: bytes) -> Gif:
    """Reads a GIF from header to end mark, past its pixels.

    Raises:
      ValueError: it ends before its end mark, or holds something else than a GIF does.
    """
    try:
        return _parse(data)
    except (IndexError, struct.error):
        raise ValueError("a GIF that ends before its end mark") from None


def _parse(data: bytes) -> Gif:
    flags = _SCREEN.unpack_from(data)[3]
    at = _SCREEN.size + _table_bytes(flags)
    num_frames = 0
    parts = [data[:at]]
    while (kind := data[at]) != _TRAILER:
        start, is_needed = at, True
        if kind == _EXTENSION:
            is_needed = data[at + 1] == _GRAPHIC_CONTROL
            at = _behind_blocks(data, at + 2)
        elif kind == _IMAGE:
            flags = _FRAME.unpack_from(data, at + 1)[-1]
            minimum_code_size = 1  # a byte before the blocks
            at = _behind_blocks(data, at + 1 + _FRAME.size + _table_bytes(flags) + minimum_code_size)
            num_frames += 1
        else:
            raise ValueError(f"a GIF with something else than a picture at byte {at}")
        if is_needed:
            parts.append(data[start:at])
    return Gif(num_frames, b"".join((*parts, data[at : at + 1])))


def _table_bytes(flags: int) -> int:
    """Of the colour table that a screen or a frame has."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _behind_blocks(data: bytes, at: int) -> int:
    """Blocks begin with their length; an empty one is the last."""
    while size := data[at]:
        at += 1 + size
    return at + 1
