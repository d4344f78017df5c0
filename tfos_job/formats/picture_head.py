"""The head of a picture file: its size, and whether it is grey. The pixels are not read."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

from PIL import Image

from tfos_job.formats.image_files import FORMATS, TooManyPixels, check_pixels, check_size
from tfos_job.formats.transparency import DEEP_GREY

_GREY = ("1", "L", *DEEP_GREY)
_ALPHA = "+alpha"


class PictureHead(NamedTuple):
    """The head of a picture file; `mode` is Pillow's, followed by `+alpha` for a PNG that is transparent in parts."""

    width: int
    height: int
    mode: str


def read_head(data: bytes) -> PictureHead:
    """The head of a PNG, JPEG or GIF.

    Raises:
      TooManyPixels: larger than is taken.
      ValueError: another kind of file, or of more bytes.
    """
    check_size(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata: the limits here are our own
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_pixels(*image.size)
                alpha = _ALPHA if image.format == "PNG" and image.has_transparency_data else ""
                return PictureHead(*image.size, image.mode + alpha)
    except (ValueError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(str(error)) from error
    except Exception as error:  # Pillow's plugins raise any exception
        raise ValueError(f"cannot be decoded: {error}") from error


def is_grey(mode: str) -> bool:
    """True for pictures that lose nothing in one channel."""
    return mode in _GREY


def needs_three_channels(mode: str) -> bool:
    """True for pictures that training reads in three channels alone: one has no grey of four samples."""
    return mode == "CMYK" or mode.endswith(_ALPHA)
