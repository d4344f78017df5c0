"""Random changes to a batch of training images; part of the input pipeline on the workers.

Every random number is a pure function of the seed, the augmentation and the record's position in its stream
(`stateless_random.py`). To add an augmentation, add a field of `config.AugmentationConfig`, a stream, and a line in
`augment`.

The order follows the making of a picture: geometry (turns, then `warp`), stroke width, covered parts, then colour and
brightness, so that a part covered with paper is as bright as the paper around it. The three augmentations of the seed
job keep their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from tfos_job.config import AugmentationConfig
from tfos_job.input.stateless_random import Stream, uniform
from tfos_job.input.warp import PAPER, warp

Draw = Callable[[int, float, float], tf.Tensor]
"""Uniform random numbers of a stream between two limits, float32 [B, 1, 1, 1]."""


def augment(images: tf.Tensor, seed: tf.Tensor, indices: tf.Tensor, options: AugmentationConfig) -> tf.Tensor:
    """Applies the augmentations of `options`.

    Args:
      images: float32 [B, S, S, C] in [0, 1].
      seed: int64 [].
      indices: int64 [B], position of each image in its stream; the same seed and index give the same pixels, whatever
        else is in the batch.
      options: strengths; if all are off, the same tensor is returned.

    Returns:
      float32 [B, S, S, C]. As in the seed job, channel shift, brightness and contrast do not clip: values may leave
      [0, 1]. Hue, saturation and gamma are defined on [0, 1] alone, and clip what they are given.
    """

    def draw(stream: int, low: float, high: float) -> tf.Tensor:
        return low + (high - low) * uniform(seed, stream, indices)[:, tf.newaxis, tf.newaxis, tf.newaxis]

    images = _turn(images, draw, options)
    images = warp(images, seed, indices, options)
    if options.stroke_width:
        limit = options.stroke_width
        images = _change_strokes(images, draw(Stream.STROKE_WIDTH, -limit, limit), limit)
    if options.random_erasing:
        images = _erase(images, draw, options.random_erasing)
    if options.random_hue or options.random_saturation:
        images = _change_colours(images, draw, options)
    if options.random_channel_shift:
        limit = options.random_channel_shift
        channels = range(images.shape[3])
        images += tf.concat([draw(Stream.CHANNEL_SHIFT + channel, -limit, limit) for channel in channels], axis=3)
    if options.random_brightness:
        images += draw(Stream.BRIGHTNESS, -options.random_brightness, options.random_brightness)
    if options.random_contrast:
        mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
        factor = draw(Stream.CONTRAST, 1 - options.random_contrast, 1 + options.random_contrast)
        images = images * factor + mean * (1 - factor)
    if options.random_gamma:
        limit = math.log(1 + options.random_gamma)
        exponent = tf.exp(draw(Stream.GAMMA, -limit, limit))
        # The same as tf.pow, in a sixth of the time; the logarithm of 0 is -inf, of which the exponential is 0.
        images = tf.exp(tf.math.log(tf.clip_by_value(images, 0.0, 1.0)) * exponent)
    return images


# --- geometry ---------------------------------------------------------------------------------------------------------


def _turn(images: tf.Tensor, draw: Draw, options: AugmentationConfig) -> tf.Tensor:
    """Flips, transposes and turns by multiples of 90°; all together take at most three selections.

    Any sequence of them equals an optional transposition, then an optional flip up-down, then an optional flip
    left-right. Each operation is merged into these three, which are computed for each image before any pixel moves.
    """
    transposed: tf.Tensor | None = None
    up_down: tf.Tensor | None = None
    left_right: tf.Tensor | None = None
    if options.random_flip_up_down:
        up_down = draw(Stream.FLIP_UP_DOWN, 0.0, 1.0) < 0.5
    if options.random_flip_left_right:
        left_right = draw(Stream.FLIP_LEFT_RIGHT, 0.0, 1.0) < 0.5
    if options.random_transpose:
        now = draw(Stream.TRANSPOSE, 0.0, 1.0) < 0.5
        transposed = now
        up_down, left_right = _exchange(now, up_down, left_right)
    if options.random_rotation_90:
        # Counterclockwise, as numpy.rot90: a quarter turn is a transposition, then a flip up-down.
        quarters = tf.floor(draw(Stream.ROTATION_90, 0.0, 4.0))
        is_odd = tf.math.floormod(quarters, 2.0) == 1
        up_down, left_right = _exchange(is_odd, up_down, left_right)
        transposed = _either(transposed, is_odd)
        up_down = _either(up_down, (quarters == 1) | (quarters == 2))
        left_right = _either(left_right, quarters >= 2)
    if transposed is not None:
        images = _where(transposed, _transpose(images), images)
    if up_down is not None:
        # images[:, ::-1] takes sixteen times as long.
        images = _where(up_down, tf.reverse(images, [1]), images)
    if left_right is not None:
        # tf.reverse along the rows takes three times as long.
        images = _where(left_right, _transpose(tf.reverse(_transpose(images), [1])), images)
    return images


def _exchange(
    now: tf.Tensor, up_down: tf.Tensor | None, left_right: tf.Tensor | None
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """Converts flips before a transposition into flips after it, for images that are transposed `now`."""
    if up_down is None and left_right is None:
        return None, None
    up_down = tf.zeros_like(now) if up_down is None else up_down
    left_right = tf.zeros_like(now) if left_right is None else left_right
    return tf.where(now, left_right, up_down), tf.where(now, up_down, left_right)


def _either(one: tf.Tensor | None, other: tf.Tensor) -> tf.Tensor:
    """Combines two conditions by exclusive or: an operation done twice cancels."""
    return other if one is None else one ^ other


def _where(condition: tf.Tensor, changed: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Selects whole images. They are reshaped to rows: tf.where takes nine times as long over four axes in colour.

    Args:
      condition: bool [B, 1, 1, 1].
      changed: images for true, float32 [B, S, S, C].
      images: images for false, of the same shape.
    """
    rows = (tf.reshape(tensor, [tf.shape(images)[0], -1]) for tensor in (changed, images))
    return tf.reshape(tf.where(condition[:, :, 0, 0], *rows), tf.shape(images))


