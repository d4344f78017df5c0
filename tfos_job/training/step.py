"""One training step: the loss, its gradients, the update, and the times that they take. Graphs only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from tfos_job.formats.form import Form
from tfos_job.training.exchange import Exchange, Wire
from tfos_job.training.optimizer import FusedAdam


def mean_loss(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """The mean cross-entropy, float32 [].

    Args:
      logits: float32 [B, C].
      labels: int64 [B].
      label_smoothing: ε; a label is then 1 − ε + ε/C of its class and ε/C of each other one (arXiv 1512.00567, 7).
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if label_smoothing:
        # The cross-entropy with a label that is spread over all classes alike.
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    return tf.reduce_mean(losses)


@dataclass(frozen=True)
class MoreBatches:
    """Batches behind the first one of a step, of which the same update is made.

    Attributes:
      number: of them; 0 for a step of one batch.
      take: makes the graph that takes the next one, of a number from 0 on, int32 []: images and labels as of
        `train_step`, and the seconds that it was waited for, float64 [].
    """

    number: int
    take: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


class StepResult(NamedTuple):
    """What a step says of itself.

    Attributes:
      loss: the mean over all of its images, of the variables before the update; float32 [].
      num_correct: right first guesses, of the same variables; int64 [].
      input_wait_s: what it has waited for `MoreBatches`; float64 [].
      computed: when all gradients were computed, by the worker's clock (`tf.timestamp`).
      updated: when all variables were updated.
    """

    loss: tf.Tensor
    num_correct: tf.Tensor
    input_wait_s: tf.Tensor
    computed: tf.Tensor
    updated: tf.Tensor


def train_step(
    model: keras.Model,
    optimizer: FusedAdam,
    images: tf.Tensor,
    labels: tf.Tensor,
    label_smoothing: float = 0.0,
    exchange: Exchange = Wire(),  # noqa: B008 - it never changes
    more: MoreBatches | None = None,
) -> StepResult:
    """One update from one batch or several: the only place where precision and wire type are decided.

    Graph only. `compute_seconds` must repeat the part from having the variables to the gradients of a batch.

    Args:
      images: float32 [B, S, S, C].
      labels: int64 [B].
      label_smoothing: see `mean_loss`.
      exchange: of the variables and what changes them.
      more: further batches of the same size. The update is made of the mean of all gradients, which are of the same
        variables; states (moving statistics, those of dropout) go on from batch to batch.
    """
    trained, others = model.trainable_variables, model.non_trainable_variables
    pulled = exchange.pulled(trained, others)
    weights, states = pulled[: len(trained)], pulled[len(trained) :]
    done = _pass(model, weights, states, images, labels, label_smoothing)
    # What a pass has left as it was, such as a layer that is not trained, is the very tensor that it was given.
    is_moved = [new is not old for old, new in zip(states, done.states, strict=True)]
    input_wait_s = tf.constant(0.0, tf.float64)
    if more is not None and more.number:
        done, input_wait_s = _pass_more(model, weights, done, more, label_smoothing)
    # Nothing waits for this timestamp: updates begin as their gradients come.
    computed = _timestamp_after(done.gradients)
    pushed = exchange.pushed(done.gradients, trained)
    moving = list(itertools.compress(others, is_moved))
    moved = exchange.put(list(itertools.compress(done.states, is_moved)), moving)
    assigned = [variable.value.assign(state, read_value=False) for variable, state in zip(moving, moved, strict=True)]
    with tf.control_dependencies([optimizer.update(pushed, trained), *assigned]):
        updated = tf.timestamp()
    return StepResult(done.loss, done.num_correct, input_wait_s, computed, updated)


class _Pass(NamedTuple):
    """The result of a forward and backward pass: of one batch, or the mean (of `num_correct` the sum) over several."""

    gradients: list[tf.Tensor]
    states: list[tf.Tensor]
    loss: tf.Tensor
    num_correct: tf.Tensor


