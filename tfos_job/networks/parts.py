"""Conversion between a checkpoint's arrays, which know no parts, and those of a network with kernels in parts.

So a checkpoint is the same wherever the variables of its training lay. The optimizer's slots are in parts, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfos_job.networks.variables import MODEL_PREFIX
from tfos_job.run.checkpoint_files import OPTIMIZER_PREFIX
from tfos_job.run.placement import part_path

_SLOTS = ("momentum", "velocity")  # Adam's, by Keras's names

Parts = Mapping[str, tuple[int, ...]]
"""`Placement.parts`: the columns of each part of a kernel, by its path."""


def joined(arrays: Mapping[str, np.ndarray], parts: Parts) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, in the order that they would have without parts.

    Args:
      arrays: by checkpoint name; of a kernel in parts each part for itself, [rows, columns of the part].
      parts: of the network.
    """
    names = _names_of_parts(parts)
    whole = {of_part[0]: name for name, of_part in names.items()}
    others = {name for of_part in names.values() for name in of_part[1:]}
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name in whole:
            found[whole[name]] = np.concatenate([arrays[part] for part in names[whole[name]]], axis=-1)
        elif name not in others:
            found[name] = array
    return found


def divided(arrays: Mapping[str, np.ndarray], parts: Parts) -> dict[str, np.ndarray]:
    """The arrays of a network with such parts, from those of a checkpoint of the same network."""
    names, found = _names_of_parts(parts), dict(arrays)
    for path, columns in parts.items():
        borders = np.cumsum(columns)[:-1]
        for name in _names(path):
            if name in found:
                found |= zip(names[name], np.split(found.pop(name), borders, axis=-1), strict=True)
    return found


def _names_of_parts(parts: Parts) -> dict[str, list[str]]:
    """The names of the parts, by the name of the whole array."""
    return {
        whole: [_names(part_path(path, number))[at] for number in range(len(columns))]
        for path, columns in parts.items()
        for at, whole in enumerate(_names(path))
    }


def _names(path: str) -> list[str]:
    """The names in a checkpoint of a trained variable and of its slots."""
    return [MODEL_PREFIX + path, *(f"{OPTIMIZER_PREFIX}adam/{path.replace('/', '_')}_{slot}" for slot in _SLOTS)]
