"""What training may do to a glyph before the network sees it; runs wherever the input pipeline runs (workers).

Every random draw is stateless: it follows from the record's own seed pair, never from how many draws came before it.
That is what lets a resumed run see the very pixels that the unbroken one would have seen. A new augmentation is a field
of `Augmentation` and a line in `augment`; it takes the next free stream number, so that the existing draws stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

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


def augment(image: tf.Tensor, seed_pair: tf.Tensor, options: Augmentation) -> tf.Tensor:
    """Applies what is on, in the seed job's order: flip, brightness, contrast.

    Args:
      image: float32 [S, S, 1] in [0, 1].
      seed_pair: int64 [2]; the same pair gives the same pixels.
      options: what is on; with nothing on the very same tensor comes back.

    Returns:
      float32 [S, S, 1]. Not clipped, as in the seed job: values may leave [0, 1].
    """
    if options.random_flip_up_down:
        image = tf.image.stateless_random_flip_up_down(image, _fold(seed_pair, _FLIP_STREAM))
    if options.random_brightness:
        image = tf.image.stateless_random_brightness(image, MAX_BRIGHTNESS_DELTA, _fold(seed_pair, _BRIGHTNESS_STREAM))
    if options.random_contrast:
        image = tf.image.stateless_random_contrast(image, *CONTRAST_RANGE, _fold(seed_pair, _CONTRAST_STREAM))
    return image


def _fold(seed_pair: tf.Tensor, stream: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed_pair, stream)
