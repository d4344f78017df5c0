"""What training may do to a batch of glyphs before the network sees it; runs where the input pipeline runs (workers).

Every random number is a pure function of the seed, the augmentation and the record's place in its stream, never of how
many were drawn before. That is what lets a resumed run see the very pixels that the unbroken one would have seen. A new
augmentation is a field of `Augmentation` and a line in `augment`; it takes the next free stream number, so that the
existing draws stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfos_job.data.shelf import GAMMA, MIX

MAX_BRIGHTNESS_DELTA = 0.3
CONTRAST_RANGE = (0.8, 1.2)

# Each augmentation draws from a stream of its own: one switched on does not change what another one draws.
_FLIP_STREAM, _BRIGHTNESS_STREAM, _CONTRAST_STREAM = range(3)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Which augmentations are on; none by default. The first three are the seed job's."""

    random_flip_up_down: bool = False
    random_brightness: bool = False
    random_contrast: bool = False


def augment(images: tf.Tensor, seed: tf.Tensor, indices: tf.Tensor, options: Augmentation) -> tf.Tensor:
    """Applies what is on, in the seed job's order: flip, brightness, contrast.

    Args:
      images: float32 [B, S, S, 1] in [0, 1].
      seed: int64 [].
      indices: int64 [B], where in its stream each image is; the same seed and index give the same pixels, whatever
        else is in the batch.
      options: what is on; with nothing on the very same tensor comes back.

    Returns:
      float32 [B, S, S, 1]. Not clipped, as in the seed job: values may leave [0, 1].
    """

    def draw(stream: int, low: float, high: float) -> tf.Tensor:
        return low + (high - low) * uniform(seed, stream, indices)[:, tf.newaxis, tf.newaxis, tf.newaxis]

    if options.random_flip_up_down:
        # Not images[:, ::-1], which takes sixteen times as long.
        images = tf.where(draw(_FLIP_STREAM, 0.0, 1.0) < 0.5, tf.reverse(images, [1]), images)
    if options.random_brightness:
        images += draw(_BRIGHTNESS_STREAM, -MAX_BRIGHTNESS_DELTA, MAX_BRIGHTNESS_DELTA)
    if options.random_contrast:
        mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
        factor = draw(_CONTRAST_STREAM, *CONTRAST_RANGE)
        images = images * factor + mean * (1 - factor)
    return images


def uniform(seed: tf.Tensor, stream: int, indices: tf.Tensor) -> tf.Tensor:
    """`random_bits` as float32 [B], uniform in [0, 1), multiples of 2⁻²⁴."""
    bits = random_bits(seed, tf.constant(stream, tf.int64), indices)
    return tf.cast(tf.bitwise.right_shift(bits, _constant(40)), tf.float32) * 2.0**-24


def random_bits(seed: tf.Tensor, stream: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Random numbers by SplitMix64 (https://prng.di.unimi.it/splitmix64.c), any one of them without those before it.

    TensorFlow's own stateless generators take one seed for a whole tensor: here each element has its own.
    `shelf.random_bits` is the same function without TensorFlow.

    Args:
      seed: int64 [].
      stream: of which numbers, int64 []; 0 or more.
      indices: int64 [B].

    Returns:
      uint64 [B].
    """
    key = _mix(_mix(tf.cast(seed, tf.uint64)) + tf.cast(stream, tf.uint64))
    return _mix(key + tf.cast(indices, tf.uint64) * _constant(GAMMA))


def _mix(x: tf.Tensor) -> tf.Tensor:
    """SplitMix64's output function: every bit of `x`, uint64, moves every bit of the result."""
    x += _constant(GAMMA)
    for shift, factor in MIX:
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _constant(shift))) * _constant(factor)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _constant(31)))


def _constant(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)
