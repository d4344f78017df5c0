"""Exact counts of a network on a split: how many, how much loss, how often right among the first k.

Counts are sums, so they add up over batches, shards and workers in any order; only the end divides. Counts of a
device travel as one float64 vector [num_examples, loss_sum, correct@k for each k], exact for any number of records.
The command `evaluate` also keeps the prediction for each record in the same pass (`run/predictions.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.formats.form import Form
from tfos_job.host.bar import Bar
from tfos_job.inference.out_of_memory import memory_errors
from tfos_job.input.damage import data_errors
from tfos_job.input.pipeline import evaluation_dataset
from tfos_job.layout import RunLayout
from tfos_job.run.predictions import JudgedShard, Predictions

ModelCall = Callable[[tf.Tensor], tf.Tensor]
JudgeCall = Callable[[str], JudgedShard]


@dataclass(frozen=True)
class Counts:
    """Sums over examples. `correct[k]` counts those whose label was among the k highest logits."""

    num_examples: int
    loss_sum: float
    correct: dict[int, int]

    @classmethod
    def zero(cls, ks: Sequence[int]) -> Counts:
        return cls(0, 0.0, dict.fromkeys(ks, 0))

    @classmethod
    def from_vector(cls, vector: np.ndarray, ks: Sequence[int]) -> Counts:
        """From what `batch_counts` or `count_shard` returned for the same `ks`."""
        num_examples, loss_sum, *correct = (float(x) for x in vector)
        return cls(int(num_examples), loss_sum, {k: int(n) for k, n in zip(ks, correct, strict=True)})

    def __add__(self, other: Counts) -> Counts:
        correct = {k: n + other.correct[k] for k, n in self.correct.items()}
        return Counts(self.num_examples + other.num_examples, self.loss_sum + other.loss_sum, correct)

    def metrics(self) -> dict[str, int | float]:
        """`num_examples`, `loss` (mean, nats) and `top_<k>` (fractions).

        Raises:
          BadDataError: nothing was counted.
        """
        if self.num_examples == 0:
            raise BadDataError("there is no record to evaluate", next_step="Run `verify` on the split")
        accuracies = {f"top_{k}": n / self.num_examples for k, n in self.correct.items()}
        return {"num_examples": self.num_examples, "loss": self.loss_sum / self.num_examples, **accuracies}


def batch_counts(logits: tf.Tensor, labels: tf.Tensor, ks: Sequence[int]) -> tf.Tensor:
    """Counts one batch on the device that holds it.

    Labels are looked for among the *indices* of the highest logits, of which there are never more than k: under equal
    logits the lower class wins, so a network with constant outputs is not counted as always right, as by `in_top_k`.

    Args:
      logits: float32 [B, C].
      labels: int64 [B].
      ks: each k ≥ 1; one beyond C counts every example as right.

    Returns:
      float64 [2 + len(ks)]: num_examples, loss_sum, correct@k for each k.
    """
    return _judge_batch(logits, labels, ks)[0]


def _judge_batch(logits: tf.Tensor, labels: tf.Tensor, ks: Sequence[int]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """`batch_counts`, and of each example label, predicted class, its probability and the loss, [B] each."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    highest = tf.math.top_k(logits, k=min(max(ks), logits.shape[-1])).indices
    hits = tf.cast(tf.cast(highest, tf.int64) == labels[:, tf.newaxis], tf.float64)
    sums = [tf.cast(tf.size(labels), tf.float64), tf.reduce_sum(tf.cast(losses, tf.float64))]
    counts = tf.stack(sums + [tf.reduce_sum(hits[:, :k]) for k in ks])
    probabilities = tf.reduce_max(tf.nn.softmax(logits), axis=1)
    return counts, (tf.cast(labels, tf.int32), highest[:, 0], probabilities, losses)


