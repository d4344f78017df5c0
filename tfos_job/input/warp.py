"""Movements in augmentation: all distortions and movements are one coordinate map and one bilinear sampling.

An output pixel p has the value at A(p + d(p)), with the elastic displacement d and the affine map A, both in pixels
from the image's centre. For the picture that means: a window is cropped and scaled to the full size, then zoomed,
slanted, rotated and shifted, and the result is distorted.

Outside the picture is what `--fill_mode` says; by default paper (1.0) in grey images, and in colour the edge again.

Without displacement TensorFlow's ImageProjectiveTransformV3 is used. A displacement has coordinates for each pixel, and
gathering takes twice as long (benchmarks/README.md); so do `reflect` and `wrap`, which that operation does not sample
right where an image meets its copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfos_job.config import AUTO_FILL, CONSTANT, NEAREST, REFLECT, WRAP, AugmentationConfig
from tfos_job.input.stateless_random import Stream, uniform, uniform_pairs

PAPER = 1.0
_NODE_DISTANCE = 1.25
"""Distance of the elastic nodes, in sigmas: the field's variance differs by 1 % between a node and the midpoint."""
_MARGIN = 3.0  # width of the margin with nodes outside the image, in sigmas

Draw = Callable[[Stream, float, float], tf.Tensor]
_Number = Any  # a float, or float32 [B]


def warp(images: tf.Tensor, seed: tf.Tensor, indices: tf.Tensor, options: AugmentationConfig) -> tf.Tensor:
    """Moves each image by its own random numbers.

    Args:
      images: float32 [B, S, S, C].
      seed: int64 [].
      indices: int64 [B].
      options: strengths; if all are off, the same tensor is returned.

    Returns:
      float32 [B, S, S, C].
    """
    transform = affine(seed, indices, images.shape[1], options)
    mode = fill_mode(options, images.shape[3])
    if options.elastic_distortion:
        displacement = elastic_displacement(seed, indices, images.shape[1], options)
        return _sample(images, *_places(transform, displacement, images.shape[1]), mode, options.fill_value)
    if transform is None:
        return images
    if mode in (REFLECT, WRAP):
        return _sample(images, *_places(transform, None, images.shape[1]), mode, options.fill_value)
    return _sample_affine(images, transform, mode, options.fill_value)


def fill_mode(options: AugmentationConfig, num_channels: int) -> str:
    """The mode that `--fill_mode auto` stands for."""
    if options.fill_mode != AUTO_FILL:
        return options.fill_mode
    return CONSTANT if num_channels == 1 else NEAREST


# --- the map ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """x' = xx·x + xy·y + x0, y' = yx·x + yy·y + y0; to the right and downwards from the image's centre, in pixels."""

    xx: _Number = 1.0
    xy: _Number = 0.0
    x0: _Number = 0.0
    yx: _Number = 0.0
    yy: _Number = 1.0
    y0: _Number = 0.0

    def of(self, inner: Affine) -> Affine:
        """Returns the map that applies `inner` first."""
        return Affine(
            self.xx * inner.xx + self.xy * inner.yx,
            self.xx * inner.xy + self.xy * inner.yy,
            self.xx * inner.x0 + self.xy * inner.y0 + self.x0,
            self.yx * inner.xx + self.yy * inner.yx,
            self.yx * inner.xy + self.yy * inner.yy,
            self.yx * inner.x0 + self.yy * inner.y0 + self.y0,
        )


