"""From an image file to the characters it may show.

A picture becomes what a glyph of the dataset is, grey with ink dark on paper 255, and then goes through the very same
`preprocess` as training and evaluation.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from tfos_job.data.decoding import preprocess, to_float
from tfos_job.errors import BadDataError

FORMATS = ("PNG", "JPEG", "GIF")
_GREY_16_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")

# Ink covers a smaller share of nearly every picture.
_CLEAR_MINORITY = 0.4


@dataclass(frozen=True)
class Glyph:
    """A picture as the dataset would hold it: `pixels` uint8 [h, w, 1], paper bright; `inverted` if it was turned."""

    pixels: np.ndarray
    inverted: bool


@dataclass(frozen=True)
class Guess:
    """One of the most probable classes, with its softmax probability."""

    class_id: int
    probability: float


def read_glyph(data: bytes, place: str) -> Glyph:
    """Decodes a PNG, JPEG or GIF (its first frame).

    Transparent parts become white paper, colours grey, 16 bits 8, and a photograph is turned as its EXIF says.

    Args:
      data: the file's bytes.
      place: the file's name, for the error.

    Raises:
      BadDataError: not such a file, or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            grey = _to_grey(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise _unreadable(place, "not a PNG, JPEG or GIF") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _unreadable(place, f"cannot be decoded: {error}") from error
    inverted = is_inverted(grey)
    return Glyph((255 - grey if inverted else grey)[:, :, np.newaxis], inverted)


def is_inverted(grey: np.ndarray) -> bool:
    """Whether the ink is brighter than the paper.

    Ink is the smaller part of a picture: with less than 0.4 or more than 0.6 of the pixels dark, that decides. Between
    them, with bold strokes, the border does, which is paper where the glyph has a margin. On all 17,475 glyphs of
    `casia-small` and `cmnist`, as they are and turned over, this is never wrong.

    Args:
      grey: uint8 [h, w].
    """
    dark = grey < (int(grey.min()) + int(grey.max())) / 2
    share = dark.mean()
    if _CLEAR_MINORITY <= share <= 1 - _CLEAR_MINORITY:
        border = np.concatenate([dark[0], dark[-1], dark[1:-1, 0], dark[1:-1, -1]])
        return bool(border.mean() > 0.5)
    return bool(share > 0.5)


def top_guesses(model: keras.Model, glyph: Glyph, *, image_size: int, k: int) -> list[Guess]:
    """The `k` most probable classes, all of them where there are fewer; the most probable first."""
    images = to_float(preprocess(tf.constant(glyph.pixels[np.newaxis]), image_size))
    probabilities = tf.nn.softmax(model(images, training=False))[0]
    top = tf.math.top_k(probabilities, k=min(k, probabilities.shape[0]))
    pairs = zip(top.indices.numpy(), top.values.numpy(), strict=True)
    return [Guess(int(class_id), float(probability)) for class_id, probability in pairs]


def _to_grey(image: Image.Image) -> np.ndarray:
    """uint8 [h, w]."""
    if image.mode in _GREY_16_BIT:
        # Pillow's own conversion to 8 bits clips at 255 instead of scaling.
        return np.round(np.clip(np.asarray(image, np.float64), 0, 65535) / 257).astype(np.uint8)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, coloured)
    return np.asarray(image.convert("L"))


def _unreadable(place: str, fact: str) -> BadDataError:
    return BadDataError(fact, place=place, next_step="Give a PNG, JPEG or GIF")
