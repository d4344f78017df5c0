"""CASIA's GNT files: records of `<I2sHH` = sample_size, tag, width, height, then width × height grey bytes, row by row.

`sample_size` counts the header too (10 + width × height); the background is 255. A tag is a character's two bytes of
GBK in text order, or one byte of ASCII and a zero. A file has no magic number, no length and no checksum, so a header
is trusted only if its three numbers agree.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfos_job.storage import Writable

HEADER = struct.Struct("<I2sHH")
MAX_SIDE = 4096
"""Pixels. CASIA's largest glyphs are some 300 pixels high; what is larger than this is not a glyph."""


class Record(NamedTuple):
    """One glyph. `offset` is the byte of its header in the file; `pixels` are `height` rows of `width` grey bytes."""

    offset: int
    tag: bytes
    width: int
    height: int
    pixels: bytes


def decode_tag(tag: bytes) -> str | None:
    """The character of a tag, or None if it has none.

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


@functools.cache
def decodable_tags() -> npt.NDArray[np.bool_]:
    """For each tag, as a little-endian number, whether it has a character."""
    return np.array([decode_tag(tag.to_bytes(2, "little")) is not None for tag in range(1 << 16)])


def agrees_all(
    sizes: npt.NDArray[np.uint32], widths: npt.NDArray[np.uint16], heights: npt.NDArray[np.uint16]
) -> npt.NDArray[np.bool_]:
    """`agrees` for each."""
    wide, high = widths.astype(np.uint32), heights.astype(np.uint32)
    return (wide - 1 < MAX_SIDE) & (high - 1 < MAX_SIDE) & (sizes == HEADER.size + wide * high)


def agrees(size: int, width: int, height: int) -> bool:
    return 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and size == HEADER.size + width * height


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
