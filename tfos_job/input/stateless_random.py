"""Random numbers of an image: pure functions of the seed, their use, and the image's position in its stream.

They do not depend on earlier random numbers. So a resumed run sees the same pixels as an uninterrupted one, and an
image does not depend on the rest of its batch or the number of workers.
"""

from __future__ import annotations

import enum

import tensorflow as tf

from tfos_job.staging.cache_plan import GAMMA, MIX


class Stream(enum.IntEnum):
    """A stream for each use, so that an augmentation does not change another's numbers. Never renumber; append."""

    FLIP_UP_DOWN = 0
    BRIGHTNESS = 1
    CONTRAST = 2
    FLIP_LEFT_RIGHT = 3
    TRANSPOSE = 4
    ROTATION_90 = 5
    ROTATION = 6
    ZOOM = 7
    CROP_WIDTH = 8
    CROP_HEIGHT = 9
    CROP_X = 10
    CROP_Y = 11
    WIDTH_SHIFT = 12
    HEIGHT_SHIFT = 13
    SHEAR = 14
    STROKE_WIDTH = 15
    HUE = 16
    SATURATION = 17
    GAMMA = 18
    CHANNEL_SHIFT = 19  # and the two after it
    ERASING_WIDTH = 22
    ERASING_HEIGHT = 23
    ERASING_X = 24
    ERASING_Y = 25
    ELASTIC = 1 << 20  # and one for each further node


def uniform(seed: tf.Tensor, stream: int, indices: tf.Tensor) -> tf.Tensor:
    """Returns uniform numbers in [0, 1), multiples of 2⁻²⁴: float32 [B]."""
    bits = random_bits(seed, tf.constant(stream, tf.int64), indices)
    return tf.cast(tf.bitwise.right_shift(bits, _constant(40)), tf.float32) * 2.0**-24


def uniform_pairs(seed: tf.Tensor, first_stream: int, count: int, indices: tf.Tensor) -> tf.Tensor:
    """Returns two uniform numbers from each of `count` streams: float32 [2, B, count].

    The first of a pair is the highest 24 of the stream's bits, the second the 24 below them.
    """
    streams = tf.range(first_stream, first_stream + count, dtype=tf.int64)
    bits = random_bits(seed, streams, indices[:, tf.newaxis])
    highest = tf.bitwise.right_shift(bits, _constant(40))
    next_ones = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, _constant(16)), _constant((1 << 24) - 1))
    return tf.cast(tf.stack([highest, next_ones]), tf.float32) * 2.0**-24


def random_bits(seed: tf.Tensor, stream: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Returns random numbers by SplitMix64 (https://prng.di.unimi.it/splitmix64.c), each independent of the others.

    TensorFlow's stateless generators take one seed for a whole tensor; here each element has its own.
    `cache_plan.random_bits` is the same function without TensorFlow.

    Args:
      seed: int64 [].
      stream: int64 [] or any shape that broadcasts with `indices`; 0 or more.
      indices: int64 [B].

    Returns:
      uint64 [B], or of the common shape.
    """
    key = _mix(_mix(tf.cast(seed, tf.uint64)) + tf.cast(stream, tf.uint64))
    return _mix(key + tf.cast(indices, tf.uint64) * _constant(GAMMA))


def _mix(x: tf.Tensor) -> tf.Tensor:
    """Applies SplitMix64's output function to uint64: every bit of `x` affects every bit of the result."""
    x += _constant(GAMMA)
    for shift, factor in MIX:
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _constant(shift))) * _constant(factor)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _constant(31)))


def _constant(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)
