"""Picture files: read strictly, kept as they are where training reads the same pixels, else made PNGs.

Strictly means that nothing is missing: decoders forgive a lot, each in its way, and fill up what is not there. A file
is kept if it is upright, without transparency, with one picture in it, in 8 bits, and if TensorFlow, which trains on
it, and Pillow see the same in it; TensorFlow is asked for each (`decoder.py`). Everything else that can be read
becomes a PNG of Pillow's pixels, with paper for what is transparent, 8 bits for 16, and turned as EXIF says.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfos_job.errors import JobError
from tfos_job.formats import decoder, gif, jpeg, png, transparency

STORED_FORMATS = ("gif", "jpeg", "png")
FORMATS = ("PNG", "JPEG", "GIF")
"""Pillow's names of what is read."""
MAX_SIDE = 65_535
MAX_PIXELS = 1 << 26
"""Of colour Pillow holds four bytes for each, and for a PNG that is made of it as much again, twice."""
MAX_BYTES = 1 << 28
_STRIP_ROWS = 512
_ORIENTATION = 0x0112  # of EXIF, and the turn that makes each of its values upright
# ImageOps.exif_transpose would rewrite EXIF, and fails if that is malformed.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

TrainingView = Callable[[bytes, str], bytes]
"""The `decoder.digest` of what training sees in a file of a format; raises ValueError if it cannot read the file."""


class TooManyPixels(ValueError):
    """A larger picture than is taken."""


class StoredPicture(NamedTuple):
    """A picture as it is stored: the bytes of a file, in one of `STORED_FORMATS`."""

    data: bytes
    image_format: str
    height: int
    width: int


class _Opened(NamedTuple):
    """A file that has been read.

    Attributes:
      image: Pillow's, loaded.
      is_simple: whether the file holds it alone, in 8 bits, and is read as it is.
      prove: raises ValueError if decoding made up pixels. Unnecessary if training sees the same pixels: a JPEG is read
        here with extra bits (`jpeg.Jpeg.padded`), so training, without them, would make up others.
    """

    image: Image.Image
    is_simple: bool
    prove: Callable[[], None] = lambda: None


def read(data: bytes, *, keep: bool = True, training_view: TrainingView | None = None) -> StoredPicture:
    """A picture file in the form in which it is stored.

    Args:
      data: the file.
      keep: the very bytes where training reads the same pixels; else always a PNG.
      training_view: the digest of what training sees (default: that of `decoder.of_this_process`).

    Raises:
      ValueError: not a whole PNG, JPEG or GIF, or a larger one than is taken.
      JobError: what `training_view` raises.
    """
    with _opened(data, FORMATS) as opened_:
        image = opened_.image
        if keep and _misread(opened_, data, training_view) is None:
            return StoredPicture(data, _format_of(image), image.height, image.width)
        opened_.prove()
        return _as_png(flat(image))


def decode(data: bytes, image_format: str, *, training_view: TrainingView | None = None) -> Image.Image:
    """A stored picture, in mode L or RGB.

    Args:
      data: the file.
      image_format: one of `STORED_FORMATS`.
      training_view: as in `read`.

    Raises:
      ValueError: not such a file, not a whole one, or one that training reads in another way.
      JobError: what `training_view` raises.
    """
    with _opened(data, FORMATS) as opened_:
        if _format_of(opened_.image) != image_format:
            raise ValueError(f"its bytes are those of a {_format_of(opened_.image)}")
        fact = _misread(opened_, data, training_view)
        if fact is not None:
            opened_.prove()
            raise ValueError(f"a {image_format} {fact}")
        return flat(opened_.image)


