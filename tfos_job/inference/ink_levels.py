"""Levels of a picture of handwriting: which side is ink, how bright the paper is at each place, and how dark the ink.

A photograph's light is uneven, so darkness is measured against the paper around each pixel and not against white. The
paper is a grey closing: dark things narrower than about a fifth of the picture are ink on it, wider ones are shadows.
numpy and Pillow alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

FloatArray = npt.NDArray[np.float32]
GreyArray = npt.NDArray[np.uint8]

_POLARITY_SIDE = 96  # pixels: noise averages out, and a character is still one
_BORDER_WEIGHT = 0.3  # of the border's share beside the picture's: right for bold crops and for frames
_ALL_BRIGHT = 0.03  # share of dark pixels in a ring that is white, as the strokes of a frame are on black
_BRIGHT_SHARE = 0.997  # nothing is chalk, unless the pixels above this quantile
_LEAST_CONTRAST = 25  # are brighter than the board by this many levels
_NEARLY_WHITE = 0.8  # of the brightest pixel: paper alone is brighter
_FLAT, _FLAT_SHARE = 4, 0.75  # levels from the brightest, within which the paper of a drawing is, and how much of it
_CELLS = 24  # cells of the paper along the longer side
_CLOSING = 5  # cells: what is narrower is ink
_PAPER_PERCENTILE = 0.75  # a cell is paper where a quarter of it is
_DARKEST_SHADOW = 0.3  # of the brightest paper: what is darker is ink, however wide
_DARKEST_PAPER = 16.0  # level: on darker paper noise is no ink
_NEARLY_PAPER = 0.15  # darkness: pixels below are taken for paper when its noise is measured
_SMOOTHED_NOISE = 0.015  # darkness: noise above is smoothed before anything is looked for


@dataclass(frozen=True)
class Levels:
    """A picture relative to its paper.

    Attributes:
      darkness: float32 [h, w]: 0 is paper, 1 black; noise goes below 0.
      noise: float32 [h, w]: standard deviation of the paper's darkness. In a shadow it is larger.
    """

    darkness: FloatArray
    noise: FloatArray


def scaled(grey: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Resizes to (width, height); each pixel is the mean of those it replaces. Keeps the type, uint8 or float32."""
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def reduced(grey: GreyArray, longest: int) -> GreyArray:
    """Scales a picture down so that no side is longer than `longest` pixels; smaller ones stay as they are."""
    height, width = grey.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return grey
    return scaled(grey, (max(1, round(width * scale)), max(1, round(height * scale))))


def is_inverted(grey: GreyArray) -> bool:
    """True if the ink is brighter than the paper.

    Ink is the smaller part of a picture, and of its border. The parts are looked for in the picture as
    it is, and without the slow changes of its light; where they differ more from each other than within decides.

    Args:
      grey: uint8 [h, w].
    """
    small = reduced(grey, _POLARITY_SIDE).astype(np.float32)
    flat = small - _light(small)
    if np.quantile(flat, _BRIGHT_SHARE) - np.median(flat) < _LEAST_CONTRAST:
        return False  # nothing is bright: noise alone, or paper
    _, dark = min((_parted(small), _parted(flat)), key=lambda parted: parted[0])
    border, within = _ring(dark, 0), _ring(dark, min(dark.shape) // 8)
    is_bright_frame = border < _ALL_BRIGHT and within > 1 - _ALL_BRIGHT
    if border > 0.5 or is_bright_frame:  # it may be a frame: what is further inside counts as much
        border = (border + within) / 2
    return bool(dark.mean() - 0.5 + _BORDER_WEIGHT * (border - 0.5) > 0)


def _ring(dark: npt.NDArray[np.bool_], depth: int) -> float:
    """The share of dark pixels in the ring of one pixel at a depth."""
    height, width = dark.shape
    part = dark[depth : height - depth, depth : width - depth]
    return float(np.concatenate([part[0], part[-1], part[1:-1, 0], part[1:-1, -1]]).mean())


def _parted(values: FloatArray) -> tuple[float, npt.NDArray[np.bool_]]:
    """Parts values in the middle: the spread within the parts over their distance, and which are dark."""
    dark = values < (float(values.min()) + float(values.max())) / 2
    if not dark.any():
        return np.inf, dark
    darks, brights = values[dark], values[~dark]
    within = np.sqrt((darks.var() * darks.size + brights.var() * brights.size) / values.size)
    return float(within / (brights.mean() - darks.mean())), dark


def _light(small: FloatArray) -> FloatArray:
    """The quadratic surface nearest to a picture: uneven light, whichever side is ink."""
    height, width = small.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32).reshape(2, -1)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    weights = np.linalg.lstsq(terms, small.ravel(), rcond=None)[0]
    return np.asarray((terms @ weights).reshape(height, width), np.float32)


