"""All variables of a training at one moment, brought here from the parameter servers in one call."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf


class Snapshot:
    """A graph that reads variables where they are, all at the same time.

    Reading one after the other costs the way to the parameter server and back for each of them, and a copy
    (benchmarks/checkpoint.py).
    """

    def __init__(self, variables: Mapping[str, keras.Variable], device: str) -> None:
        """Makes the graph, which takes some tenths of a second, so that the first snapshot need not wait for it.

        Args:
          variables: by name, built.
          device: where the values come to; one of this process.
        """
        self._names = list(variables)
        values = [variable.value for variable in variables.values()]

        def read() -> list[tf.Tensor]:
            found = []
            for value in values:
                with tf.device(value.device):
                    there = value.read_value()
                with tf.device(device):
                    found.append(tf.identity(there))
            return found

        with tf.device(device):
            self._read = tf.function(read).get_concrete_function()

    def take(self) -> dict[str, np.ndarray]:
        """The values by name. They are the tensors' own memory, not a copy, and cannot be written to."""
        return dict(zip(self._names, map(np.asarray, self._read()), strict=True))
