"""From TFRecord shards to batches: the training stream, in two modes, and the evaluation pass.

The graphs built here are made on the coordinator and run on parameter-server workers. So there is no Python in them
and no state outside them: shard names, seed and position may be tensors that a worker reads from its own files.

A worker's training stream is endless and a pure function of (shards, seed, mode): record i of the stream is the same
record with the same augmentation whether the stream was started at 0 or at i. The modes differ in what they hold and in
their order:

- `files` reads the shards anew in each epoch and mixes them as far as a buffer of serialized records allows. To start
  within an epoch it reads what comes before, without decoding it.
- `preloaded` decodes all shards once, before the first batch, into one uint8 tensor in the worker's memory: N · S² · C
  bytes, and while it loads some groups of 128 records beside it. Each epoch is a permutation of all records; to start
  anywhere costs nothing more. The tensor is there as long as the iterator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfos_job.config import PRELOADED
from tfos_job.formats.form import Form
from tfos_job.input.augmentation import augment
from tfos_job.input.decoding import decode, to_float
from tfos_job.input.normalization import Normalization
from tfos_job.input.waiting import records_of, shard_order, turn
from tfos_job.run.specs import Augmentation
from tfos_job.staging.cache_plan import MAX_WINDOW

# Fixed, not AUTOTUNE: the order of records follows from it and must be the same on every machine.
_INTERLEAVE_BLOCK = 8
# Not AUTOTUNE either, which would let it grow to a good part of the memory (commands/container_memory.py counts on 16).
_PREFETCHED_BATCHES = 16
_LOADING_CALLS = 16  # groups at once; no more of them run than there are cores
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
    augmentation: Augmentation,
    normalization: Normalization | None = None,
    start_record: tf.Tensor | int = 0,
) -> tf.data.Dataset:
    """The endless stream of training batches of one worker, from any record on.

    The order within epoch e depends on (shards, seed, e) alone. Each epoch holds each record once; batches span the
    borders of epochs, so that no remainder is dropped and shapes are static.

    Args:
      shards: the worker's TFRecord files, string [n].
      mode: `preloaded` or `files`, see above. `preloaded` loads here and now.
      staged: a stager brings the shards to this worker's directory, each in its turn (`waiting.turn`); of `shards` only
        their number counts.
      window: shards that `files` reads at a time; the order follows from it.
      num_records: N, records in `shards`, int64 []; fails where they hold more or fewer (see `damage.data_errors`).
      batch_size: B.
      form: of S and C: what the records are decoded to.
      seed: of order and augmentation; give each worker its own.
      shuffle_buffer: in records; of no account with `preloaded`, which mixes all of them.
      augmentation: what is done to the pixels after `preprocess`.
      normalization: what is done to them after that, as in evaluation and prediction; None for nothing.
      start_record: records of the stream consumed so far: an earlier batch's `end_record`.

    Returns:
      A dataset of (images float32 [B, S, S, C], labels int64 [B], end_record int64 []), where `end_record` is the
      `start_record` to give for the batch after this one.
    """
    shards = tf.convert_to_tensor(shards, tf.string)
    num_records, seed, start_record = (tf.cast(x, tf.int64) for x in (num_records, seed, start_record))
    first_epoch = start_record // num_records
    epochs = tf.data.Dataset.range(first_epoch, _INT64_MAX)

    def to_skip(epoch: tf.Tensor) -> tf.Tensor:
        return tf.where(epoch == first_epoch, start_record % num_records, 0)

    def open_shard(epoch: tf.Tensor, index: tf.Tensor) -> tf.data.Dataset:
        return turn(epoch, index) if staged else tf.data.TFRecordDataset(shards[index])

    def read() -> tf.data.Dataset:
        """Batches of uint8 pixels and labels, from the files."""

        def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
            records = _mixed_records(
                open_shard, tf.size(shards, tf.int64), num_records, seed, epoch, window, shuffle_buffer
            )
            # Skipping comes before decoding, so that resuming late in an epoch costs little more than reading it.
            return records.skip(to_skip(epoch))

        return _decoded(epochs.flat_map(epoch_records), batch_size, form, drop_remainder=True)

    def pick() -> tf.data.Dataset:
        """The same from memory."""
        if staged:
            in_order = tf.data.Dataset.range(tf.size(shards, tf.int64))
            records = in_order.flat_map(lambda index: open_shard(first_epoch, index))
        else:
            records = tf.data.TFRecordDataset(shards)
        all_images, all_labels = load(records, num_records, form)

        def order(epoch: tf.Tensor) -> tf.Tensor:
            everything = tf.range(num_records, dtype=tf.int64)
            return tf.random.experimental.stateless_shuffle(everything, tf.stack([seed, epoch]))[to_skip(epoch) :]

        # The next epoch's order is there before it begins.
        picked = epochs.map(order).prefetch(1).rebatch(batch_size, drop_remainder=True)
        return picked.map(lambda i: (tf.gather(all_images, i), tf.gather(all_labels, i)), tf.data.AUTOTUNE)

    def finish(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images, labels = batch
        first = start_record + number * batch_size
        images = augment(to_float(images), seed, first + tf.range(batch_size, dtype=tf.int64), augmentation)
        images = images if normalization is None else normalization(images)
        shape = [batch_size, *form.shape]
        return tf.ensure_shape(images, shape), tf.ensure_shape(labels, shape[:1]), first + batch_size

    batches = (pick if mode == PRELOADED else read)().enumerate().map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.with_options(_deterministic()).prefetch(_PREFETCHED_BATCHES)


def evaluation_dataset(
    shards: tf.Tensor | Sequence[str], *, batch_size: int, form: Form, staged: bool = False
) -> tf.data.Dataset:
    """Each record of `shards` exactly once, in file order, the last and smaller batch included.

    Args:
      shards: TFRecord files, string [n].
      batch_size: images a batch.
      form: of S and C: what the records are decoded to.
      staged: a stager brings the shards: those that are not there yet are waited for.

    Returns:
      A dataset of (images float32 [b, S, S, C], labels int64 [b]) with b ≤ `batch_size`.
    """

    def finished(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = decode(serialized, form)
        return to_float(images), labels

    # Each shard is a dataset of its own on a cluster: a large graph would take longer to start than it saves.
    shards = tf.convert_to_tensor(shards, tf.string)
    records = (
        tf.data.Dataset.from_tensor_slices(shards).flat_map(records_of) if staged else tf.data.TFRecordDataset(shards)
    )
    batches = records.batch(batch_size).map(finished, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.with_options(_deterministic()).prefetch(_PREFETCHED_BATCHES)


def load(records: tf.data.Dataset, num_records: tf.Tensor, form: Form) -> tuple[tf.Tensor, tf.Tensor]:
    """All of these serialized records in their order: pixels uint8 [N, S, S, C], labels int64 [N], N of `num_records`.

    The result is the only copy: it is filled group by group.
    """

    def put(
        filled: tuple[tf.Tensor, tf.Tensor, tf.Tensor], group: tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        *tensors, begin = filled
        where = tf.cast(begin, tf.int32) + tf.range(tf.size(group[1]))
        # tensor_scatter_nd_update would copy all of the tensor for each group. Nobody else holds it here, and
        # `assert_cardinality` sees to it that no row is left as it was.
        images, labels = (
            tf.raw_ops.InplaceUpdate(x=tensor, i=where, v=rows) for tensor, rows in zip(tensors, group, strict=True)
        )
        return images, labels, begin + tf.size(group[1], tf.int64)

    options = _deterministic()
    # What pays in a stream without end is too late here: tuning begins with one core, and rewriting takes a while.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    with tf.device("/device:CPU:0"):  # On a worker with a GPU, too: it is there that tf.data picks from it.
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
    """Serialized records as batches of (pixels uint8 [b, S, S, C], labels int64 [b]), in their order."""
    group_size = min(batch_size, form.group_size)
    groups = records.batch(group_size, drop_remainder=drop_remainder)
    decoded = groups.map(lambda group: decode(group, form, group_size), num_parallel_calls=num_parallel_calls)
    return decoded if batch_size == group_size else decoded.rebatch(batch_size, drop_remainder=drop_remainder)


def _mixed_records(
    open_shard: Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset],
    num_shards: tf.Tensor,
    num_records: tf.Tensor,
    seed: tf.Tensor,
    epoch: tf.Tensor,
    window: int,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """The serialized records of one epoch in the order that seed and epoch give."""
    # TensorFlow mixes the process's global seed into each op's own; in here, a graph, this pins it for the order below.
    tf.compat.v1.set_random_seed(_ANY_NONZERO_SEED)
    seed_pair = tf.stack([seed, epoch])
    shuffle_seed = tf.random.stateless_uniform([], seed_pair, maxval=_INT64_MAX, dtype=tf.int64)
    # One thread reads 240,000 records a second from local files, and several take half as much again of the processor
    # for each record. The order is the same.
    records = tf.data.Dataset.from_tensor_slices(shard_order(num_shards, seed, epoch)).interleave(
        lambda index: open_shard(epoch, index), cycle_length=window, block_length=_INTERLEAVE_BLOCK
    )
    return _counted(records, num_records).shuffle(shuffle_buffer, seed=shuffle_seed, reshuffle_each_iteration=False)


def _counted(records: tf.data.Dataset, num_records: tf.Tensor) -> tf.data.Dataset:
    """Fails where there are more or fewer; without it, shards that hold nothing would make a stream spin for ever."""
    return records.apply(tf.data.experimental.assert_cardinality(num_records))


def _deterministic() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    return options
