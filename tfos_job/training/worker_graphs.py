"""The graphs that workers run, whatever engine: their input, the figures of their steps, their share of an evaluation.

They contain no Python and no object of the coordinator but variables: what differs among workers lies in a file of each
worker's own directory.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfos_job.inference.evaluation import count_shard
from tfos_job.input.normalization import Normalization
from tfos_job.input.pipeline import training_dataset
from tfos_job.protocol.topology import INPUT_FILE
from tfos_job.run.plan import TrainPlan
from tfos_job.training.engine import StepBlock

_EVALUATION_BATCH_SIZE = 128


def worker_dataset(plan: TrainPlan, normalization: Normalization) -> tf.data.Dataset:
    """The input of the worker that runs this graph: ((images, labels, record behind the batch), worker)."""
    lines = tf.strings.split(tf.io.read_file(INPUT_FILE), "\n")
    worker, seed, start_record, num_records = (tf.strings.to_number(lines[i], tf.int64) for i in range(4))
    dataset = training_dataset(
        lines[4:],
        mode=plan.input.mode,
        staged=plan.input.staged,
        window=plan.input.window,
        num_records=num_records,
        batch_size=plan.input.batch_size,
        form=plan.form,
        seed=seed,
        shuffle_buffer=plan.input.shuffle_buffer,
        augmentation=plan.input.augmentation,
        normalization=normalization,
        start_record=start_record,
    )
    return tf.data.Dataset.zip(dataset, tf.data.Dataset.from_tensors(worker).repeat())


def taken(batches: tf.data.Iterator, *, after: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], tf.Tensor, tf.Tensor]:
    """The next batch, asked for at the time `after`; its worker; and the time when it was there."""
    with tf.control_dependencies([after]):
        batch, worker = next(batches)
    with tf.control_dependencies([batch[0]]):
        return batch, worker, tf.timestamp()


def counting(
    model: keras.Model, plan: TrainPlan, normalization: Normalization, ks: tuple[int, ...]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph that counts one shard: from its path to the vector of `count_shard`. Tracing it takes seconds."""

    def count(shard: tf.Tensor) -> tf.Tensor:
        return count_shard(
            lambda images: model(normalization(images), training=False),
            shard,
            batch_size=_EVALUATION_BATCH_SIZE,
            form=plan.form,
            ks=ks,
            staged=plan.input.staged,
        )

    function: Callable[[tf.Tensor], tf.Tensor] = tf.function(count, input_signature=[tf.TensorSpec([], tf.string)])
    return function


def figures(*values: tf.Tensor) -> tf.Tensor:
    """Numbers of any types as one float64 vector, a single small message."""
    return tf.stack([tf.cast(value, tf.float64) for value in values])


def block_of(table: np.ndarray, *, num_steps: int, seconds: float, num_replicas: int = 1) -> StepBlock:
    """A block of steps by the figures of their replicas.

    Args:
      table: a row of `figures` for each step and replica: loss, right guesses, images, worker, the record behind its
        last batch, and the seconds of input, of the update, and of all.
      num_steps: of the block.
      seconds: of it.
      num_replicas: that make a step together.
    """
    loss, correct, images, worker, end_record, input_wait_s, update_s, step_s = table.T
    # Together with others it waits for the slowest, from its own gradients on.
    own_s = step_s - update_s if num_replicas > 1 else step_s
    return StepBlock(
        steps=num_steps,
        images=int(images.sum()),
        loss=float((loss * images).sum() / images.sum()),
        top_1=float(correct.sum() / images.sum()),
        seconds=seconds,
        input_wait_s=float(input_wait_s.sum() / num_replicas),
        update_s=float(update_s.sum() / num_replicas),
        step_s=float(step_s.sum() / num_replicas),
        positions={int(w): int(end_record[worker == w].max()) for w in np.unique(worker)},
        worker_step_s={int(w): float(own_s[worker == w].mean()) for w in np.unique(worker)},
    )
