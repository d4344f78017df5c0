"""Input pipelines from TFRecord shards to batches: the training stream, in two modes, and the evaluation pass.

The coordinator builds the graphs, and the workers of the parameter servers run them. So they contain no Python and no
external state: shard names, seed and position may be tensors that a worker reads from its own files.

A worker's training stream is endless and a pure function of (shards, seed, mode): record i of the stream is the same
record with the same augmentation whether the stream starts at 0 or at i. The modes differ in memory and order:

- `files` reads the shards in each epoch and mixes them within a buffer of serialized records. To start within an epoch
  it reads the records before, without decoding them.
- `preloaded` decodes all shards once, before the first batch, into one uint8 tensor in the worker's memory: N · S² · C
  bytes, and some groups of 128 records during loading. Each epoch is a permutation of all records, and the stream can
  start at any record at no extra cost. The tensor lives as long as the iterator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfos_job.config import PRELOADED, AugmentationConfig
from tfos_job.formats.form import Form
from tfos_job.input.augmentation import augment
from tfos_job.input.decoding import decode, to_float
from tfos_job.input.normalization import Normalization
from tfos_job.input.waiting import records_of, shard_order, turn
from tfos_job.staging.cache_plan import MAX_WINDOW

# Fixed, not AUTOTUNE: it determines the order of records, which must be the same on every machine.
_INTERLEAVE_BLOCK = 8
# Fixed, not AUTOTUNE, which would let it use much of the memory (commands/container_memory.py assumes 16).
_PREFETCHED_BATCHES = 16
_LOADING_CALLS = 16  # groups decoded at once; no more run than there are cores
_ANY_NONZERO_SEED = 87_654_321
_INT64_MAX = 2**63 - 1


def training_dataset(
    shards: tf.Tensor | Sequence[str],
    *,
    mode: str,
    staged: bool = False,
    window: int = MAX_WINDOW,
    num_records: tf.Tensor | int,
    batch_size: int,
    form: Form,
    seed: tf.Tensor | int,
    shuffle_buffer: int,
    augmentation: AugmentationConfig,
    normalization: Normalization | None = None,
    start_record: tf.Tensor | int = 0,
) -> tf.data.Dataset:
    """Returns the endless stream of training batches of one worker, starting at any record.

    The order within epoch e depends on (shards, seed, e) alone. Each epoch has each record once; batches span the
    borders of epochs, so that no remainder is dropped and shapes are static.

    Args:
      shards: the worker's TFRecord files, string [n].
      mode: `preloaded` or `files`, see above. `preloaded` loads the shards during this call.
      staged: True if a stager copies the shards to this worker's directory, one after the other (`waiting.turn`); of
        `shards` only the number is used then.
      window: number of shards that `files` reads at a time; it affects the order.
      num_records: N, records in `shards`, int64 []; another number fails (see `damage.data_errors`).
      batch_size: B.
      form: of the images, with S and C.
      seed: of order and augmentation; each worker needs its own.
      shuffle_buffer: in records; ignored with `preloaded`, which mixes all records.
      augmentation: applied after `preprocess`.
      normalization: applied after augmentation, as in evaluation and prediction; None: no normalization.
      start_record: number of records consumed so far: an earlier batch's `end_record`.

    Returns:
      A dataset of (images float32 [B, S, S, C], labels int64 [B], end_record int64 []), where `end_record` is the
      `start_record` of the next batch.
    """
    num_records, seed, start_record = (tf.cast(x, tf.int64) for x in (num_records, seed, start_record))
    source = _StreamSource(
        shards=tf.convert_to_tensor(shards, tf.string),
        is_staged=staged,
        num_records=num_records,
        seed=seed,
        first_epoch=start_record // num_records,
        num_skipped=start_record % num_records,
    )
    if mode == PRELOADED:
        decoded = _from_memory(source, batch_size, form)
    else:
        decoded = _from_files(source, batch_size, form, window, shuffle_buffer)

    def finish(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images, labels = batch
        first = start_record + number * batch_size
        images = augment(to_float(images), seed, first + tf.range(batch_size, dtype=tf.int64), augmentation)
        images = images if normalization is None else normalization(images)
        shape = [batch_size, *form.shape]
        return tf.ensure_shape(images, shape), tf.ensure_shape(labels, shape[:1]), first + batch_size

    batches = decoded.enumerate().map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.with_options(_deterministic()).prefetch(_PREFETCHED_BATCHES)


@dataclass(frozen=True, kw_only=True)
class _StreamSource:
    """The shards of a training stream, and its first record. Tensors are int64 [], except `shards`, string [n]."""

    shards: tf.Tensor
    is_staged: bool
    num_records: tf.Tensor
    seed: tf.Tensor
    first_epoch: tf.Tensor
    num_skipped: tf.Tensor

    @property
    def epochs(self) -> tf.data.Dataset:
        return tf.data.Dataset.range(self.first_epoch, _INT64_MAX)

    def to_skip(self, epoch: tf.Tensor) -> tf.Tensor:
        """Returns the number of records to skip at the beginning of an epoch."""
        return tf.where(epoch == self.first_epoch, self.num_skipped, 0)

    def open_shard(self, epoch: tf.Tensor, index: tf.Tensor) -> tf.data.Dataset:
        return turn(epoch, index) if self.is_staged else tf.data.TFRecordDataset(self.shards[index])


def _from_files(
    source: _StreamSource, batch_size: int, form: Form, window: int, shuffle_buffer: int
) -> tf.data.Dataset:
    """Returns batches of uint8 pixels and labels, read from the files in each epoch."""

    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        records = _mixed_records(source, epoch, window, shuffle_buffer)
        # Skip before decoding, so that resuming late in an epoch costs little more than reading it.
        return records.skip(source.to_skip(epoch))

    return _decoded(source.epochs.flat_map(epoch_records), batch_size, form, drop_remainder=True)


def _from_memory(source: _StreamSource, batch_size: int, form: Form) -> tf.data.Dataset:
    """Returns batches of uint8 pixels and labels, from memory; loads all shards first."""
    if source.is_staged:
        in_order = tf.data.Dataset.range(tf.size(source.shards, tf.int64))
        records = in_order.flat_map(lambda index: source.open_shard(source.first_epoch, index))
    else:
        records = tf.data.TFRecordDataset(source.shards)
    all_images, all_labels = load(records, source.num_records, form)

    def order(epoch: tf.Tensor) -> tf.Tensor:
        everything = tf.range(source.num_records, dtype=tf.int64)
        shuffled = tf.random.experimental.stateless_shuffle(everything, tf.stack([source.seed, epoch]))
        return shuffled[source.to_skip(epoch) :]

    # prefetch: the next epoch's order is computed before that epoch begins.
    picked = source.epochs.map(order).prefetch(1).rebatch(batch_size, drop_remainder=True)
    return picked.map(lambda i: (tf.gather(all_images, i), tf.gather(all_labels, i)), tf.data.AUTOTUNE)


def evaluation_dataset(
    shards: tf.Tensor | Sequence[str], *, batch_size: int, form: Form, staged: bool = False
) -> tf.data.Dataset:
    """Returns each record of `shards` exactly once, in file order, including the last, smaller batch.

    Args:
      shards: TFRecord files, string [n].
      batch_size: images per batch.
      form: of the images, with S and C.
      staged: True if a stager copies the shards: the dataset waits for missing ones.

    Returns:
      A dataset of (images float32 [b, S, S, C], labels int64 [b]) with b ≤ `batch_size`.
    """

    def finished(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = decode(serialized, form)
        return to_float(images), labels

    # On a cluster each shard is a dataset of its own: a larger graph would take more time to start than it saves.
    shards = tf.convert_to_tensor(shards, tf.string)
    records = (
        tf.data.Dataset.from_tensor_slices(shards).flat_map(records_of) if staged else tf.data.TFRecordDataset(shards)
    )
    batches = records.batch(batch_size).map(finished, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.with_options(_deterministic()).prefetch(_PREFETCHED_BATCHES)


def load(records: tf.data.Dataset, num_records: tf.Tensor, form: Form) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes all records in order: pixels uint8 [N, S, S, C] and labels int64 [N], with N of `num_records`.

    The result is the only copy: it is filled group by group.
    """

    def put(
        filled: tuple[tf.Tensor, tf.Tensor, tf.Tensor], group: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        *tensors, begin = filled
        where = tf.cast(begin, tf.int32) + tf.range(tf.size(group[1]))
        # tensor_scatter_nd_update would copy the whole tensor for each group. Nothing else refers to it here, and
        # `assert_cardinality` ensures that every row is written.
        images, labels = (
            tf.raw_ops.InplaceUpdate(x=tensor, i=where, v=rows) for tensor, rows in zip(tensors, group, strict=True)
        )
        return images, labels, begin + tf.size(group[1], tf.int64)

    options = _deterministic()
    # Autotuning pays only in a long stream: it begins with one core, and rewriting the graph takes time.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    with tf.device("/device:CPU:0"):  # also on a GPU worker: tf.data gathers from it there
        counted = _counted(records, num_records)
        groups = _decoded(counted, form.group_size, form, num_parallel_calls=_LOADING_CALLS).with_options(options)
        empty = (
            tf.raw_ops.Empty(
                shape=tf.cast([num_records, *form.shape], tf.int32),
                dtype=tf.uint8,
            ),
            tf.raw_ops.Empty(shape=tf.cast([num_records], tf.int32), dtype=tf.int64),
            tf.constant(0, tf.int64),
        )
        images, labels, _ = groups.reduce(empty, put)
    return images, labels


def _decoded(
    records: tf.data.Dataset,
    batch_size: int,
    form: Form,
    *,
    drop_remainder: bool = False,
    num_parallel_calls: int = tf.data.AUTOTUNE,
) -> tf.data.Dataset:
    """Decodes serialized records to batches of (pixels uint8 [b, S, S, C], labels int64 [b]), in order."""
    group_size = min(batch_size, form.group_size)
    groups = records.batch(group_size, drop_remainder=drop_remainder)
    decoded = groups.map(lambda group: decode(group, form, group_size), num_parallel_calls=num_parallel_calls)
    return decoded if batch_size == group_size else decoded.rebatch(batch_size, drop_remainder=drop_remainder)


def _mixed_records(source: _StreamSource, epoch: tf.Tensor, window: int, shuffle_buffer: int) -> tf.data.Dataset:
    """Returns the serialized records of one epoch, in the order given by seed and epoch."""
    # TensorFlow combines the process's global seed with each op's; in this graph that pins it for the order below.
    tf.compat.v1.set_random_seed(_ANY_NONZERO_SEED)
    seed_pair = tf.stack([source.seed, epoch])
    shuffle_seed = tf.random.stateless_uniform([], seed_pair, maxval=_INT64_MAX, dtype=tf.int64)
    # One thread reads 240,000 records a second from local files; several take half as much processor time again for
    # each record. The order is the same.
    records = tf.data.Dataset.from_tensor_slices(
        shard_order(tf.size(source.shards, tf.int64), source.seed, epoch)
    ).interleave(lambda index: source.open_shard(epoch, index), cycle_length=window, block_length=_INTERLEAVE_BLOCK)
    records = _counted(records, source.num_records)
    return records.shuffle(shuffle_buffer, seed=shuffle_seed, reshuffle_each_iteration=False)


def _counted(records: tf.data.Dataset, num_records: tf.Tensor) -> tf.data.Dataset:
    """Fails if the number of records is another; without it, a stream of empty shards would loop for ever."""
    return records.apply(tf.data.experimental.assert_cardinality(num_records))


def _deterministic() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    return options
