"""Grey PNGs of 8 bits, written quickly and read strictly; and the proof that a PNG of any kind is whole.

Read strictly: each checksum, the exact size, nothing missing and nothing behind the end.

Decoders of pictures forgive a lot: Pillow shows a file whose end is cut off as long as all pixels came before, and rows
that are not there as black ones.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from isal import isal_zlib
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Colour types."""
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")
_LEVEL = 1  # docs/decisions/0003: the smallest that ISA-L makes of glyphs, and nearly the quickest
_BLOCK_BYTES = 1 << 20
_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}  # of a pixel
# Adam7: the first column and row of each pass, and how far it is to the next ones.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_OF_PIXELS = (*_NEEDED, b"tRNS", b"eXIf")


class Parts(NamedTuple):
    """The parts of a PNG: the header's fields, and all parts with their kinds, in order."""

    width: int
    height: int
    depth: int
    colour: int
    is_interlaced: bool
    chunks: list[tuple[bytes, bytes]]

    def first(self, kind: bytes) -> bytes | None:
        """The first part of a kind; None if there is none."""
        return next((part for found, part in self.chunks if found == kind), None)

    def bare(self) -> bytes:
        """The file without what its pixels do not depend on."""
        return SIGNATURE + b"".join(_chunk(kind, part) for kind, part in self.chunks if kind in _OF_PIXELS)

    def row_bytes(self) -> Iterator[int]:
        """Packed bytes of each row that the file should hold, of all passes one after the other."""
        bits = self.depth * _SAMPLES[self.colour]
        for left, top, across, down in _PASSES if self.is_interlaced else ((0, 0, 1, 1),):
            width, height = -(-(self.width - left) // across), -(-(self.height - top) // down)
            yield from itertools.repeat(1 + -(-width * bits // 8), height if width > 0 else 0)


def encode(pixels: bytes, width: int, height: int) -> bytes:
    """A file of grey bytes, row by row. No filter: the flat paper of a glyph is packed best as it is (0003, too)."""
    rows = np.zeros((height, 1 + width), np.uint8)  # each row begins with its filter's number
    rows[:, 1:] = np.frombuffer(pixels, np.uint8).reshape(height, width)
    header = _HEADER.pack(width, height, 8, 0, 0, 0, 0)
    packed = isal_zlib.compress(rows, _LEVEL)
    return b"".join((SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((_CHUNK.pack(len(data), kind), data, _CRC.pack(zlib.crc32(data, zlib.crc32(kind)))))


def decode(data: bytes, height: int, width: int) -> bytes:
    """The grey bytes, row by row.

    Args:
      data: the file.
      height: that it must have, in pixels.
      width: that it must have, in pixels.

    Raises:
      ValueError: not a whole PNG, or not a grey one of 8 bits and that size.
    """
    ((first, header), *rest), end = _chunks(data)
    if end != len(data):
        raise ValueError(f"not a readable PNG: {len(data) - end} bytes behind its end mark")
    if first != b"IHDR" or len(header) != _HEADER.size:
        raise ValueError("not a readable PNG: it does not begin with its header")
    found_width, found_height, *form = _HEADER.unpack(header)
    if (found_height, found_width, *form) != (height, width, 8, 0, 0, 0, 0):
        kind = f"{found_width} × {found_height}, depth {form[0]}, colour type {form[1]}, interlace {form[4]}"
        raise ValueError(
            f"expected a grey PNG of {width} × {height}, depth 8, colour type 0, interlace 0, found {kind}"
        )
    if _unknown(rest, (b"IDAT", b"IEND")):
        raise ValueError("not a readable PNG: it has a part that a grey one does not have")
    rows = _inflate(b"".join(part for kind, part in rest if kind == b"IDAT"), height * (width + 1))
    pixels = np.frombuffer(rows, np.uint8).reshape(height, width + 1)
    if pixels[:, 0].any():
        return _filtered(data)
    return pixels[:, 1:].tobytes()


def parse(data: bytes) -> Parts:
    """Takes a PNG of any kind apart. There may be something behind its end mark.

    Raises:
      ValueError: not a PNG, or one that is damaged, cut off, or has parts that no decoder need understand.
    """
    chunks, _ = _chunks(data)
    first, header = chunks[0]
    if first != b"IHDR" or len(header) != _HEADER.size:
        raise ValueError("not a readable PNG: it does not begin with its header")
    if _unknown(chunks, _NEEDED):
        raise ValueError("not a readable PNG: it has a part that nobody knows")
    width, height, depth, colour, _, _, interlace = _HEADER.unpack(header)
    if colour not in _SAMPLES or not width or not height:
        raise ValueError(f"not a readable PNG: {width} × {height} pixels of colour type {colour}")
    return Parts(width, height, depth, colour, interlace == 1, chunks)


def check_pixels(parts: Parts) -> None:
    """Proves that the packed stream ends well, and has a byte for everything that the header promises.

    Raises:
      ValueError: it is damaged, or its pixels end too early.
    """
    sizes = list(parts.row_bytes())
    expected, found = sum(sizes), 0
    inflater = isal_zlib.decompressobj()
    try:
        for packed in (part for kind, part in parts.chunks if kind == b"IDAT"):
            while packed and not inflater.eof:
                found += len(inflater.decompress(packed, _BLOCK_BYTES))
                packed = inflater.unconsumed_tail
                if found > expected + _BLOCK_BYTES:
                    raise ValueError("not a readable PNG: it holds more pixels than its header says")
        found += len(inflater.flush())
    except isal_zlib.error as error:  # type: ignore[misc]  # its stubs hide what it is
        raise ValueError(f"not a readable PNG: {error}") from error
    if not inflater.eof or found < expected:
        rows = sum(end <= found for end in itertools.accumulate(sizes))
        raise ValueError(f"not a readable PNG: its pixels end too early, {rows} of {len(sizes)} rows are there")


def _unknown(chunks: Sequence[tuple[bytes, bytes]], known: tuple[bytes, ...]) -> bool:
    """True if there are other parts that a reader must understand: their names begin with an upper case letter."""
    return any(kind[0] & 0x20 == 0 and kind not in known for kind, _ in chunks)


def _chunks(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """The parts of a PNG, and the byte behind the last one."""
    if not data.startswith(SIGNATURE):
        raise ValueError("not a readable PNG: it does not begin with the signature")
    found: list[tuple[bytes, bytes]] = []
    at = len(SIGNATURE)
    while not found or found[-1][0] != b"IEND":
        if at + _CHUNK.size + _CRC.size > len(data):
            raise ValueError("not a readable PNG: it ends before its end mark")
        size, kind = _CHUNK.unpack_from(data, at)
        end = at + _CHUNK.size + size
        if end + _CRC.size > len(data):
            raise ValueError("not a readable PNG: a part is longer than the file")
        if zlib.crc32(data[at + 4 : end]) != _CRC.unpack_from(data, end)[0]:
            raise ValueError(f"not a readable PNG: the checksum at byte {end} does not fit")
        found.append((kind, data[at + _CHUNK.size : end]))
        at = end + _CRC.size
    return found, at


def _inflate(packed: bytes, size: int) -> bytes:
    inflater = isal_zlib.decompressobj()
    try:
        rows = inflater.decompress(packed, size + 1)  # one more, to see that there is none
    except isal_zlib.error as error:  # type: ignore[misc]  # its stubs hide what it is
        raise ValueError(f"not a readable PNG: {error}") from error
    if len(rows) != size or not inflater.eof or inflater.unused_data:
        raise ValueError(f"not a readable PNG: expected {size} bytes unpacked, found {len(rows)} or a damaged stream")
    return bytes(rows)


def _filtered(data: bytes) -> bytes:
    """The pixels of a PNG that is whole, whose rows are not as they are but differences."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image.tobytes()
    except Exception as error:  # whatever Pillow makes of a filter that does not exist
        raise ValueError(f"not a readable PNG: {error}") from error