def affine(seed: tf.Tensor, indices: tf.Tensor, size: int, options: AugmentationConfig) -> Affine | None:
    """Returns the map from output coordinates to image coordinates; None if no affine movement is on."""

    def draw(stream: Stream, low: float, high: float) -> tf.Tensor:
        return low + (high - low) * uniform(seed, stream, indices)

    parts: list[Affine] = []
    if options.random_crop:
        parts.append(_crop(draw, size, options.random_crop))
    if options.random_zoom:
        smaller = 1 / draw(Stream.ZOOM, 1 - options.random_zoom, 1 + options.random_zoom)
        parts.append(Affine(xx=smaller, yy=smaller))
    if options.random_shear:
        limit = math.radians(options.random_shear)
        parts.append(Affine(xy=tf.tan(draw(Stream.SHEAR, -limit, limit))))
    if options.random_rotation:
        limit = math.radians(options.random_rotation)
        angle = draw(Stream.ROTATION, -limit, limit)
        sine, cosine = tf.sin(angle), tf.cos(angle)
        parts.append(Affine(xx=cosine, xy=-sine, yx=sine, yy=cosine))
    if options.random_width_shift:
        limit = options.random_width_shift * size
        parts.append(Affine(x0=-draw(Stream.WIDTH_SHIFT, -limit, limit)))
    if options.random_height_shift:
        limit = options.random_height_shift * size
        parts.append(Affine(y0=-draw(Stream.HEIGHT_SHIFT, -limit, limit)))
    if not parts:
        return None
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.of(part)
    return whole


def _crop(draw: Draw, size: int, fraction: float) -> Affine:
    """Returns the map of a random window within the image, with sides of at least 1 - `fraction`."""
    width, height = draw(Stream.CROP_WIDTH, 1 - fraction, 1), draw(Stream.CROP_HEIGHT, 1 - fraction, 1)
    x0 = draw(Stream.CROP_X, -0.5, 0.5) * (1 - width) * size
    y0 = draw(Stream.CROP_Y, -0.5, 0.5) * (1 - height) * size
    return Affine(xx=width, x0=x0, yy=height, y0=y0)


