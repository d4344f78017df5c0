"""What one request may cost, beyond the size of its body: pixels, and processors that decode."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

from tfos_job.formats.picture_head import read_head
from tfos_job.serve.refusals import TooLarge


def _decoders() -> threading.Semaphore:
    """As many as there are processors: more would be no faster, and hold more pictures in memory."""
    return threading.Semaphore(len(os.sched_getaffinity(0)))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a request.

    Attributes:
      max_images: pictures and drawings.
      max_pixels: of a picture, as its head says before anything is decoded.
      timeout_s: from the first byte to the answer.
      decoders: what is held while a picture is decoded.
    """

    max_images: int
    max_pixels: int
    timeout_s: float
    decoders: threading.Semaphore = field(default_factory=_decoders)

    def check_pixels(self, data: bytes) -> None:
        """Raises TooLarge for a file of a larger picture; one that is no picture is for the decoder to name."""
        try:
            head = read_head(data)
        except ValueError:
            return
        if head.width * head.height > self.max_pixels:
            fact = f"a picture of {head.width} × {head.height} pixels is larger than {self.max_pixels} pixels"
            raise TooLarge(fact)
