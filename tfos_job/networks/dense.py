"""A dense layer whose kernel may be several variables, which may then lie on several parameter servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

import keras

from tfos_job.run.placement import part_path

_parts: ContextVar[Mapping[str, tuple[int, ...]]] = ContextVar("parts", default={})  # noqa: B039 - never changed


@contextlib.contextmanager
def kernels_in_parts(parts: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """Within it, layers are built with the kernels of these paths in parts of so many columns."""
    token = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(token)


def is_divisible(variable: keras.Variable) -> bool:
    """True for the kernel of such a layer, in whatever other layer that is, unless it is in parts."""
    return getattr(variable, "is_divisible", False)


class Dense(keras.layers.Dense):
    """Keras's, with the same variables and numbers, unless it is built within `kernels_in_parts`.

    Then each part of the kernel is a variable of its own, which begins with zeros, and computes its own columns of the
    outputs: kernels are neither joined nor copied, and a part that has come need not wait for the others.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        columns = _parts.get().get(f"{self.path}/kernel")
        self.kernel_parts: list[keras.Variable] = []
        if columns is None:
            super().build(input_shape)
            self.kernel.is_divisible = True
            return
        for number, width in enumerate(columns):
            shape = (input_shape[-1], width)
            self.kernel_parts.append(
                self.add_weight(shape=shape, initializer="zeros", name=part_path("kernel", number))
            )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias") if self.use_bias else None
        self.built = True

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        if not self.kernel_parts:
            return super().call(inputs, training=training)
        x = keras.ops.concatenate([keras.ops.matmul(inputs, part) for part in self.kernel_parts], axis=-1)
        if self.bias is not None:
            x = keras.ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)