@contextlib.contextmanager
def opened(data: bytes, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """A picture whose pixels have all been read.

    Args:
      data: the file.
      formats: Pillow's names of those that are taken; None for all that it knows.

    Raises:
      ValueError: it cannot be read, wholly and within the limits. So is what Pillow raises within the block.
    """
    with _opened(data, formats) as found:
        found.prove()
        yield found.image


@contextlib.contextmanager
def _opened(data: bytes, formats: tuple[str, ...] | None) -> Iterator[_Opened]:
    check_size(len(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd metadata: the limits here are our own
            for signatures, kind in _KINDS:
                if data.startswith(signatures):
                    found = kind(data)
                    break
            else:
                found = _Opened(_load(data, formats), False)
            with found.image:
                yield found
    except UnidentifiedImageError as error:
        raise ValueError(f"not a {', '.join(formats[:-1])} or {formats[-1]}" if formats else str(error)) from error
    except (ValueError, MemoryError, JobError):
        raise
    except Exception as error:  # Pillow's plugins raise any exception
        raise ValueError(f"cannot be decoded: {error}") from error


def _png(data: bytes) -> _Opened:
    parts = png.parse(data)
    check_pixels(parts.width, parts.height)
    png.check_pixels(parts)
    image, is_readable = _loaded(data, parts.bare())
    is_simple = parts.depth == 8 and parts.colour in (png.GREY, png.RGB, png.PALETTE)
    is_alone = parts.first(b"tRNS") is None and parts.first(b"acTL") is None
    return _Opened(transparency.by_key(image, parts), is_readable and is_simple and is_alone)


def _gif(data: bytes) -> _Opened:
    found = gif.parse(data)
    image, is_readable = _loaded(data, found.bare)
    return _Opened(image, is_readable and found.num_frames == 1)


def _loaded(data: bytes, bare: bytes) -> tuple[Image.Image, bool]:
    """A PNG or GIF, and whether Pillow takes it as it is; else without what its pixels do not depend on."""
    try:
        return _load(data, FORMATS), True
    except Exception:  # noqa: BLE001 - Pillow's plugins raise what they like
        return _load(bare, FORMATS), False


def _load(data: bytes, formats: tuple[str, ...] | None) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=formats)
    check_pixels(*image.size)
    image.load()
    return image


def _jpeg(data: bytes) -> _Opened:
    found = jpeg.parse(data)
    image = _load(found.padded(), ("JPEG",))  # of an MPO as well
    first_change = functools.partial(_first_change, image)
    jpeg.check_zeros(found, first_change)
    return _Opened(image, True, functools.partial(jpeg.check_bits, found, first_change))


_KINDS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes], _Opened]], ...] = (
    (png.SIGNATURE, _png),
    (gif.SIGNATURES, _gif),
    (jpeg.SIGNATURE, _jpeg),
)


def _first_change(image: Image.Image, data: bytes) -> int | None:
    """The first row in which another JPEG's pixels are not those of an image; None if all are."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as other:
        other.load()
        for top in range(0, image.height, _STRIP_ROWS):  # both in arrays would be as much memory again
            strip = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
            changed = np.asarray(image.crop(strip)) != np.asarray(other.crop(strip))
            if changed.any():
                return top + int(changed.reshape(len(changed), -1).any(axis=1).argmax())
    return None


def check_size(size_bytes: int) -> None:
    """Raises ValueError for a file that is empty, or larger than is taken."""
    if not 1 <= size_bytes <= MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES} bytes, found {size_bytes}" if size_bytes else "an empty file")


def check_pixels(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        fact = f"at most {MAX_SIDE} to a side and {MAX_PIXELS} in all"
        raise TooManyPixels(f"expected {fact}, found {width} × {height} pixels")


def flat(image: Image.Image) -> Image.Image:
    """The picture upright, in 8 bits of grey (L) or colour (RGB); what is transparent is paper."""
    turn = _turn(image)
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in transparency.DEEP_GREY:
        return transparency.grey_of_16_bits(image)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        image = transparency.on_paper(image.convert("RGBA"))
    return image.convert(mode)


def of_pixels(pixels: bytes, width: int, height: int) -> StoredPicture:
    """A picture of uint8 values row by row, grey or RGB, as a PNG.

    Raises:
      ValueError: it has another number of values.
    """
    modes = {width * height: "L", width * height * 3: "RGB"}
    mode = modes.get(len(pixels))
    if mode is None:
        raise ValueError(f"expected {width} × {height} grey or RGB bytes, found {len(pixels)}")
    check_pixels(width, height)
    return _as_png(Image.frombytes(mode, (width, height), pixels))


def _as_png(image: Image.Image) -> StoredPicture:
    stream = io.BytesIO()
    bare = Image.frombytes(image.mode, image.size, image.tobytes())  # without a colour profile and the like
    bare.save(stream, "PNG")
    return StoredPicture(stream.getvalue(), "png", image.height, image.width)


def _format_of(image: Image.Image) -> str:
    """The value of `image/format`; an MPO is a JPEG with others behind it."""
    return "jpeg" if image.format in ("JPEG", "MPO") else str(image.format).lower()


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that makes the picture upright; None if it is, or if EXIF cannot be understood."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return None


def _misread(found: _Opened, data: bytes, training_view: TrainingView | None) -> str | None:
    """The difference between the pixels that training sees in a file and those of `flat`; None if there is none."""
    image = found.image
    is_plain = image.mode in ("L", "RGB", "P") and not image.has_transparency_data and _turn(image) is None
    if not (found.is_simple and is_plain):
        return "of a kind that conversion makes a PNG of: turned by EXIF, transparent, animated, in CMYK or 16 bits"
    try:
        theirs = (training_view or decoder.of_this_process().digest)(data, _format_of(image))
    except ValueError as error:
        return f"that training cannot read: {error}"
    ours = decoder.digest(np.asarray(flat(image).convert("RGB")))
    return None if theirs == ours else "in which training sees other pixels"