def _pass(
    model: keras.Model,
    weights: Sequence[tf.Tensor],
    states: Sequence[tf.Tensor],
    images: tf.Tensor,
    labels: tf.Tensor,
    label_smoothing: float,
) -> _Pass:
    """The pass of a batch; `weights` and `states` are the values of trainable and of other variables."""
    with tf.GradientTape() as tape:
        tape.watch(weights)
        logits, new_states = model.stateless_call(weights, states, images, training=True)
        loss = mean_loss(logits, labels, label_smoothing)
    gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)]
    num_correct = tf.math.count_nonzero(tf.argmax(logits, axis=-1) == labels)
    return _Pass(gradients, new_states, loss, num_correct)


def _pass_more(
    model: keras.Model, weights: Sequence[tf.Tensor], first: _Pass, more: MoreBatches, label_smoothing: float
) -> tuple[_Pass, tf.Tensor]:
    """The passes of further batches, one after the other, together with the first; and the seconds of waiting.

    Those between the first and the last one are a loop, so that the graph does not grow with their number. The last one
    is outside of it: the gradients of a loop come all at once at its end, those of a pass one by one, and the first of
    them travel while others are still computed.
    """

    def add(number: tf.Tensor, input_wait_s: tf.Tensor, sums: _Pass) -> tuple[tf.Tensor, tf.Tensor, _Pass]:
        images, labels, waited_s = more.take(number)
        found = _pass(model, weights, sums.states, images, labels, label_smoothing)
        summed = found._replace(
            gradients=[total + gradient for total, gradient in zip(sums.gradients, found.gradients, strict=True)],
            loss=sums.loss + found.loss,
            num_correct=sums.num_correct + found.num_correct,
        )
        return number + 1, input_wait_s + waited_s, summed

    state = tf.constant(0), tf.constant(0.0, tf.float64), first
    if more.number > 1:
        state = tf.while_loop(
            lambda number, *_: number < more.number - 1,
            add,
            state,
            parallel_iterations=1,  # else all batches would be taken at once
        )
    _, input_wait_s, sums = add(*state)
    num_batches = more.number + 1
    gradients = [total / num_batches for total in sums.gradients]
    return sums._replace(gradients=gradients, loss=sums.loss / num_batches), input_wait_s


def compute_seconds(model: keras.Model, batch_size: int, form: Form) -> tf.Tensor:
    """Times a step's forward and backward pass where this graph runs, with variables and images that are made up there.

    The pass is made twice, and the second is timed. Of the model's own variables none is read or changed.

    Returns:
      float64 [], in seconds.
    """
    seconds = tf.constant(0.0, tf.float64)
    images = tf.random.uniform([batch_size, *form.shape])
    labels = tf.zeros([batch_size], tf.int64)
    variables = [tf.random.normal(v.shape, stddev=0.01, dtype=v.dtype) for v in model.trainable_variables]
    others = [tf.ones(v.shape, v.dtype) for v in model.non_trainable_variables]
    ready = [images, *variables]
    for _ in range(2):
        begin = _timestamp_after(ready)
        with tf.control_dependencies([begin]):
            given, shown = [tf.identity(v) for v in variables], tf.identity(images)
        with tf.GradientTape() as tape:
            tape.watch(given)
            logits, _ = model.stateless_call(given, others, shown, training=True)
            loss = mean_loss(logits, labels, label_smoothing=0.0)
        ready = tape.gradient(loss, given)
        seconds = _timestamp_after(ready) - begin
    return seconds


def _timestamp_after(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The time when all tensors are computed; on a GPU, not when they are queued."""
    with tf.device("/device:CPU:0"):
        probe = tf.add_n([tf.cast(tf.reshape(tensor, [-1])[0], tf.float32) for tensor in tensors])
        with tf.control_dependencies([probe]):
            now = tf.timestamp()
        # TensorFlow's optimizer removes operations that only a control dependency needs.
        return tf.where(tf.math.is_finite(probe), now, now)
