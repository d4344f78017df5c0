"""One training step: the loss, its gradients, the update, and the times that they take. Graphs only."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfos_job.config import FLOAT32
from tfos_job.formats.form import Form
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


def train_step(
    model: keras.Model,
    optimizer: FusedAdam,
    images: tf.Tensor,
    labels: tf.Tensor,
    label_smoothing: float = 0.0,
    wire_dtype: str = FLOAT32,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """One update from one batch: the only place where precision, wire type and placement of a step are decided.

    Graph only. `compute_seconds` must repeat the part from having the variables to the gradients.

    Args:
      images: float32 [B, S, S, C].
      labels: int64 [B].
      label_smoothing: see `mean_loss`.
      wire_dtype: a key of `config.WIRE_BYTES`. Variables that are not trained travel as they are: a moving statistic
        that was rounded on its way would stand still as soon as its changes are smaller than that.

    Returns:
      The mean loss and the number of right first guesses, both of the variables before the update; when all gradients
      were computed, and when all variables were updated (`tf.timestamp`, by the worker's clock).
    """
    trained, others = model.trainable_variables, model.non_trainable_variables
    weights = [_pulled(variable, wire_dtype) for variable in trained]
    states = [tf.convert_to_tensor(variable.value) for variable in others]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        logits, new_states = model.stateless_call(weights, states, images, training=True)
        loss = mean_loss(logits, labels, label_smoothing)
    gradients = tape.gradient(loss, weights)
    # Nothing waits for this timestamp: updates begin as their gradients come.
    computed = _timestamp_after(gradients)
    pushed = [_pushed(gradient, variable, wire_dtype) for gradient, variable in zip(gradients, trained, strict=True)]
    # What a pass has left as it was, such as a layer that is not trained, is the very tensor that it was given.
    moved = [
        variable.value.assign(new, read_value=False)
        for variable, old, new in zip(others, states, new_states, strict=True)
        if new is not old
    ]
    with tf.control_dependencies([optimizer.update(pushed, trained), *moved]):
        updated = tf.timestamp()
    num_correct = tf.math.count_nonzero(tf.argmax(logits, axis=-1) == labels)
    return loss, num_correct, computed, updated


def _pulled(variable: keras.Variable, wire_dtype: str) -> tf.Tensor:
    """The variable's value where this graph runs; it is on the wire between two casts."""
    with tf.device(variable.value.device):
        packed = tf.cast(variable.value, wire_dtype)
    return tf.cast(packed, variable.dtype)


def _pushed(gradient: tf.Tensor, variable: keras.Variable, wire_dtype: str) -> tf.Tensor:
    """The gradient where the variable is."""
    packed = tf.cast(gradient, wire_dtype)
    with tf.device(variable.value.device):
        return tf.cast(packed, variable.dtype)


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