def count_shard(
    model_call: ModelCall,
    shard: tf.Tensor,
    *,
    batch_size: int,
    form: Form,
    ks: Sequence[int],
    staged: bool = False,
) -> tf.Tensor:
    """Counts one shard, each record once. Graph only: call it inside a `tf.function`, on any machine.

    Args:
      model_call: images float32 [b, S, S, C] to logits float32 [b, C], as in prediction.
      shard: path of a TFRecord file, string [].
      batch_size: images a step.
      form: of S: what the records are decoded to, as in training.
      ks: of the top-k counts.
      staged: where the shard is not there yet, it is waited for.

    Returns:
      The sum of `batch_counts` over the shard, float64 [2 + len(ks)].
    """
    batches = _batches(shard, batch_size=batch_size, form=form, staged=staged)

    def add(total: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return total + batch_counts(model_call(images), labels, ks)

    return _fold(batches, tf.zeros([2 + len(ks)], tf.float64), add)


def judge_shard(
    model_call: ModelCall,
    shard: tf.Tensor,
    *,
    batch_size: int,
    form: Form,
    ks: Sequence[int],
    each_batch: Callable[[], None] | None = None,
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """`count_shard`, and the prediction for each of the n records, in their order. Graph only.

    Args:
      each_batch: called on the host after each batch; it changes no number.

    Returns:
      The counts; labels int32 [n], predicted classes int32 [n], their probabilities float32 [n], losses float32 [n].
    """
    batches = _batches(shard, batch_size=batch_size, form=form, staged=False)
    types = (tf.int32, tf.int32, tf.float32, tf.float32)
    arrays = (tf.TensorArray(t, 1, dynamic_size=True, infer_shape=False, element_shape=[None]) for t in types)
    # An empty part, since a shard without records would leave nothing to concatenate.
    empty = tuple(array.write(0, tf.zeros([0], t)) for array, t in zip(arrays, types, strict=True))

    def add(state: tuple, images: tf.Tensor, labels: tf.Tensor) -> tuple:
        total, columns, number = state
        counts, of_each = _judge_batch(model_call(images), labels, ks)
        if each_batch is not None:
            with tf.control_dependencies([counts]):
                tf.py_function(each_batch, [], [])
        columns = tuple(column.write(number, part) for column, part in zip(columns, of_each, strict=True))
        return total + counts, columns, number + 1

    total, columns, _ = _fold(batches, (tf.zeros([2 + len(ks)], tf.float64), empty, tf.constant(1)), add)
    return total, tuple(column.concat() for column in columns)


def _batches(shard: tf.Tensor, *, batch_size: int, form: Form, staged: bool) -> Iterator[tuple]:
    return iter(evaluation_dataset(tf.expand_dims(shard, 0), batch_size=batch_size, form=form, staged=staged))


def _fold(batches: Any, start: Any, add: Callable[[Any, tf.Tensor, tf.Tensor], Any]) -> Any:
    """The result of `add`, called with `start` or its last result, and each batch in turn."""

    # Spelled out, since a `for` over the dataset becomes Dataset.reduce, whose body tf.data would run on the CPU.
    def add_next(_: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        batch = batches.get_next_as_optional()
        there_is_one = batch.has_value()
        return there_is_one, tf.cond(there_is_one, lambda: add(state, *batch.get_value()), lambda: state)

    return tf.while_loop(lambda more, _: more, add_next, [tf.constant(True), start])[1]


def judge_function(
    model: keras.Model,
    *,
    batch_size: int,
    form: Form,
    ks: Sequence[int],
    each_batch: Callable[[], None] | None = None,
) -> JudgeCall:
    """`judge_shard` of a network as a function of a shard's path. In each process it computes the same, bit for bit."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def judge(shard: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        return judge_shard(
            lambda images: model(images, training=False),
            shard,
            batch_size=batch_size,
            form=form,
            ks=ks,
            each_batch=each_batch,
        )

    def judged(shard: str) -> JudgedShard:
        vector, columns = judge(tf.constant(shard))
        return JudgedShard(vector.numpy(), tuple(column.numpy() for column in columns))

    return judged


def evaluate_shards(
    model: keras.Model,
    shards: Iterable[str],
    *,
    num_records: int,
    batch_size: int,
    form: Form,
    ks: Sequence[int],
) -> tuple[Counts, Predictions]:
    """Counts shards in this process, with progress on stderr, and keeps the prediction for each record.

    Args:
      model: takes images float32 [b, S, S, C] and returns logits float32 [b, C].
      shards: local TFRecord files; taken one by one, so they may be staged as they are asked for.
      num_records: what `shards` hold together, for the progress bar alone.
      batch_size: images a step.
      form: of S: what the records are decoded to, as in training.
      ks: of the top-k counts.

    Raises:
      BadDataError: a damaged record; the error names its file and byte.
      MissingInputError: a shard is not there.
      ResourceError: memory runs out.
    """
    judge = judge_function(model, batch_size=batch_size, form=form, ks=ks)
    judged = []
    num_done = 0
    with Bar("evaluate", total=num_records, unit="image") as progress:
        for shard in shards:
            with memory_errors(batch_size), data_errors([shard], with_network=True):
                judged.append(judge(shard))
            num_done += judged[-1].num_records
            progress.show(num_done)
    return joined(judged, ks)


def joined(shards: Iterable[JudgedShard], ks: Sequence[int]) -> tuple[Counts, Predictions]:
    """The counts and predictions of shards, in their order: whoever has judged them, the sums are the same."""
    shards = list(shards)
    counts = sum((Counts.from_vector(shard.counts, ks) for shard in shards), start=Counts.zero(ks))
    return counts, Predictions.joined([shard.columns for shard in shards])


def write_evaluation(run: RunLayout, step: int, split_name: str, metrics: Mapping[str, int | float]) -> str:
    """Writes `evaluation/step-…-<split>.json`, replacing an earlier one of the same step; returns its path."""
    storage.make_dirs(run.evaluation_dir)
    path = run.evaluation(step, split_name)
    storage.write_json(path, {"step": step, "split": split_name, **metrics})
    return path