def _transpose(images: tf.Tensor) -> tf.Tensor:
    return tf.transpose(images, [0, 2, 1, 3])


# --- the pen ----------------------------------------------------------------------------------------------------------


def _change_strokes(images: tf.Tensor, change: tf.Tensor, limit: float) -> tf.Tensor:
    """Makes dark strokes broader by `change` pixels, or narrower if it is negative.

    The lowest value of a pixel and its eight neighbours makes strokes two pixels broader, the highest two pixels
    narrower. k such steps change 2·k pixels, and values between two steps are interpolated. Beyond the border is paper.

    Args:
      images: float32 [B, S, S, C].
      change: float32 [B, 1, 1, 1], in pixels.
      limit: largest possible change.
    """
    sign = tf.where(change > 0, 1.0, -1.0)
    steps = tf.abs(change) / 2
    signed = (images - PAPER) * sign  # paper is 0, and the lowest value is what spreads
    for number in range(math.ceil(limit / 2)):
        signed += tf.clip_by_value(steps - number, 0.0, 1.0) * (_lowest_of_nine(signed) - signed)
    return signed * sign + PAPER


def _lowest_of_nine(images: tf.Tensor) -> tf.Tensor:
    """Returns the lowest of each pixel and its neighbours; 0 beyond the border. tf.nn.max_pool2d is thrice as slow."""
    spread = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = tf.minimum(tf.minimum(spread[:, :-2], spread[:, 1:-1]), spread[:, 2:])
    return tf.minimum(tf.minimum(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])


# --- covered parts, and colour ----------------------------------------------------------------------------------------


def _erase(images: tf.Tensor, draw: Draw, fraction: float) -> tf.Tensor:
    """Covers a rectangle of each image, up to `fraction` of each side, with paper or the image's mean colour."""
    size = images.shape[1]
    pixels = tf.range(size, dtype=tf.float32) + 0.5

    def is_within(length_stream: int, place_stream: int) -> tf.Tensor:
        length = draw(length_stream, 0.0, fraction * size)
        begin = draw(place_stream, 0.0, 1.0) * (size - length)
        place = tf.reshape(pixels, [1, 1, size, 1])
        return (place >= begin) & (place < begin + length)

    columns = is_within(Stream.ERASING_WIDTH, Stream.ERASING_X)
    rows = _transpose(is_within(Stream.ERASING_HEIGHT, Stream.ERASING_Y))
    cover = PAPER if images.shape[3] == 1 else tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    return tf.where(rows & columns, cover, images)


def _change_colours(images: tf.Tensor, draw: Draw, options: AugmentationConfig) -> tf.Tensor:
    """Changes hue and saturation as `tf.image.adjust_hue` and `adjust_saturation` do, by an amount for each image."""
    hue, saturation, value = tf.split(tf.image.rgb_to_hsv(tf.clip_by_value(images, 0.0, 1.0)), 3, axis=3)
    if options.random_hue:
        hue = tf.math.floormod(hue + draw(Stream.HUE, -options.random_hue, options.random_hue), 1.0)
    if options.random_saturation:
        factor = draw(Stream.SATURATION, 1 - options.random_saturation, 1 + options.random_saturation)
        saturation = tf.clip_by_value(saturation * factor, 0.0, 1.0)
    return tf.image.hsv_to_rgb(tf.concat([hue, saturation, value], axis=3))
