"""Picture files: read strictly, kept as they are where training's decoders read them, else made PNGs that they read.

Strictly means that nothing is missing: Pillow shows a file whose end is cut off as long as all pixels came before, and
a decoder of another library may not. What is kept is what both read alike, which tests prove: files of 8 bits, grey or
coloured, upright, without transparency, with one picture in them. Everything else that can be read becomes a PNG, with
white paper for what is transparent, 8 bits for 16, and turned as EXIF says.
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfos_job.data import headers, png

STORED_FORMATS = ("gif", "jpeg", "png")
FORMATS = ("PNG", "JPEG", "GIF")
"""Pillow's names of what is read."""
MAX_SIDE = 65_535
MAX_PIXELS = 1 << 26
"""Of colour Pillow holds four bytes for each, and for a PNG that is made of it as much again, twice."""
MAX_BYTES = 1 << 28
_GREY_16_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_ORIENTATION = 0x0112  # of EXIF, and what makes each of its values upright
# Not by ImageOps.exif_transpose: it writes EXIF anew, and fails where that is odd.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_DEPTH, _PNG_COLOUR = 24, 25  # bytes of a PNG
_PROGRESSIVE = 0xC2
_HUFFMAN = (0xC0, 0xC1, _PROGRESSIVE)  # arithmetic coding and the like are not in every build of libjpeg


class Picture(NamedTuple):
    """A picture as it is stored: the bytes of a file, in one of `STORED_FORMATS`."""

    data: bytes
    image_format: str
    height: int
    width: int


def read(data: bytes, *, keep: bool = True) -> Picture:
    """A picture file as it is to be stored.

    Args:
      data: the file.
      keep: the very bytes where training's decoders read them; else always a PNG.

    Raises:
      ValueError: not a whole PNG, JPEG or GIF, or a larger one than is taken.
    """
    with opened(data, FORMATS) as image:
        image_format = _format_of(image)
        if keep and _is_plain(image, data):
            return Picture(data, image_format, image.height, image.width)
        return _as_png(flat(image))


def decode(data: bytes, image_format: str) -> Image.Image:
    """A stored picture, in mode L or RGB.

    Raises:
      ValueError: not such a file, not a whole one, or one that training's decoders may read in another way.
    """
    with opened(data, FORMATS) as image:
        if _format_of(image) != image_format:
            raise ValueError(f"its bytes are those of a {_format_of(image)}")
        if not _is_plain(image, data):
            raise ValueError(f"a {image_format} of a kind that training does not read")
        return flat(image)


@contextlib.contextmanager
def opened(data: bytes, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """A picture whose pixels have all been read.

    Args:
      data: the file.
      formats: Pillow's names of those that are taken; None for all that it knows.

    Raises:
      ValueError: it cannot be read, wholly and within the limits. So is what Pillow raises within the block.
    """
    check_size(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata: the limits here are our own
            with Image.open(io.BytesIO(data), formats=formats) as image:
                if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
                    fact = f"at most {MAX_SIDE} to a side and {MAX_PIXELS} in all"
                    raise ValueError(f"expected {fact}, found {image.width} × {image.height} pixels")
                if image.format == "PNG":
                    png.check(data)
                image.load()
                yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"not a {', '.join(formats[:-1])} or {formats[-1]}" if formats else str(error)) from error
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise what they like
        raise ValueError(f"cannot be decoded: {error}") from error


def check_size(size_bytes: int) -> None:
    """Raises ValueError for a file that is empty, or larger than is taken."""
    if not 1 <= size_bytes <= MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes, found {size_bytes}" if size_bytes else "an empty file")


def flat(image: Image.Image) -> Image.Image:
    """The picture upright, in 8 bits of grey (L) or colour (RGB); what is transparent is white paper."""
    turn = _turn(image)
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in _GREY_16_BIT:  # Pillow's own conversion to 8 bits clips at 255 instead of scaling
        deep = np.clip(np.asarray(image, np.float64), 0, 65535)
        return Image.fromarray(np.round(deep / 257).astype(np.uint8))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image.convert("RGBA"))
        image = paper
    return image.convert(mode)


def _as_png(image: Image.Image) -> Picture:
    stream = io.BytesIO()
    bare = Image.frombytes(image.mode, image.size, image.tobytes())  # without a colour profile and the like
    bare.save(stream, "PNG")
    return Picture(stream.getvalue(), "png", image.height, image.width)


def _format_of(image: Image.Image) -> str:
    """As `image/format` has it; an MPO is a JPEG with others behind it."""
    return "jpeg" if image.format in ("JPEG", "MPO") else str(image.format).lower()


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright; None where it is, and where EXIF says nothing that can be understood."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return None


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether training's decoders see in the file's bytes what `flat` makes of it."""
    if image.mode not in ("L", "RGB", "P") or image.has_transparency_data or _turn(image) is not None:
        return False
    if image.format == "PNG":
        is_animated = getattr(image, "is_animated", False)
        is_8_bit = data[_PNG_DEPTH] == 8 and data[_PNG_COLOUR] in (0, 2, 3)
        return is_8_bit and not is_animated and data.endswith(png.END)
    if image.format == "GIF":
        gif = headers.gif(data)
        highest = int(np.asarray(image).max())
        return gif.num_frames == 1 and gif.fills and highest < gif.num_colours and gif.end == len(data)
    frame, end = headers.jpeg_frame(data), headers.jpeg_end(data)
    # What is missing of a progressive one is smoothed over, by each in its way: its end mark is to be the last one.
    return frame in _HUFFMAN and end is not None and (frame != _PROGRESSIVE or end == len(data))
