"""What requests may cost, beyond the size of each body: pixels, processors that decode, memory of all bodies."""

from __future__ import annotations

import os
import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tfos_job.formats import jpeg, png
from tfos_job.formats.image_files import TooManyPixels, check_pixels
from tfos_job.formats.picture_head import read_head
from tfos_job.serve.bodies import Bodies
from tfos_job.serve.refusals import TooLarge, too_late

_MOST_PARTS = 10_000  # before the pixels of a file; decoders take some microseconds for each
_HEAD, _SIZE = b"IHDR", struct.Struct(">II")  # of a PNG
_START_OF_SCAN, _FILL = 0xDA, 0xFF  # of a JPEG


def _decoders() -> queue.SimpleQueue[None]:
    """A leave for each processor: more would be no faster, and hold more pictures in memory.

    `threading.Semaphore` takes several times as long.
    """
    leaves: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in os.sched_getaffinity(0):
        leaves.put(None)
    return leaves


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a request.

    Attributes:
      max_images: pictures and drawings.
      max_pixels: of a picture, as its head says before anything is decoded.
      timeout_s: from the first byte to the answer.
      decoders: leaves, of which `decoding` holds one.
      bodies: the memory of all requests' bodies.
    """

    max_images: int
    max_pixels: int
    timeout_s: float
    decoders: queue.SimpleQueue[None] = field(default_factory=_decoders)
    bodies: Bodies = field(default_factory=Bodies)

    @contextmanager
    def decoding(self, until_s: float) -> Iterator[None]:
        """A picture's turn to be decoded; `until_s` is of `time.monotonic`.

        Raises:
          Unavailable: it does not come in time.
        """
        left_s = until_s - time.monotonic()
        if left_s <= 0:  # also of a request of many pictures, when some of them are decoded
            raise too_late()
        try:
            self.decoders.get(timeout=min(left_s, threading.TIMEOUT_MAX))
        except queue.Empty:
            raise too_late() from None
        try:
            yield
        finally:
            self.decoders.put(None)

    def check_pixels(self, data: bytes) -> None:
        """Raises TooLarge for a file of a larger picture; one that is no picture is for the decoder to name."""
        try:
            for width, height in _sizes(data):
                check_pixels(width, height)
                if width * height > self.max_pixels:
                    raise TooLarge(f"a picture of {width} × {height} pixels is larger than {self.max_pixels} pixels")
        except TooManyPixels as error:
            raise TooLarge(f"a picture that is too large: {error}") from error


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
