"""From TFRecord shards to batches: the training stream, the evaluation pass, and the one preprocessing of both.

The graphs built here are made on the coordinator and run on parameter-server workers. So there is no Python in them
and no state outside them: shard names, seed and position may be tensors that a worker reads from its own files.

A worker's training stream is endless and a pure function of (shards, seed): record i of the stream is the same record
with the same augmentation whether the stream was started at 0 or at i.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tfos_job.data.augment import Augmentation, augment
from tfos_job.data.staging import local_copy
from tfos_job.errors import BadDataError, MissingInputError

# Fixed, not AUTOTUNE: the order of records follows from it and must be the same on every machine.
_INTERLEAVE_CYCLE = 16
_INTERLEAVE_BLOCK = 8
_ANY_NONZERO_SEED = 87_654_321
_INT64_MAX = 2**63 - 1
_WRONG_NUMBER = "Input dataset was expected to contain"  # assert_cardinality's words

_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/format": tf.io.FixedLenFeature([], tf.string),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/width": tf.io.FixedLenFeature([], tf.int64),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}


def preprocess(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """The one way from stored pixels to what a network sees, for training, evaluation and prediction alike.

    As in the seed job: to [0, 1], then a bilinear resize that does not keep the aspect.

    Args:
      image: uint8 [h, w, 1], paper 255.
      image_size: S, in pixels.

    Returns:
      float32 [S, S, 1] in [0, 1].
    """
    scaled = tf.image.convert_image_dtype(image, tf.float32)
    resized = tf.image.resize(scaled, [image_size, image_size], method=tf.image.ResizeMethod.BILINEAR)
    return tf.ensure_shape(resized, [image_size, image_size, 1])


def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes one serialized `tf.train.Example`; `raw` and `png` may be mixed in one split.

    Returns:
      The image, uint8 [h, w, 1], and the label, int64 [].
    """
    features = tf.io.parse_single_example(serialized, _FEATURES)
    encoded = features["image/encoded"]
    shape = [features["image/height"], features["image/width"], 1]
    image = tf.cond(
        features["image/format"] == b"raw",
        lambda: tf.reshape(tf.io.decode_raw(encoded, tf.uint8), shape),
        lambda: tf.io.decode_png(encoded, channels=1),
    )
    return image, features["image/class/label"]