def elastic_displacement(
    seed: tf.Tensor, indices: tf.Tensor, size: int, options: AugmentationConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns smooth random fields after Simard et al. (2003), "Best practices for convolutional neural networks".

    The paper smooths a random number at each pixel by a Gaussian. Here the numbers are at the nodes of a lattice, whose
    spacing is about the width of the Gaussian: equally smooth fields from far fewer numbers. Each value has mean 0 and
    standard deviation `elastic_distortion` (of the side), also at the border.

    Returns:
      Displacements to the right and downwards, in pixels: two of float32 [B, S, S].
    """
    weights = tf.constant(elastic_weights(size, options.elastic_sigma))
    num_nodes = weights.shape[1]
    numbers = uniform_pairs(seed, Stream.ELASTIC, num_nodes**2, indices)
    nodes = (numbers * 2 - 1) * (math.sqrt(3) * options.elastic_distortion * size)
    # Row by row, then column by column: products of two matrices, which are much faster than batches of small ones.
    rows = tf.matmul(tf.reshape(nodes, [-1, num_nodes]), weights, transpose_b=True)
    columns = tf.linalg.matrix_transpose(tf.reshape(rows, [-1, num_nodes, size]))
    fields = tf.matmul(tf.reshape(columns, [-1, num_nodes]), weights, transpose_b=True)
    right, down = tf.unstack(tf.reshape(fields, [2, -1, size, size]))
    return right, down


def elastic_weights(size: int, sigma: float) -> np.ndarray:
    """Returns the weights of a row's nodes for each pixel: float32 [S, nodes]; squares of a pixel's add up to 1."""
    num_nodes = math.ceil((1 + 2 * _MARGIN * sigma) / (_NODE_DISTANCE * sigma)) + 1
    nodes = (np.arange(num_nodes) - (num_nodes - 1) / 2) * _NODE_DISTANCE * sigma + 0.5
    pixels = (np.arange(size) + 0.5) / size
    weights = np.exp(-((pixels[:, np.newaxis] - nodes) ** 2) / (2 * sigma**2))
    norms = np.sqrt(np.sum(weights**2, axis=1, keepdims=True))
    return (weights / norms).astype(np.float32)


# --- the sampling -----------------------------------------------------------------------------------------------------


def _sample_affine(images: tf.Tensor, transform: Affine, mode: str, value: float) -> tf.Tensor:
    size = images.shape[1]
    middle = (size - 1) / 2
    x0 = transform.x0 + middle - middle * (transform.xx + transform.xy)
    y0 = transform.y0 + middle - middle * (transform.yx + transform.yy)
    values = [transform.xx, transform.xy, x0, transform.yx, transform.yy, y0, 0.0, 0.0]
    batch = tf.zeros([tf.shape(images)[0]])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([batch + value for value in values], axis=1),
        output_shape=[size, size],
        fill_value=value,
        interpolation="BILINEAR",
        fill_mode=mode.upper(),
    )


def _places(
    transform: Affine | None, displacement: tuple[tf.Tensor, tf.Tensor] | None, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the image coordinates of each output pixel: column and row, float32 [B, S, S]."""
    middle = (size - 1) / 2
    steps = tf.range(size, dtype=tf.float32) - middle
    right, down = displacement or (0.0, 0.0)
    x = steps[tf.newaxis, tf.newaxis, :] + right
    y = steps[tf.newaxis, :, tf.newaxis] + down
    if transform is None:
        return x + middle, y + middle
    numbers = {
        name: value if isinstance(value, float) else value[:, tf.newaxis, tf.newaxis]
        for name, value in vars(transform).items()
    }
    return _linear(x, y, numbers, "x", middle), _linear(x, y, numbers, "y", middle)


def _linear(x: tf.Tensor, y: tf.Tensor, numbers: dict[str, _Number], name: str, middle: float) -> tf.Tensor:
    return numbers[f"{name}x"] * x + numbers[f"{name}y"] * y + (numbers[f"{name}0"] + middle)


def _sample(images: tf.Tensor, x: tf.Tensor, y: tf.Tensor, mode: str, value: float) -> tf.Tensor:
    """Samples at columns `x` and rows `y`, float32 [B, S, S] (either may be [B, 1, S] or [B, S, 1])."""
    size, num_channels = images.shape[1], images.shape[3]
    # With `constant` one pixel of it before the image and two after it: coordinates farther away are clipped to these.
    before, behind = (1, 2) if mode == CONSTANT else (0, 1)
    if mode == WRAP:  # the first row and column again, behind the last ones
        spread = tf.concat([images, images[:, :1]], axis=1)
        spread = tf.concat([spread, spread[:, :, :1]], axis=2)
    else:
        spread = tf.pad(images, [[0, 0], [before, behind], [before, behind], [0, 0]], constant_values=value)
    width = size + before + behind
    x, y = (_within(v, size, mode) for v in (x, y))
    last = size if mode == WRAP else size - 1 + before
    x, y = (tf.clip_by_value(v, float(-before), float(last)) + float(before) for v in (x, y))
    left, top = tf.floor(x), tf.floor(y)
    to_right, to_bottom = ((v - whole)[..., tf.newaxis] for v, whole in ((x, left), (y, top)))
    pixels = tf.reshape(spread, [-1, num_channels])
    first = tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis] * width**2
    corner = tf.reshape(first + tf.cast(top, tf.int32) * width + tf.cast(left, tf.int32), [-1])

    def at(offset: int) -> tf.Tensor:
        return tf.reshape(tf.gather(pixels, corner + offset), [-1, size, size, num_channels])

    upper, lower = (at(row) + (at(row + 1) - at(row)) * to_right for row in (0, width))
    return upper + (lower - upper) * to_bottom


def _within(places: tf.Tensor, size: int, mode: str) -> tf.Tensor:
    """The place in the image that a place beyond its border stands for, with `reflect` and `wrap`."""
    if mode == WRAP:  # d | a b c d | a
        wrapped = tf.math.floormod(places, float(size))
        return tf.where(wrapped < size, wrapped, 0.0)  # a tiny negative number is rounded to the size itself
    if mode == REFLECT:  # b a | a b c d | d c: the middle of the edge's pixels is at 0 and at size - 1
        folded = tf.math.floormod(places + 0.5, float(2 * size)) - 0.5
        return tf.where(folded > size - 0.5, float(2 * size - 1) - folded, folded)
    return places
