"""The variables of registered networks, without TensorFlow, so that their places can be told before a start. Pure.

tests/unit/test_placement.py compares them with those that Keras makes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tfos_job.config.defaults import FLOAT32, WIRE_BYTES
from tfos_job.run.placement import PlacedVariable
from tfos_job.run.specs import ModelSpec, in_scopes

_HIDDEN = 1024
_FILTERS = (64, 128, 256)
_STEM = 32
# Of a layer of dropout: two integers of 64 bits.
_RANDOM_STATE = "seed_generator_state"
_STATES = ("moving_mean", "moving_variance")


def known_variables(model: ModelSpec, trainable_scopes: Sequence[str], wire_dtype: str) -> list[PlacedVariable] | None:
    """All variables of a network in its order; None for one whose variables are not known before it is built.

    Args:
      model: the network.
      trainable_scopes: of the layers that are trained; empty for all.
      wire_dtype: a key of `config.WIRE_BYTES`, for trained variables; others travel as they are.
    """
    if model.model_name == "chinese_rec":
        found = _chinese_rec(model)
    elif model.model_name == "hanzi_net":
        found = _hanzi_net(model)
    else:
        return None
    return [_variable(path, shape, trainable_scopes, wire_dtype) for path, shape in found]


def _variable(path: str, shape: tuple[int, ...], trainable_scopes: Sequence[str], wire_dtype: str) -> PlacedVariable:
    layer, _, name = path.rpartition("/")
    is_random_state, is_state = name == _RANDOM_STATE, name in _STATES
    in_training = not trainable_scopes or in_scopes(layer, trainable_scopes)
    return PlacedVariable(
        path=path,
        shape=shape,
        value_bytes=8 if is_random_state else WIRE_BYTES[wire_dtype if in_training and not is_state else FLOAT32],
        is_changed=is_random_state or in_training,
        is_trained=in_training and not is_random_state and not is_state,
        is_divisible=name == "kernel" and len(shape) == 2,
    )


_Found = Iterator[tuple[str, tuple[int, ...]]]


def _chinese_rec(model: ModelSpec) -> _Found:
    for number, (before, filters) in enumerate(itertools.pairwise((model.num_channels, *_FILTERS)), start=1):
        yield f"conv{number}/kernel", (3, 3, before, filters)
        yield f"conv{number}/bias", (filters,)
    yield from _dropout(model, "dropout1")
    yield from _dense("fc1", (model.image_size // 8) ** 2 * _FILTERS[-1], _HIDDEN)
    yield from _dropout(model, "dropout2")
    yield from _dense("fc2", _HIDDEN, model.num_classes)


def _hanzi_net(model: ModelSpec) -> _Found:
    yield "stem/kernel", (3, 3, model.num_channels, _STEM)
    yield from _norm("stem_norm", _STEM)
    for number, (before, filters) in enumerate(itertools.pairwise((_STEM, *_FILTERS)), start=1):
        block = f"block{number}"
        yield f"{block}_conv1/kernel", (3, 3, before, filters)
        yield from _norm(f"{block}_conv1_norm", filters)
        yield f"{block}_conv2/kernel", (3, 3, filters, filters)
        yield f"{block}_shortcut/kernel", (1, 1, before, filters)
        yield from _norm(f"{block}_conv2_norm", filters)
        yield from _norm(f"{block}_shortcut_norm", filters)
    yield from _dropout(model, "dropout")
    yield from _dense("logits", _FILTERS[-1], model.num_classes)


def _norm(layer: str, filters: int) -> _Found:
    for name in ("gamma", "beta", *_STATES):
        yield f"{layer}/{name}", (filters,)


def _dense(layer: str, inputs: int, outputs: int) -> _Found:
    yield f"{layer}/kernel", (inputs, outputs)
    yield f"{layer}/bias", (outputs,)


def _dropout(model: ModelSpec, layer: str) -> _Found:
    if model.keep_prob < 1:
        yield f"{layer}_random/{_RANDOM_STATE}", (2,)