def training_dataset(
    shards: tf.Tensor | Sequence[str],
    *,
    num_records: tf.Tensor | int,
    batch_size: int,
    image_size: int,
    seed: tf.Tensor | int,
    shuffle_buffer: int,
    augmentation: Augmentation,
    start_record: tf.Tensor | int = 0,
) -> tf.data.Dataset:
    """The endless stream of training batches of one worker, from any record on.

    The order within epoch e depends on (shards, seed, e) alone. Each epoch holds each record once; batches span the
    borders of epochs, so that no remainder is dropped and shapes are static.

    Args:
      shards: the worker's TFRecord files, string [n].
      num_records: records in `shards`, int64 []; the stream fails where they hold more or fewer (see `data_errors`).
      batch_size: B.
      image_size: S, in pixels.
      seed: of order and augmentation; give each worker its own.
      shuffle_buffer: in records.
      augmentation: what is done to the pixels after `preprocess`.
      start_record: records of the stream consumed so far: an earlier batch's `end_record`.

    Returns:
      A dataset of (images float32 [B, S, S, 1], labels int64 [B], end_record int64 []), where `end_record` is the
      `start_record` to give for the batch after this one.
    """
    shards = tf.convert_to_tensor(shards, tf.string)
    num_records, seed, start_record = (tf.cast(x, tf.int64) for x in (num_records, seed, start_record))
    first_epoch = start_record // num_records

    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        records = _epoch(shards, num_records, tf.stack([seed, epoch]), shuffle_buffer)
        # Skipping comes before decoding, so that resuming late in an epoch costs little more than reading it.
        return records.skip(tf.where(epoch == first_epoch, start_record % num_records, 0))

    def example(index: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, label = decode(serialized)
        image = augment(preprocess(image, image_size), tf.stack([seed, index]), augmentation)
        return image, label, index + 1

    stream = tf.data.Dataset.range(first_epoch, _INT64_MAX).flat_map(epoch_records).enumerate(start_record)
    batches = stream.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
    batches = batches.map(lambda images, labels, ends: (images, labels, ends[-1]))
    return batches.with_options(_deterministic()).prefetch(tf.data.AUTOTUNE)


def evaluation_dataset(shards: tf.Tensor | Sequence[str], *, batch_size: int, image_size: int) -> tf.data.Dataset:
    """Each record of `shards` exactly once, in file order, the last and smaller batch included.

    Returns:
      A dataset of (images float32 [b, S, S, 1], labels int64 [b]) with b ≤ `batch_size`.
    """

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = decode(serialized)
        return preprocess(image, image_size), label

    records = tf.data.TFRecordDataset(tf.convert_to_tensor(shards, tf.string))
    batches = records.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    return batches.with_options(_deterministic()).prefetch(tf.data.AUTOTUNE)


def _epoch(shards: tf.Tensor, num_records: tf.Tensor, seed_pair: tf.Tensor, shuffle_buffer: int) -> tf.data.Dataset:
    """The serialized records of one epoch in the order that `seed_pair`, int64 [2], gives."""
    # TensorFlow mixes the process's global seed into each op's own; in here, a graph, this pins it for the order below.
    tf.compat.v1.set_random_seed(_ANY_NONZERO_SEED)
    shuffle_seed = tf.random.stateless_uniform([], seed_pair, maxval=_INT64_MAX, dtype=tf.int64)
    mixed_shards = tf.random.experimental.stateless_shuffle(shards, seed_pair)
    records = tf.data.Dataset.from_tensor_slices(mixed_shards).interleave(
        tf.data.TFRecordDataset,
        cycle_length=_INTERLEAVE_CYCLE,
        block_length=_INTERLEAVE_BLOCK,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    # Without this, shards that hold nothing would make the endless stream spin for ever.
    records = records.apply(tf.data.experimental.assert_cardinality(num_records))
    return records.shuffle(shuffle_buffer, seed=shuffle_seed, reshuffle_each_iteration=False)


def _deterministic() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    return options


@contextlib.contextmanager
def data_errors(shards: Sequence[str] = ()) -> Iterator[None]:
    """Turns what TensorFlow raises over bad input into this package's errors.

    TensorFlow does not say which file a corrupted record is in, so the shards are read again to find it.

    Args:
      shards: the files being read, where they lie: remote ones are copied here, one at a time, to be read again.

    Raises:
      BadDataError: a record whose CRC is wrong, that is cut off, or that cannot be decoded; more or fewer records
        than `num_records`.
      MissingInputError: a shard is not there.
    """
    try:
        yield
    except tf.errors.NotFoundError as error:
        raise MissingInputError(_first_line(error), next_step="Run `verify` on the split") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError) as error:
        damage = _find_damage(shards)
        if damage is None and not (isinstance(error, tf.errors.DataLossError) or _WRONG_NUMBER in error.message):
            raise  # The records are fine: this is somebody else's mistake.
        place, fact = damage or (", ".join(shards), _first_line(error))
        raise BadDataError(fact, place=place, next_step="Run `verify` on the split and convert it again") from error


def _find_damage(shards: Sequence[str]) -> tuple[str, str] | None:
    """The first shard with a record that cannot be read or decoded, and what is wrong with it."""
    for shard in shards:
        num_good = 0
        try:
            with local_copy(shard) as local:
                for _ in tf.data.TFRecordDataset(local).map(decode):
                    num_good += 1
        except tf.errors.OpError as error:
            return shard, f"record {num_good} cannot be read: {_first_line(error)}"
    return None


def _first_line(error: tf.errors.OpError) -> str:
    text = error.message.partition("}} ")[2] or error.message
    return text.partition("\n")[0].partition(" [Op:")[0]
