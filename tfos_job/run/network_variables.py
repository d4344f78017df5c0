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
RANDOM_STATE = "seed_generator_state"
_STATES = ("moving_mean", "moving_variance")

_Convolution = tuple[int, int, int]  # height, width, filters
# Convolutions in a branch follow each other. Two in one stage have the same input, and their outputs are joined. A
# branch without any is a pooling: it passes all channels on.
_Branch = tuple[tuple[_Convolution, ...], ...]


def _chain(*convolutions: _Convolution) -> _Branch:
    return tuple((one,) for one in convolutions)


def _small(pooled: int) -> tuple[_Branch, ...]:
    """A block of maps of 35 × 35 at 299 × 299 pixels."""
    return (
        _chain((1, 1, 64)),
        _chain((1, 1, 48), (5, 5, 64)),
        _chain((1, 1, 64), (3, 3, 96), (3, 3, 96)),
        _chain((1, 1, pooled)),
    )


def _middle(inner: int) -> tuple[_Branch, ...]:
    """A block of 17 × 17: a convolution of 7 × 7 is one of a column and one of a row."""
    row, column = (1, 7, inner), (7, 1, inner)
    return (
        _chain((1, 1, 192)),
        _chain((1, 1, inner), row, (7, 1, 192)),
        _chain((1, 1, inner), column, row, column, (1, 7, 192)),
        _chain((1, 1, 192)),
    )


_SPLIT = ((1, 3, 384), (3, 1, 384))
_LARGE: tuple[_Branch, ...] = (  # of 8 × 8
    _chain((1, 1, 320)),
    (*_chain((1, 1, 384)), _SPLIT),
    (*_chain((1, 1, 448), (3, 3, 384)), _SPLIT),
    _chain((1, 1, 192)),
)
# Of networks/inception_v3.py: the branches of each block, in the order in which Keras creates them.
_INCEPTION_V3: dict[str, tuple[_Branch, ...]] = {
    "stem": (_chain((3, 3, 32), (3, 3, 32), (3, 3, 64), (1, 1, 80), (3, 3, 192)),),
    **{f"mixed{number}": _small(pooled) for number, pooled in enumerate((32, 64, 64))},
    "mixed3": (_chain((3, 3, 384)), _chain((1, 1, 64), (3, 3, 96), (3, 3, 96)), ()),
    **{f"mixed{number}": _middle(inner) for number, inner in enumerate((128, 160, 160, 192), start=4)},
    "mixed8": (
        _chain((1, 1, 192), (3, 3, 320)),
        _chain((1, 1, 192), (1, 7, 192), (7, 1, 192), (3, 3, 192)),
        (),
    ),
    "mixed9": _LARGE,
    "mixed10": _LARGE,
}
_RGB = 3  # grey images are made of three channels


def known_variables(model: ModelSpec, trainable_scopes: Sequence[str], wire_dtype: str) -> list[PlacedVariable] | None:
    """All variables of a network in its order; None for one of a user's own: they are not known before it is built.

    Args:
      model: the network.
      trainable_scopes: of the layers that are trained; empty for all.
      wire_dtype: a key of `config.WIRE_BYTES`, for trained variables; others travel as they are.
    """
    if model.model_name == "chinese_rec":
        found = _chinese_rec(model)
    elif model.model_name == "hanzi_net":
        found = _hanzi_net(model)
    elif model.model_name == "inception_v3":
        found = _inception_v3(model)
    else:
        return None
    return [_variable(path, shape, trainable_scopes, wire_dtype) for path, shape in found]


def _variable(path: str, shape: tuple[int, ...], trainable_scopes: Sequence[str], wire_dtype: str) -> PlacedVariable:
    layer, _, name = path.rpartition("/")
    is_random_state, is_state = name == RANDOM_STATE, name in _STATES
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


def _inception_v3(model: ModelSpec) -> _Found:
    channels, number = _RGB, 0
    for block, branches in _INCEPTION_V3.items():
        yield from _inception_block(block, branches, channels, number)
        number += sum(len(stage) for branch in branches for stage in branch)
        channels = sum(_outputs(branch, channels) for branch in branches)
    yield from _dropout(model, "dropout")
    yield from _dense("logits", channels, model.num_classes)


def _inception_block(block: str, branches: Sequence[_Branch], channels: int, number: int) -> _Found:
    """The variables of a block; `channels` come into it, and `number` convolutions are before it.

    Keras sorts layers by the number of layers that follow them, then by creation. In a branch a convolution is three
    layers, with normalisation and activation, and outputs that are joined one more.
    """
    layers: list[tuple[int, int, list[tuple[str, tuple[int, ...]]]]] = []
    for branch in branches:
        before = channels
        for place, stage in enumerate(branch):
            following = 3 * (len(branch) - place) + (len(branch[-1]) > 1)
            for height, width, filters in stage:
                kernel = (f"{block}_conv2d_{number}/kernel", (height, width, before, filters))
                norm = list(_norm(f"{block}_batch_normalization_{number}", filters, is_scaled=False))
                layers += [(-following, number, [kernel]), (1 - following, number, norm)]
                number += 1
            before = sum(filters for _, _, filters in stage)
    for _, _, found in sorted(layers):
        yield from found


def _outputs(branch: _Branch, channels: int) -> int:
    return sum(filters for _, _, filters in branch[-1]) if branch else channels


def _norm(layer: str, filters: int, *, is_scaled: bool = True) -> _Found:
    for name in (*(("gamma",) if is_scaled else ()), "beta", *_STATES):
        yield f"{layer}/{name}", (filters,)


def _dense(layer: str, inputs: int, outputs: int) -> _Found:
    yield f"{layer}/kernel", (inputs, outputs)
    yield f"{layer}/bias", (outputs,)


def _dropout(model: ModelSpec, layer: str) -> _Found:
    if model.keep_prob < 1:
        yield f"{layer}_random/{RANDOM_STATE}", (2,)
