"""How the numbers of a step travel: the interface, and the way to parameter servers and back. Graphs only.

A message has a price, whatever is in it, and most variables of a network with batch normalisation are small: small ones
that have the same way go in one message (benchmarks/README.md, wire.py).
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf

from tfos_job.config import FLOAT32

_MIN_ALONE_BYTES = 1 << 16


class Exchange(Protocol):
    """How variables come to a step, and what changes them goes back: an engine's wire."""

    def pulled(self, trained: Sequence[keras.Variable], others: Sequence[keras.Variable]) -> list[tf.Tensor]:
        """The values of all of these variables, in this order, where this graph runs."""

    def pushed(self, gradients: Sequence[tf.Tensor], trained: Sequence[keras.Variable]) -> list[tf.Tensor]:
        """The gradients that the update of each variable is made of, where the variable is."""

    def put(self, states: Sequence[tf.Tensor], others: Sequence[keras.Variable]) -> list[tf.Tensor]:
        """New values of variables that are not trained, where these are."""


@dataclass(frozen=True)
class Wire:
    """Each variable comes from where it lies, and its gradient goes there.

    Those that are trained travel as numbers of `wire_dtype`, a key of `config.WIRE_BYTES`. Others travel as they are: a
    moving statistic that was rounded on its way would stand still as soon as its changes are smaller than that.
    """

    wire_dtype: str = FLOAT32

    def pulled(self, trained: Sequence[keras.Variable], others: Sequence[keras.Variable]) -> list[tf.Tensor]:
        dtypes = [self.wire_dtype] * len(trained) + [variable.dtype for variable in others]
        values = [variable.value for variable in (*trained, *others)]
        return _carried(values, dtypes, [(value.device, None) for value in values])

    def pushed(self, gradients: Sequence[tf.Tensor], trained: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return _carried(gradients, [self.wire_dtype] * len(trained), [(None, v.value.device) for v in trained])

    def put(self, states: Sequence[tf.Tensor], others: Sequence[keras.Variable]) -> list[tf.Tensor]:
        return _carried(states, [v.dtype for v in others], [(None, v.value.device) for v in others])


def packed(tensors: Sequence[tf.Tensor], dtype: str) -> tf.Tensor:
    """All values in one vector of `dtype`; a tensor that is alone keeps its shape."""
    if len(tensors) == 1:
        return tf.cast(tf.convert_to_tensor(tensors[0]), dtype)  # a variable would stay one, to be read again and again
    return tf.concat([tf.reshape(tf.cast(tensor, dtype), [-1]) for tensor in tensors], axis=0)


def unpacked(values: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The tensors of `packed`, with the shapes and types of these; their shapes are known to the graph."""
    if len(like) == 1:
        return [tf.cast(values, like[0].dtype)]
    parts = tf.split(values, [tensor.shape.num_elements() for tensor in like])
    return [tf.cast(tf.reshape(part, one.shape), one.dtype) for part, one in zip(parts, like, strict=True)]


_Way = tuple[str | None, str | None]
"""The devices that a tensor comes from and goes to; None for where the graph runs."""


def _carried(tensors: Sequence[tf.Tensor], dtypes: Sequence[str], ways: Sequence[_Way]) -> list[tf.Tensor]:
    """The tensors at the ends of their ways, on which each is of its dtype."""
    messages: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, (tensor, dtype, way) in enumerate(zip(tensors, dtypes, ways, strict=True)):
        is_small = tensor.shape.num_elements() * tf.as_dtype(dtype).size < _MIN_ALONE_BYTES
        messages[(*way, dtype) if is_small else (*way, dtype, index)].append(index)
    found: dict[int, tf.Tensor] = {}
    for (source, target, dtype, *_), indices in messages.items():
        fellows = [tensors[index] for index in indices]
        with _at(source):
            values = packed(fellows, dtype)
        with _at(target):
            found.update(zip(indices, unpacked(values, fellows), strict=True))
    return [found[index] for index in range(len(tensors))]


def _at(device: str | None) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if device is None else tf.device(device)
