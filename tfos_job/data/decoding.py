"""From stored records to pixels: the one decoding and the one preprocessing of training, evaluation and prediction.

Pixels stay uint8 until they are in a batch: a quarter of the memory and of what is copied, and what `preloaded` input
keeps is then the very thing that every other reader sees.

A record is small, so what an operation costs beside its work decides the speed. Training therefore decodes `GROUP_SIZE`
records at a time in a graph that is written out for so many: no call and no turn of a loop for each.
"""

from __future__ import annotations

import tensorflow as tf

# More does not pay (benchmarks/input.py); less costs tf.data's own work for each group.
GROUP_SIZE = 128

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/format": tf.io.FixedLenFeature([], tf.string),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/width": tf.io.FixedLenFeature([], tf.int64),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}


def preprocess(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """The one way from stored pixels to what is kept: a bilinear resize that does not keep the aspect, to whole levels.

    Args:
      images: uint8 [b, h, w, 1], paper 255.
      image_size: S, in pixels.

    Returns:
      uint8 [b, S, S, 1].
    """
    # tf.image.resize does the same, with ten more operations around it.
    resized = tf.raw_ops.ResizeBilinear(images=images, size=[image_size, image_size], half_pixel_centers=True)
    return tf.cast(resized + 0.5, tf.uint8)


def to_float(images: tf.Tensor) -> tf.Tensor:
    """What a network sees of preprocessed pixels: uint8 [B, S, S, 1] to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) * (1 / 255)


def decode(serialized: tf.Tensor, image_size: int, group_size: int | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and preprocesses serialized `tf.train.Example`s; `raw` and `png` may be mixed among them.

    Args:
      serialized: string [n], n ≥ 1.
      image_size: S, in pixels.
      group_size: at least n; makes a graph for so many records, which takes longer to start and is twice as fast where
        all of them are `raw`. Of no account for what is decoded.

    Returns:
      The pixels, uint8 [n, S, S, 1], and the labels, int64 [n].
    """
    features = tf.io.parse_example(serialized, _FEATURES)
    encoded, height, width = (features[f"image/{name}"] for name in ("encoded", "height", "width"))
    ones = tf.ones_like(height)
    shapes = tf.stack([ones, height, width, ones], axis=1)
    is_raw = tf.equal(features["image/format"], b"raw")

    def one_by_one() -> tf.Tensor:
        return _one_by_one(encoded, shapes, is_raw, image_size)

    if group_size is None:
        images = one_by_one()
    else:
        images = tf.cond(
            tf.reduce_all(is_raw), lambda: _written_out(encoded, shapes, image_size, group_size), one_by_one
        )
    return tf.ensure_shape(images, [None, image_size, image_size, 1]), features["image/class/label"]


def _written_out(encoded: tf.Tensor, shapes: tf.Tensor, image_size: int, group_size: int) -> tf.Tensor:
    """Up to `group_size` raw images."""
    num_records = tf.size(encoded)
    if encoded.shape[0] != group_size:
        filled_up = tf.minimum(tf.range(group_size), num_records - 1)
        encoded, shapes = tf.gather(encoded, filled_up), tf.gather(shapes, filled_up)
    # Each has the length of its own bytes, not height × width: where the two differ, the reshape below fails.
    lengths = tf.strings.length(encoded)
    pixels = tf.split(tf.io.decode_raw(tf.strings.reduce_join(encoded), tf.uint8), lengths, num=group_size)
    pairs = zip(pixels, tf.unstack(shapes, num=group_size), strict=True)
    images = [preprocess(tf.reshape(flat, shape), image_size) for flat, shape in pairs]
    return tf.concat(images, axis=0)[:num_records]


def _one_by_one(encoded: tf.Tensor, shapes: tf.Tensor, is_raw: tf.Tensor, image_size: int) -> tf.Tensor:
    """Any number of images of either format, at some half of the speed."""

    def decode_one(record: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, shape, data_is_raw = record
        image = tf.cond(
            data_is_raw,
            lambda: tf.reshape(tf.io.decode_raw(data, tf.uint8), shape),
            lambda: tf.expand_dims(tf.io.decode_png(data, channels=1), 0),
        )
        return preprocess(tf.ensure_shape(image, [1, None, None, 1]), image_size)[0]

    spec = tf.TensorSpec([image_size, image_size, 1], tf.uint8)
    return tf.map_fn(decode_one, (encoded, shapes, is_raw), fn_output_signature=spec, parallel_iterations=1)
