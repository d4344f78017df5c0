"""Grey PNGs of 8 bits: written quickly, and read strictly.

Read strictly: each checksum, the exact size, nothing missing and nothing behind the end.

Decoders of pictures forgive a lot: Pillow shows a file whose end is cut off as long as all pixels came before.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from isal import isal_zlib
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = bytes.fromhex("0000000049454e44ae426082")
"""The end mark."""
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")
_LEVEL = 1  # docs/decisions/0003: the smallest that ISA-L makes of glyphs, and nearly the quickest
_BLOCK_BYTES = 1 << 20


def encode(pixels: bytes, width: int, height: int) -> bytes:
    """A file of grey bytes, row by row. No filter: the flat paper of a glyph is packed best as it is (0003, too)."""
    rows = np.zeros((height, 1 + width), np.uint8)  # each row begins with its filter's number
    rows[:, 1:] = np.frombuffer(pixels, np.uint8).reshape(height, width)
    header = _HEADER.pack(width, height, 8, 0, 0, 0, 0)
    packed = isal_zlib.compress(rows, _LEVEL)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b"")))


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


def check(data: bytes) -> None:
    """Proves a PNG of any kind, but for its pixels: every checksum, every part, and the packed stream to its end.

    There may be something behind its end mark.

    Raises:
      ValueError: not a PNG, or one that is damaged, cut off, or has parts that no decoder need understand.
    """
    found, _ = _chunks(data)
    if _unknown(found, (b"IHDR", b"PLTE", b"IDAT", b"IEND")):
        raise ValueError("not a readable PNG: it has a part that nobody knows")
    inflater = isal_zlib.decompressobj()
    try:
        for packed in (part for kind, part in found if kind == b"IDAT"):
            while packed:
                inflater.decompress(packed, _BLOCK_BYTES)
                packed = inflater.unconsumed_tail
        inflater.flush()
    except isal_zlib.error as error:  # type: ignore[misc]  # its stubs hide what it is
        raise ValueError(f"not a readable PNG: {error}") from error
    if not inflater.eof:
        raise ValueError("not a readable PNG: its pixels end too early")


def _unknown(chunks: Sequence[tuple[bytes, bytes]], known: tuple[bytes, ...]) -> bool:
    """Whether there are others that have to be understood: their names begin with an upper case letter."""
    return any(kind[0] & 0x20 == 0 and kind not in known for kind, _ in chunks)


def _chunks(data: bytes) -> tuple[list[tuple[bytes, bytes]], int]:
    """The parts of a PNG, and the byte behind the last one."""
    if not data.startswith(_SIGNATURE):
        raise ValueError("not a readable PNG: it does not begin with the signature")
    found: list[tuple[bytes, bytes]] = []
    at = len(_SIGNATURE)
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
