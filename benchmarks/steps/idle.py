"""Networks with the variables of another one that compute next to nothing, so that the wire is all there is."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfos_job.networks import registry


class _Idle(keras.layers.Layer):
    """Has the variables of a network, and needs each of them as a whole: for a dense gradient, and to move it on."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__(name="idle")
        self.network = network

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training:
            for variable in self.network.non_trainable_variables:
                # As a batch normalisation's statistics and a dropout's seeds are, read and written in each step.
                variable.assign(variable.value + tf.ones(variable.shape, variable.dtype))
        first = tf.add_n([tf.reshape(v.value, [-1])[0] for v in self.network.trainable_variables])
        return first + tf.zeros([tf.shape(images)[0], self.network.output_shape[-1]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return input_shape[0], self.network.output_shape[-1]


def chinese_rec(**arguments: Any) -> keras.Model:
    return _idle("chinese_rec", arguments)


def hanzi_net(**arguments: Any) -> keras.Model:
    return _idle("hanzi_net", arguments)


def _idle(name: str, arguments: dict[str, Any]) -> keras.Model:
    network = registry.build(name, **arguments)
    images = keras.Input(network.input_shape[1:], name="images", dtype="float32")
    return keras.Model(images, _Idle(network)(images), name=f"idle_{name}")
