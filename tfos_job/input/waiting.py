"""Graphs that read a stager's shards (`staging.stager`) and wait for files that do not exist yet.

A worker of a parameter server runs no Python, so graph and stager communicate through the worker's directory. The
stager makes a complete file appear under its name; the graph polls for the name and writes another file after reading.
"""

from __future__ import annotations

import tensorflow as tf

from tfos_job.input.stateless_random import random_bits
from tfos_job.staging.cache_plan import DONE_DIR, GIVEN_DIR

_POLL_US = 50_000


def records_of(path: tf.Tensor) -> tf.data.Dataset:
    """Returns the serialized records of a TFRecord file; waits until it exists."""
    # The dataset's own thread polls and sleeps in between, so no thread of a training step is blocked.
    polls = tf.data.Dataset.from_tensors(tf.constant(0, tf.int64)).concatenate(_slowly(tf.data.Dataset.counter()))
    exists = polls.filter(lambda _: tf.size(tf.raw_ops.MatchingFiles(pattern=path)) > 0).take(1)
    return exists.flat_map(lambda _: tf.data.TFRecordDataset(path))


def turn(epoch: tf.Tensor, index: tf.Tensor) -> tf.data.Dataset:
    """Returns the records of shard `index` in `epoch`; waits for the file, and reports to the stager after reading."""
    name = tf.strings.join([tf.strings.as_string(epoch), tf.strings.as_string(index)], "-")
    report = tf.data.Dataset.from_tensors(name).filter(_report_done)
    return records_of(tf.strings.join([GIVEN_DIR, name], "/")).concatenate(report)


def _report_done(name: tf.Tensor) -> tf.Tensor:
    """Writes the file for the stager; always false, so that the dataset has no element for it."""
    path = tf.strings.join([DONE_DIR, name], "/")
    with tf.control_dependencies([tf.raw_ops.WriteFile(filename=path, contents="")]):
        return tf.constant(False)


def _slowly(dataset: tf.data.Dataset) -> tf.data.Dataset:
    variant = tf.raw_ops.SleepDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        sleep_microseconds=tf.constant(_POLL_US, tf.int64),
        output_types=[tf.int64],
        output_shapes=[tf.TensorShape([])],
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def shard_order(num_shards: tf.Tensor, seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Returns `cache_plan.shard_order` as a graph: int64 [num_shards]. All arguments are int64 []."""
    bits = random_bits(seed, epoch, tf.range(num_shards))
    # argsort does not support uint64; int64 with the highest bit flipped has the same order.
    signed = tf.bitcast(tf.bitwise.bitwise_xor(bits, tf.constant(1 << 63, tf.uint64)), tf.int64)
    return tf.argsort(signed, stable=True)