def levels(grey: GreyArray) -> Levels:
    """The darkness of dark ink on the paper around it."""
    found = _levels(grey)
    if np.median(found.noise) > _SMOOTHED_NOISE:
        found = _levels(np.asarray(Image.fromarray(grey).filter(ImageFilter.GaussianBlur(1))))
    return found


def _levels(grey: GreyArray) -> Levels:
    paper = _paper(grey)
    scale = np.maximum(paper, _DARKEST_PAPER)
    below = paper - grey
    nearly_paper = below[below < _NEARLY_PAPER * scale]
    if nearly_paper.size:
        below -= np.median(nearly_paper)
        nearly_paper = below[below < _NEARLY_PAPER * scale]
    deviation = 1.4826 * float(np.median(np.abs(nearly_paper))) if nearly_paper.size else 0.0
    return Levels(np.asarray(below / scale, np.float32), np.asarray(deviation / scale, np.float32))


def _paper(grey: GreyArray) -> FloatArray:
    """The paper's brightness at each pixel, float32 [h, w]."""
    height, width = grey.shape
    brightest = int(grey.max())
    bright = grey[grey >= _NEARLY_WHITE * brightest]
    if np.mean(bright >= brightest - _FLAT) > _FLAT_SHARE:
        return np.full(grey.shape, brightest, np.float32)  # drawn or cleaned: no light ever fell on it
    cell = max(2, -(-max(height, width) // _CELLS))
    rows, columns = -(-height // cell), -(-width // cell)
    filled = np.pad(grey, ((0, rows * cell - height), (0, columns * cell - width)), mode="edge")
    cells = filled.reshape(rows, cell, columns, cell).swapaxes(1, 2).reshape(rows, columns, cell * cell)
    rank = round(_PAPER_PERCENTILE * (cell * cell - 1))
    lit = np.partition(cells, rank, axis=2)[:, :, rank].astype(np.float32)
    # A closing takes the slope of the light for ink at the border, where it sees one side alone.
    light = _light(lit)
    closed = _softened(-_highest(-_highest(lit - light))) + light
    closed = np.maximum(closed, _DARKEST_SHADOW * closed.max())
    size = (columns * cell, rows * cell)
    return np.asarray(Image.fromarray(closed).resize(size, Image.Resampling.BILINEAR))[:height, :width]


def _highest(cells: FloatArray) -> FloatArray:
    """The highest of the cells within reach of each."""
    reach = _CLOSING // 2
    for axis in (0, 1):
        filled = np.pad(cells, [(reach, reach) if axis == other else (0, 0) for other in (0, 1)], mode="edge")
        cells = np.lib.stride_tricks.sliding_window_view(filled, _CLOSING, axis).max(axis=-1)
    return cells


def _softened(cells: FloatArray) -> FloatArray:
    """Each cell with a quarter of each neighbour's, in both directions."""
    for axis in (0, 1):
        filled = np.pad(cells, [(1, 1) if axis == other else (0, 0) for other in (0, 1)], mode="edge")
        cells = np.lib.stride_tricks.sliding_window_view(filled, 3, axis) @ np.array([0.25, 0.5, 0.25], np.float32)
    return cells
