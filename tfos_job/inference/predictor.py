"""Prediction of the most probable classes of an image file.

A file is converted to a PNG of the pixels that `convert` would store (`formats/image_files.py`), decoded as in training
and preprocessed by the same `preprocess` as in training and evaluation. For a network of glyphs ink is dark, paper 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfos_job.errors import BadDataError
from tfos_job.formats import image_files
from tfos_job.formats.form import Form
from tfos_job.input.decoding import decode_file, preprocess, to_float

# In nearly every picture ink covers a smaller share.
_CLEAR_MINORITY = 0.4


@dataclass(frozen=True)
class DecodedPicture:
    """A picture as a dataset stores it: `pixels` uint8 [h, w, C]; `inverted` if its brightness was inverted."""

    pixels: np.ndarray
    inverted: bool


@dataclass(frozen=True)
class Prediction:
    """One of the most probable classes, with its softmax probability."""

    class_id: int
    probability: float


def read_picture(data: bytes, place: str, *, num_channels: int = 1, may_be_inverted: bool = True) -> DecodedPicture:
    """Decodes a PNG, JPEG or GIF (its first frame).

    Transparent parts become white paper, 16 bits 8, and a photograph is turned as its EXIF says.

    Args:
      data: the file's bytes.
      place: the file's name, for the error.
      num_channels: C, 1 for grey or 3 for RGB.
      may_be_inverted: True to invert a picture of white ink on black.

    Raises:
      BadDataError: the file is damaged, or of another format.
    """
    try:
        picture = image_files.read(data, keep=False)
    except ValueError as error:
        raise BadDataError(str(error), place=place, next_step="Give a PNG, JPEG or GIF") from error
    pixels = decode_file(tf.constant(picture.data), picture.image_format, num_channels).numpy()
    inverted = may_be_inverted and is_inverted(pixels[:, :, 0])
    return DecodedPicture(255 - pixels if inverted else pixels, inverted)


def is_inverted(grey: np.ndarray) -> bool:
    """True if the ink is brighter than the paper.

    Ink is the smaller part of a picture: a share of dark pixels below 0.4 or above 0.6 decides. Between these, with
    bold strokes, the border decides: it is paper if the glyph has a margin. This is correct for all 17,475 glyphs of
    `casia-small` and `cmnist`, both original and inverted.

    Args:
      grey: uint8 [h, w].
    """
    dark = grey < (int(grey.min()) + int(grey.max())) / 2
    share = dark.mean()
    if _CLEAR_MINORITY <= share <= 1 - _CLEAR_MINORITY:
        border = np.concatenate([dark[0], dark[-1], dark[1:-1, 0], dark[1:-1, -1]])
        return bool(border.mean() > 0.5)
    return bool(share > 0.5)


def top_predictions(model: keras.Model, picture: DecodedPicture, *, form: Form, k: int) -> list[Prediction]:
    """Returns the `k` most probable classes (or all, if there are fewer), the most probable first."""
    images = to_float(preprocess(tf.constant(picture.pixels[np.newaxis]), form))
    probabilities = tf.nn.softmax(model(images, training=False))[0]
    top = tf.math.top_k(probabilities, k=min(k, probabilities.shape[0]))
    pairs = zip(top.indices.numpy(), top.values.numpy(), strict=True)
    return [Prediction(int(class_id), float(probability)) for class_id, probability in pairs]
