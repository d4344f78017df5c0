"""The seed job's network, unchanged, in Keras 3.

Source: `chinese_rec.py` of https://github.com/burness/tensorflow-101 (`build_graph`), with TF-Slim's defaults made
explicit: SAME padding, stride 1, ReLU, Glorot-uniform weights, zero biases. Its last layer has no activation; the loss
is the mean sparse softmax cross-entropy.

::

    images [B, S, S, C] ─ conv1 64 ─ pool1 ─ conv2 128 ─ pool2 ─ conv3 256 ─ pool3 ─ flatten
                        ─ dropout1 ─ fc1 1024 tanh ─ dropout2 ─ fc2 num_classes = logits
"""

from __future__ import annotations

import keras

from tfos_job.networks.dense import Dense
from tfos_job.networks.layers import dropout, glorot

CONV_FILTERS = (64, 128, 256)
NUM_HIDDEN = 1024


def build(*, num_classes: int, image_size: int, num_channels: int, keep_prob: float, seed: int) -> keras.Model:
    """Builds the network; see `registry.build` for the arguments.

    Returns:
      A functional model from images float32 [B, S, S, C] in [0, 1] to logits float32 [B, num_classes].
    """
    images = keras.Input((image_size, image_size, num_channels), name="images", dtype="float32")
    x = images
    for number, num_filters in enumerate(CONV_FILTERS, start=1):
        name = f"conv{number}"
        x = keras.layers.Conv2D(
            num_filters, 3, padding="same", activation="relu", kernel_initializer=glorot(seed, name), name=name
        )(x)
        x = keras.layers.MaxPooling2D(2, 2, padding="same", name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = dropout(x, keep_prob, seed, "dropout1")
    x = Dense(NUM_HIDDEN, activation="tanh", kernel_initializer=glorot(seed, "fc1"), name="fc1")(x)
    x = dropout(x, keep_prob, seed, "dropout2")
    # float32 at any precision of the other layers: softmax over thousands of classes needs it.
    logits = Dense(num_classes, kernel_initializer=glorot(seed, "fc2"), dtype="float32", name="fc2")(x)
    return keras.Model(images, logits, name="chinese_rec")
