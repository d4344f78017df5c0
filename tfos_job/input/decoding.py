"""Decoding and preprocessing of stored records, the same in training, evaluation and prediction.

Pixels stay uint8 until they are in a batch. That takes a quarter of the memory and of the copying, and `preloaded`
input keeps the same pixels that every other reader sees.

A glyph is small, so the overhead of each operation limits the speed. Training therefore decodes `GROUP_SIZE` raw
records at a time in a graph that is unrolled for this number, without a call or a loop iteration for each record.

Grey is ITU-R 601's luma in integers, as Pillow computes it; TensorFlow's decoders compute it differently for each
format. A grey image in colour has three equal channels. JPEGs are decoded by the exact integer transform, as in Pillow.
"""

from __future__ import annotations

import tensorflow as tf

from tfos_job.formats import jpeg, png
from tfos_job.formats.form import Form

LEVEL = 1 / 255
"""A step of a pixel, as the network sees it."""
_LUMA = [19_595, 38_470, 7_471]  # 0.299, 0.587 and 0.114, times 2¹⁶
_HALF = 1 << 15
_PNG_COLOUR = 25  # offset of the colour type, which is 0 in a grey PNG
_WITH_ALPHA = (b"\4", b"\6")  # colour types: grey and RGB
_RAW, _JPEG, _GIF, _GREY_PNG = 1, 2, 3, 4  # branches of `_decode_kind`; 0 is a PNG

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    # Adopted records may lack these three, which only raw pixels need.
    "image/format": tf.io.FixedLenFeature([], tf.string, ""),
    "image/height": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/width": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}


def preprocess(images: tf.Tensor, form: Form) -> tf.Tensor:
    """Resizes images bilinearly to squares, without keeping the aspect ratio, and rounds to integer levels.

    Args:
      images: uint8 [b, h, w, c].
      form: of the result; images keep their channels.

    Returns:
      uint8 [b, S, S, c].
    """
    size = [form.image_size, form.image_size]
    if form.antialias:
        resized = tf.image.resize(images, size, antialias=True)
    else:
        # tf.image.resize does the same with ten more operations.
        resized = tf.raw_ops.ResizeBilinear(images=images, size=tf.constant(size), half_pixel_centers=True)
    # Called without a graph, `resized + 0.5`, tf.cast and a size in a list take three times as long.
    return tf.raw_ops.Cast(x=tf.raw_ops.AddV2(x=resized, y=tf.constant(0.5)), DstT=tf.uint8)


