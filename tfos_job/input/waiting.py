"""Reading what a stager brings (`staging.Stager`), as graphs: a file that is not there yet is waited for.

There is no Python on a parameter server's worker, so the two sides meet in the worker's directory. The stager makes a
file appear whole under its name; the graph looks for the name, and leaves another one when it is through.
"""

from __future__ import annotations

import tensorflow as tf

from tfos_job.input.stateless_random import random_bits
from tfos_job.staging.cache_plan import DONE_DIR, GIVEN_DIR

_LOOK_US = 50_000


def records_of(path: tf.Tensor) -> tf.data.Dataset:
    """The serialized records of a TFRecord file, from when it is there."""
    # The looks are the dataset's own, and between them its thread sleeps: nothing that a step needs is held up.
    looks = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).concatenate(_slowly(tf.data.Dataset.counter()))
    there = looks.filter(lambda _: tf.size(tf.raw_ops.MatchingFiles(pattern=path)) > 0).take(1)
    return there.flat_map(lambda _: tf.data.TFRecordDataset(path))


def turn(epoch: tf.Tensor, index: tf.Tensor) -> tf.data.Dataset:
    """The serialized records of the shard `index` in `epoch`, from when it is there; then says that it was read."""
    name = tf.strings.join([tf.strings.as_string(epoch), tf.strings.as_string(index)], "-")
    said = tf.data.Dataset.from_tensors(name).filter(_say_done)
    return records_of(tf.strings.join([GIVEN_DIR, name], "/")).concatenate(said)


def _say_done(name: tf.Tensor) -> tf.Tensor:
    """Leaves a word for the stager, and is never an element itself."""
    path = tf.strings.join([DONE_DIR, name], "/")
    with tf.control_dependencies([tf.raw_ops.WriteFile(filename=path, contents="")]):
        return tf.constant(False)


def _slowly(dataset: tf.data.Dataset) -> tf.data.Dataset:
    variant = tf.raw_ops.SleepDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        sleep_microseconds=tf.constant(_LOOK_US, tf.int64),
        output_types=[tf.int64],
        output_shapes=[tf.TensorShape([])],
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def shard_order(num_shards: tf.Tensor, seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """`cache_plan.shard_order` as a graph: int64 [num_shards]. All arguments are int64 []."""
    bits = random_bits(seed, epoch, tf.range(num_shards))
    # argsort knows no uint64: with the highest bit turned, int64 has the same order.
    signed = tf.bitcast(tf.bitwise.bitwise_xor(bits, tf.constant(1 << 63, tf.uint64)), tf.int64)
    return tf.argsort(signed, stable=True)
