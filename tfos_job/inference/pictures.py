"""Pictures that a network is asked about, and their pixels as a dataset would hold them. numpy and Pillow alone.

A file is read as strictly as `convert` reads it (`formats/image_files.py`), and Pillow's pixels are those that training
sees in what is stored of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from tfos_job import storage
from tfos_job.errors import BadDataError, JobError, SettingsError
from tfos_job.formats import image_files

Picture = str | os.PathLike[str] | bytes | np.ndarray | Image.Image
"""A path or URL; the bytes of a file; an array, uint8 [h, w] or [h, w, 1] of grey or [h, w, 3] of RGB; Pillow's."""

_NEXT_STEP = "Give a PNG, JPEG or GIF"


class Request(NamedTuple):
    """A picture that is asked about; `source` is the error about one that is known not to be readable."""

    name: str
    source: Picture | JobError


def requests_of(pictures: Iterable[Picture]) -> Iterator[Request]:
    """Names pictures: a path by itself, others `pictures[N]` by their position.

    Raises:
      SettingsError: it is one picture, of which the parts would be taken for pictures.
    """
    is_one = isinstance(pictures, str | bytes | bytearray | memoryview | os.PathLike | Image.Image)
    if is_one or (isinstance(pictures, np.ndarray) and _is_picture(pictures)):
        raise SettingsError("one picture is no list of pictures", place="pictures", next_step="Give [picture]")
    for number, picture in enumerate(pictures):
        name = os.fspath(picture) if isinstance(picture, str | os.PathLike) else f"pictures[{number}]"
        yield Request(name, picture)


def read(request: Request, *, num_channels: int) -> np.ndarray:
    """The pixels of a picture, uint8 [h, w, C].

    Raises:
      BadDataError: the file is damaged, or of another format.
      MissingInputError: it is not there.
      AccessError: it may not be read.
      SettingsError: it is no picture of a kind that is taken.
      StorageError: its file system has failed.
    """
    name, source = request
    if isinstance(source, JobError):
        raise source
    if isinstance(source, str | os.PathLike):
        source = storage.read_bytes(os.fspath(source), image_files.MAX_BYTES + 1)
    if isinstance(source, bytes | bytearray | memoryview):
        return read_picture(bytes(source), name, num_channels=num_channels)
    if isinstance(source, np.ndarray):
        source = Image.fromarray(_checked(source, name))
    if not isinstance(source, Image.Image):
        raise SettingsError(
            f"a {type(source).__name__} is no picture", place=name, next_step="Give a path, bytes, an array or an image"
        )
    try:
        return _pixels(image_files.flat(source), num_channels)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reads a file's pixels when they are asked for
        raise BadDataError(f"cannot be decoded: {error}", place=name, next_step=_NEXT_STEP) from error


def read_picture(data: bytes, place: str, *, num_channels: int = 1) -> np.ndarray:
    """Decodes a PNG, JPEG or GIF (its first frame) to uint8 [h, w, C].

    Transparent parts become white paper, 16 bits 8, and a photograph is turned as its EXIF says.

    Args:
      data: the file's bytes.
      place: the file's name, for the error.
      num_channels: C, 1 for grey or 3 for RGB.

    Raises:
      BadDataError: the file is damaged, or of another format.
    """
    try:
        with image_files.opened(data, image_files.FORMATS) as image:
            return _pixels(image_files.flat(image), num_channels)
    except ValueError as error:
        raise BadDataError(str(error), place=place, next_step=_NEXT_STEP) from error


def _pixels(image: Image.Image, num_channels: int) -> np.ndarray:
    """The pixels of an image of mode L or RGB."""
    mode = "L" if num_channels == 1 else "RGB"
    pixels = np.array(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], num_channels)


def _is_picture(array: np.ndarray) -> bool:
    """True for an array of the shape of one picture."""
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))


def _checked(array: np.ndarray, name: str) -> np.ndarray:
    """An array as uint8 [h, w] or [h, w, 3]."""
    if array.dtype != np.uint8 or not _is_picture(array) or not array.size:
        raise SettingsError(
            f"an array of {array.dtype} {list(array.shape)} is no picture",
            place=name,
            next_step="Give uint8 [h, w] of grey, 0 black and 255 white, or uint8 [h, w, 3] of RGB",
        )
    return array[:, :, 0] if array.shape[2:] == (1,) else array