def preprocess_all(pixels: tf.Tensor, sizes: tf.Tensor, form: Form) -> tf.Tensor:
    """Preprocesses pictures of different sizes, as `preprocess` does each of them. Graph only.

    Args:
      pixels: of all pictures, one after the other, each [h, w, C]; uint8, flat.
      sizes: h and w of each, int32 [n, 2].
      form: of the result.

    Returns:
      uint8 [n, S, S, C].
    """
    lengths = tf.reduce_prod(sizes, axis=1) * form.num_channels

    def one(picture: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        at, length, size = picture
        shape = tf.concat([[1], size, [form.num_channels]], axis=0)
        return preprocess(tf.reshape(pixels[at : at + length], shape), form)[0]

    places = (tf.cumsum(lengths, exclusive=True), lengths, sizes)
    return tf.map_fn(one, places, fn_output_signature=tf.TensorSpec(form.shape, tf.uint8), parallel_iterations=1)


def to_float(images: tf.Tensor) -> tf.Tensor:
    """Converts preprocessed pixels, uint8 [B, S, S, C], to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) * LEVEL


def decode(serialized: tf.Tensor, form: Form, group_size: int | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and preprocesses serialized `tf.train.Example`s, also of different formats.

    Args:
      serialized: string [n], n ≥ 1.
      form: of the result.
      group_size: at least n; builds a graph for this number of records, which starts more slowly and is twice as fast
        if all records are `raw`. The result is the same.

    Returns:
      The pixels, uint8 [n, S, S, C], and the labels, int64 [n].
    """
    features = tf.io.parse_example(serialized, _FEATURES)
    encoded, image_format, height, width = (
        features[f"image/{name}"] for name in ("encoded", "format", "height", "width")
    )
    return decode_images(encoded, image_format, height, width, form, group_size), features["image/class/label"]


def decode_images(
    encoded: tf.Tensor,
    image_format: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    form: Form,
    group_size: int | None = None,
) -> tf.Tensor:
    """Decodes and preprocesses images as `decode` does those of Examples.

    Args:
      encoded: bytes of files, or of `raw` grey pixels, string [n], n ≥ 1.
      image_format: `raw`, or anything else for a file, string [n].
      height: of raw images, in pixels, int64 [n].
      width: likewise.
      form: of the result.
      group_size: as for `decode`.

    Returns:
      uint8 [n, S, S, C].
    """
    ones = tf.ones_like(height)
    shapes = tf.stack([ones, height, width, ones], axis=1)
    is_raw = tf.equal(image_format, b"raw")

    def one_by_one() -> tf.Tensor:
        return _one_by_one(encoded, shapes, image_format, form)

    def unrolled() -> tf.Tensor:
        assert group_size is not None
        images = _unrolled(encoded, shapes, form, group_size)
        return images if form.num_channels == 1 else tf.repeat(images, form.num_channels, axis=3)

    # Datasets with antialias seldom have raw records: a graph for them would only start more slowly.
    if group_size is None or form.antialias:
        images = one_by_one()
    else:
        images = tf.cond(tf.reduce_all(is_raw), unrolled, one_by_one)
    return tf.ensure_shape(images, [None, *form.shape])


def decode_file(data: tf.Tensor, image_format: tf.Tensor | str, num_channels: int) -> tf.Tensor:
    """Returns the pixels of a stored PNG, JPEG or GIF (`image_files.Picture`), uint8 [h, w, C]."""
    return _decode_kind(_kinds(data, image_format), data, tf.constant([1, 0, 0, 1], tf.int64), num_channels)


def decode_files(files: tf.Tensor, form: Form) -> tf.Tensor:
    """Decodes and preprocesses PNG, JPEG and GIF files, as `decode` does those that are stored. Graph only.

    What `pictures.read` does before is not done here: transparency is that of no stored file, of 16 bits the first 8
    are taken, and a photograph is not turned as its EXIF says.

    Args:
      files: string [n], the files' bytes. One that is none of these, or a PNG with transparent parts, fails the whole
        batch: a graph has nothing to catch an error with.
      form: of the result.

    Returns:
      uint8 [n, S, S, C].
    """
    heads = tf.strings.join([tf.strings.substr(files, 0, _PNG_COLOUR + 1), " " * (_PNG_COLOUR + 1)])
    is_png = tf.equal(tf.strings.substr(heads, 0, len(png.SIGNATURE)), png.SIGNATURE)
    colour = tf.strings.substr(heads, _PNG_COLOUR, 1)
    before_pixels = tf.strings.regex_replace(tf.where(is_png, files, ""), r"IDAT\C*", "", replace_global=False)
    has_key = tf.strings.regex_full_match(before_pixels, r"\C*tRNS\C*")
    has_alpha = has_key | is_png & tf.reduce_any([tf.equal(colour, kind) for kind in _WITH_ALPHA], axis=0)
    fact = "a PNG with transparent parts: put it on white paper, without alpha, before it is sent"
    with tf.control_dependencies([tf.debugging.Assert(~tf.reduce_any(has_alpha), [fact])]):
        shapes = tf.ones([tf.size(files), 4], tf.int64)  # of raw pixels, of which there are none
    images = _one_by_one(files, shapes, tf.fill(tf.shape(files), ""), form)
    return tf.ensure_shape(images, [None, *form.shape])


def _kinds(encoded: tf.Tensor, image_format: tf.Tensor) -> tf.Tensor:
    """Returns the branch of `_decode_kind` for each image, int32 of the same shape; one at a time is expensive.

    Files tell their kind by their first bytes. In `image/format` TF-Slim's records have `JPEG`, `jpg` or nothing.
    """
    heads = tf.strings.join([tf.strings.substr(encoded, 0, _PNG_COLOUR + 1), " " * (_PNG_COLOUR + 1)])

    def begins(signature: bytes) -> tf.Tensor:
        return tf.equal(tf.strings.substr(heads, 0, len(signature)), signature)

    kinds = tf.zeros_like(image_format, tf.int32)  # also for unknown kinds: decode_png then fails
    is_grey = tf.equal(tf.strings.substr(heads, _PNG_COLOUR, 1), b"\0")
    for kind, is_of_kind in (
        (_JPEG, begins(jpeg.SIGNATURE)),
        (_GIF, begins(b"GIF8")),
        (_GREY_PNG, begins(png.SIGNATURE) & is_grey),
        (_RAW, tf.equal(image_format, b"raw")),
    ):
        kinds = tf.where(is_of_kind, kind, kinds)
    return kinds


def _decode_kind(kind: tf.Tensor, data: tf.Tensor, shape: tf.Tensor, num_channels: int) -> tf.Tensor:
    """Decodes one image to uint8 [h, w, C]; `shape` is the shape of a raw image, [1, h, w, 1]."""
    channels = 3 if num_channels == 3 else 0  # 0: the file's own
    decoders = (
        lambda: tf.io.decode_png(data, channels=channels),
        lambda: tf.ensure_shape(tf.reshape(tf.io.decode_raw(data, tf.uint8), shape), [1, None, None, 1])[0],
        lambda: tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_gif(data)[0],
        lambda: tf.io.decode_png(data, channels=num_channels),
    )
    branches = [lambda decoder=decoder: _with_channels(decoder(), num_channels) for decoder in decoders]
    return tf.ensure_shape(tf.switch_case(kind, branches), [None, None, num_channels])


def _with_channels(image: tf.Tensor, num_channels: int) -> tf.Tensor:
    """Converts uint8 [h, w, 1 or 3] to [h, w, C]."""
    if image.shape[2] == num_channels:
        return image
    if num_channels == 1:
        return tf.cond(tf.equal(tf.shape(image)[2], 1), lambda: image, lambda: _luma(image))
    return tf.repeat(image, num_channels, axis=2)


def _luma(image: tf.Tensor) -> tf.Tensor:
    """Converts uint8 [h, w, 3] to [h, w, 1]."""
    weighted = tf.cast(image, tf.int32) * _LUMA
    return tf.cast(tf.bitwise.right_shift(tf.reduce_sum(weighted, axis=2, keepdims=True) + _HALF, 16), tf.uint8)


def _unrolled(encoded: tf.Tensor, shapes: tf.Tensor, form: Form, group_size: int) -> tf.Tensor:
    """Decodes up to `group_size` raw grey images to uint8 [n, S, S, 1]."""
    num_records = tf.size(encoded)
    if encoded.shape[0] != group_size:
        filled_up = tf.minimum(tf.range(group_size), num_records - 1)
        encoded, shapes = tf.gather(encoded, filled_up), tf.gather(shapes, filled_up)
    # Split by the length of the bytes, not by height × width: if the two differ, the reshape below fails.
    lengths = tf.strings.length(encoded)
    pixels = tf.split(tf.io.decode_raw(tf.strings.reduce_join(encoded), tf.uint8), lengths, num=group_size)
    pairs = zip(pixels, tf.unstack(shapes, num=group_size), strict=True)
    images = [preprocess(tf.reshape(flat, shape), form) for flat, shape in pairs]
    return tf.concat(images, axis=0)[:num_records]


def _one_by_one(encoded: tf.Tensor, shapes: tf.Tensor, image_format: tf.Tensor, form: Form) -> tf.Tensor:
    """Decodes any number of images of any format, at about half of the speed."""

    def decode_one(record: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        data, shape, kind = record
        return preprocess(_decode_kind(kind, data, shape, form.num_channels)[tf.newaxis], form)[0]

    records = (encoded, shapes, _kinds(encoded, image_format))
    spec = tf.TensorSpec(form.shape, tf.uint8)
    return tf.map_fn(decode_one, records, fn_output_signature=spec, parallel_iterations=1)
