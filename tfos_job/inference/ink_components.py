"""Connected parts of a mask, and which of them are one character. numpy alone.

A mask is taken apart into runs, its horizontal pieces: there are a hundred times fewer of them than pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Components:
    """The parts of a mask that touch, also at corners.

    Attributes:
      boxes: int64 [n, 4]: left, top, right, bottom of each; right and bottom are exclusive.
      areas: int64 [n], in pixels.
      shape: of the mask.
      run_starts, run_ends: positions of the runs in the flattened mask, with a column more than it has.
      run_component: the component of each run.
    """

    boxes: IntArray
    areas: IntArray
    shape: tuple[int, int]
    run_starts: IntArray
    run_ends: IntArray
    run_component: IntArray

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def lengths(self) -> IntArray:
        """The longer side of each box."""
        return np.maximum(self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1])

    def sums(self, values: FloatArray) -> FloatArray:
        """Sums values [h, w] over each component, float64 [n]."""
        height, width = self.shape
        filled = np.zeros((height, width + 1))
        filled[:, :-1] = values
        running = np.concatenate([[0.0], np.cumsum(filled)])
        each = running[self.run_ends] - running[self.run_starts]
        return np.bincount(self.run_component, each, minlength=len(self))

    def mask(self, chosen: BoolArray) -> BoolArray:
        """The pixels of the chosen components, bool [h, w]."""
        height, width = self.shape
        steps = np.zeros(height * (width + 1) + 1, np.int8)
        runs = chosen[self.run_component]
        steps[self.run_starts[runs]] = 1
        steps[self.run_ends[runs]] = -1
        return np.cumsum(steps[:-1], dtype=np.int8).reshape(height, width + 1)[:, :-1].astype(bool)


def components(mask: BoolArray) -> Components:
    """Takes a mask apart."""
    height, width = mask.shape
    stride = width + 1  # a column without ink ends each row's last run
    flat = np.zeros(height * stride + 1, np.int8)
    flat[:-1].reshape(height, stride)[:, :-1] = mask
    steps = np.diff(flat, prepend=np.int8(0))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    component = _connected(starts, ends, stride)
    num = int(component.max()) + 1 if component.size else 0
    boxes = np.tile(np.array([width, height, 0, 0]), (num, 1))
    rows, left, right = starts // stride, starts % stride, (ends - 1) % stride + 1
    np.minimum.at(boxes[:, 0], component, left)
    np.minimum.at(boxes[:, 1], component, rows)
    np.maximum.at(boxes[:, 2], component, right)
    np.maximum.at(boxes[:, 3], component, rows + 1)
    areas = np.bincount(component, ends - starts, minlength=num).astype(np.int64)
    return Components(boxes, areas, (height, width), starts, ends, component)


def _connected(starts: IntArray, ends: IntArray, stride: int) -> IntArray:
    """Numbers the components of the runs, from 0 on."""
    # A run touches those of the next row that begin no later than it ends, and end no earlier than it begins.
    first = np.searchsorted(ends, starts + stride)
    last = np.searchsorted(starts, ends + stride, side="right")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    lower = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    root = np.arange(len(starts))
    while True:
        a, b = root[upper], root[lower]
        differing = a != b
        if not differing.any():
            return np.unique(root, return_inverse=True)[1]
        upper, lower, a, b = upper[differing], lower[differing], a[differing], b[differing]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root != root[root]).any():
            root = root[root]


def union(boxes: IntArray) -> IntArray:
    """The box around boxes [n, 4], n ≥ 1."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def clusters(boxes: IntArray, reach: float) -> list[IntArray]:
    """Groups of boxes, as their indices: two are one if their gap is at most `reach` of the longer one's side."""
    groups = [np.array([i]) for i in range(len(boxes))]
    around = [union(boxes[group]) for group in groups]
    merged = True
    while merged:
        merged = False
        for i in range(len(groups) - 1, 0, -1):
            j = _near(around[i], np.array(around[:i]), reach)
            if j is not None:
                groups[j] = np.concatenate([groups[j], groups.pop(i)])
                around[j] = union(np.array([around[j], around.pop(i)]))
                merged = True
    return groups


def _near(box: IntArray, others: IntArray, reach: float) -> int | None:
    gaps = np.maximum(np.maximum(box[:2] - others[:, 2:], others[:, :2] - box[2:]), 0)
    distance = np.hypot(gaps[:, 0], gaps[:, 1])
    longest = np.maximum((others[:, 2:] - others[:, :2]).max(axis=1), (box[2:] - box[:2]).max())
    near = np.flatnonzero(distance <= reach * longest)
    return int(near[distance[near].argmin()]) if near.size else None
