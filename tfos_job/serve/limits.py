"""What requests may cost, beyond the size of each body: pixels, memory of all bodies."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfos_job.formats import jpeg, png
from tfos_job.formats.image_files import TooManyPixels, check_pixels
from tfos_job.formats.picture_head import read_head
from tfos_job.serve.bodies import LIGHT_BYTES, Bodies
from tfos_job.serve.refusals import TooLarge

_MOST_PARTS = 10_000  # before the pixels of a file; decoders take some microseconds for each
_LIGHT_PIXELS, _LEAST_PIXELS = 1 << 14, 1 << 11  # of a request; and what each of its pictures counts besides its own
_HEAD, _SIZE = b"IHDR", struct.Struct(">II")  # of a PNG
_START_OF_SCAN, _FILL = 0xDA, 0xFF  # of a JPEG


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a request.

    Attributes:
      max_images: pictures and drawings.
      max_pixels: of a picture, as its head says before anything is decoded.
      timeout_s: from the first byte to the answer.
      bodies: the memory of all requests' bodies.
    """

    max_images: int
    max_pixels: int
    timeout_s: float
    bodies: Bodies = field(default_factory=Bodies)

    def count_pixels(self, data: bytes) -> int:
        """The pixels of a picture, as the head of its file says; 0 of what is none, which is for the decoder to name.

        Raises:
          TooLarge: there are more than are taken.
        """
        found = 0
        try:
            for width, height in _sizes(data):
                check_pixels(width, height)
                if width * height > self.max_pixels:
                    raise TooLarge(f"a picture of {width} × {height} pixels is larger than {self.max_pixels} pixels")
                found = max(found, width * height)
        except TooManyPixels as error:
            raise TooLarge(f"a picture that is too large: {error}") from error
        return found

    def are_light(self, sources: Sequence[Any]) -> bool:
        """True for few small pictures, which are read, and their ink found, in a few milliseconds; not for drawings."""
        num_pixels = 0
        for source in sources:
            if not isinstance(source, bytes) or len(source) > LIGHT_BYTES:
                return False
            with contextlib.suppress(TooLarge):  # it is refused, which takes no time
                num_pixels += self.count_pixels(source) + _LEAST_PIXELS
        return num_pixels <= _LIGHT_PIXELS


def _sizes(data: bytes) -> list[tuple[int, int]]:
    """Width and height of a picture, as each head of the file says; none if it cannot be read.

    Raises:
      TooLarge: the file has so many parts that to read its head would take minutes.
      TooManyPixels: none is read that is as large.
    """
    if data.startswith(png.SIGNATURE):  # Pillow takes ten times as long
        heads = [at for at in _parts(data, len(png.SIGNATURE), _after_chunk) if data.startswith(_HEAD, at + 4)]
        return [_SIZE.unpack_from(data, at + 8) for at in heads if at + 8 + _SIZE.size <= len(data)]
    if data.startswith(jpeg.SIGNATURE):
        _parts(data, 2, _after_marker)
    try:
        head = read_head(data)
    except TooManyPixels:
        raise
    except ValueError:
        return []
    return [(head.width, head.height)]


def _parts(data: bytes, at: int, after: Callable[[bytes, int], int]) -> list[int]:
    """Where each part of a file begins.

    Raises:
      TooLarge: there are too many.
    """
    found = []
    for _ in range(_MOST_PARTS):
        found.append(at)
        at = after(data, at)
        if at >= len(data):
            return found
    raise TooLarge(f"a picture file of more than {_MOST_PARTS} parts")


def _after_chunk(data: bytes, at: int) -> int:
    return at + 12 + int.from_bytes(data[at : at + 4], "big")


def _after_marker(data: bytes, at: int) -> int:
    """Where the next marker is; the end of the file for what is none, and for the first scan."""
    code = int.from_bytes(data[at + 1 : at + 2], "big")
    if data[at] != _FILL or code == _START_OF_SCAN:
        return len(data)
    return at + 1 if code == _FILL else at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
