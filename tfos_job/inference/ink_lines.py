"""Ruled and squared paper: straight thin lines from border to border, and their removal. numpy alone.

A line is found by what it covers: strips of columns in which there is something thin at the height that a slope
gives it. A stroke is too thick, too short or too crooked. Only where nothing but the line is there it is removed: where
a stroke crosses or follows it, what is dark is higher than the line is thick, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfos_job.inference.ink_levels import Levels

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[Any]

_MAX_SHARE = 0.013  # thickness of a line, of the picture's side along it: what is thicker is a stroke,
_MAX_SHARE_OF_FAMILY = 0.035  # unless there are several lines
_FAMILY = 3
_MIN_SIDE = 48  # pixels: no line is a pixel wide in less
_STRIPS = 48
_MAX_SLOPE = 0.18  # 10 degrees
_MIN_COVERAGE = 0.72  # strips of a line where it is seen: strokes hide it elsewhere
_MIN_COVERAGE_OF_CUT = 0.85  # of a line that is cut off by a corner
_MIN_COVERAGE_OF_HIDDEN, _MIN_ENDS_OF_HIDDEN = 0.45, 0.9  # of a line that is behind a character
_MIN_ENDS = 0.5  # the same, in the fifths at both ends: a line goes through the whole picture,
_BORDER_STRIPS = 2  # and is seen in one of these at both ends: a straight stroke ends before
_MIN_RESPONSE = 0.03  # darkness of a line
_MAX_LINES = 80
_SAME_FAMILY = 0.03  # difference of slopes between lines of one paper


@dataclass(frozen=True)
class Lines:
    """What was removed.

    Attributes:
      removed: bool [h, w]: pixels that are nothing but a line.
      bands: bool [h, w]: each line and its surroundings.
      slope: of the lines, in pixels down for each to the right; 0 without lines.
      thickness: of the thickest, in pixels; 0 without lines.
    """

    removed: BoolArray
    bands: BoolArray
    slope: float
    thickness: float


@dataclass(frozen=True)
class _Line:
    """The centre in each column, int64 [w]; thickness in pixels; darkness and slope."""

    centre: npt.NDArray[np.int64]
    thickness: float
    darkness: float
    slope: float


def find_lines(levels: Levels, threshold: FloatArray, max_thickness: float | None = None) -> Lines:
    """Finds lines in both directions.

    Args:
      levels: of the picture, [h, w].
      threshold: darkness from which a pixel is ink or line, [h, w].
      max_thickness: pixels; by default a share of the side. With 0 nothing is looked for.
    """
    darkness = levels.darkness
    removed, bands = np.zeros(darkness.shape, bool), np.zeros(darkness.shape, bool)
    if min(darkness.shape) < _MIN_SIDE or max_thickness == 0:
        return Lines(removed, bands, 0.0, 0.0)
    mask, noise = darkness > threshold, float(levels.noise.mean())
    across = _one_direction(darkness, mask, noise)
    down = _one_direction(darkness.T, mask.T, noise)
    share = _MAX_SHARE if len(across) + len(down) < _FAMILY else _MAX_SHARE_OF_FAMILY
    limits = [share * side if max_thickness is None else max_thickness for side in darkness.shape]
    across = [line for line in across if line.thickness <= limits[1]]
    down = [line for line in down if line.thickness <= limits[0]]
    for line in across:
        _remove(line, mask, darkness, removed, bands)
    mask &= ~removed  # so that lines that cross do not save each other
    for line in down:
        _remove(line, mask.T, darkness.T, removed.T, bands.T)
    # The lines of a square that go down lean the other way.
    slopes = [line.slope for line in across] or [-line.slope for line in down]
    thickness = max((line.thickness for line in across + down), default=0.0)
    return Lines(removed, bands, float(np.median(slopes)) if slopes else 0.0, thickness)


def _one_direction(darkness: FloatArray, mask: BoolArray, noise: float) -> list[_Line]:
    """Lines that go from left to right."""
    reach = max(2, round(1.5 * _MAX_SHARE * darkness.shape[1]))
    response = _thin(darkness, reach)
    candidates = _candidates(response, noise, reach)
    lines = (_traced(darkness, response, mask, middle, slope, reach) for middle, slope in candidates)
    return [line for line in lines if line is not None]


def _thin(darkness: FloatArray, reach: int) -> FloatArray:
    """How much darker a pixel is than those `reach` above and below: thin, nearly horizontal things."""
    filled = np.pad(darkness, ((reach, reach), (0, 0)))
    return np.minimum(darkness - filled[: -2 * reach], darkness - filled[2 * reach :])


def _candidates(response: FloatArray, noise: float, reach: int) -> list[tuple[float, float]]:
    """Lines as the height in the middle column, in pixels, and the slope."""
    height, width = response.shape
    edges = np.linspace(0, width, _STRIPS + 1).round().astype(int)
    means = np.add.reduceat(response, edges[:-1], axis=1) / np.diff(edges)
    seen = means > max(_MIN_RESPONSE, 3 * noise / np.sqrt(width / _STRIPS))
    # A tolerance of a pixel: for the slope within a strip, and between the slopes that are tried.
    tolerant = seen.copy()
    tolerant[1:] |= seen[:-1]
    tolerant[:-1] |= seen[1:]
    beyond = int(_MAX_SLOPE * width / 2) + 2  # rows above and below, in which a line at a corner has its middle
    tolerant = np.pad(tolerant, ((2 * beyond, 2 * beyond), (0, 0)))
    inside = np.pad(np.ones(height, np.float32), 2 * beyond)
    offsets = (edges[:-1] + edges[1:]) / 2 - width / 2
    slopes = np.linspace(-_MAX_SLOPE, _MAX_SLOPE, 2 * int(_MAX_SLOPE * width / 1.5) + 1)
    rows = np.arange(beyond, height + 3 * beyond)[:, None]
    whole = np.zeros((len(slopes), len(rows)), np.float32)
    cut = np.zeros_like(whole)
    fifth = _STRIPS // 5
    for number, slope in enumerate(slopes):
        at = rows + np.rint(offsets * slope).astype(int)
        along = tolerant[at, np.arange(_STRIPS)]
        length = inside[at].sum(axis=1)
        coverage = along.sum(axis=1) / np.maximum(length, 1)
        ends = np.minimum(along[:, :fifth].mean(axis=1), along[:, -fifth:].mean(axis=1))
        reaches = along[:, :_BORDER_STRIPS].any(axis=1) & along[:, -_BORDER_STRIPS:].any(axis=1)
        whole[number] = np.where((ends >= _MIN_ENDS) & reaches & (length > 0.9 * _STRIPS), coverage, 0)
        cut[number] = np.where(length > 0.1 * _STRIPS, coverage, 0)
        # Between lines of the same paper one that a character hides is known by its ends.
        hidden = (ends >= _MIN_ENDS_OF_HIDDEN) & (length > 0.9 * _STRIPS) & (coverage >= _MIN_COVERAGE_OF_HIDDEN)
        cut[number][hidden] = np.maximum(cut[number][hidden], _MIN_COVERAGE_OF_CUT)
    found = _peaks(whole, slopes, reach, _MIN_COVERAGE, [])
    if found:
        # Others of the paper leave it at a corner, with their middle outside of it, or are behind the character.
        cut[np.abs(slopes - np.median([slope for _, slope in found])) > _SAME_FAMILY / 2] = 0
        found = _peaks(cut, slopes, reach, _MIN_COVERAGE_OF_CUT, found)
    return [(row - beyond, slope) for row, slope in found]


def _peaks(
    coverage: FloatArray, slopes: FloatArray, reach: int, least: float, found: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Adds to the lines found, as row and slope, those of the highest coverage [slopes, rows]."""
    found = list(found)

    def hide(row: int) -> None:
        coverage[:, max(0, row - reach - 1) : row + reach + 2] = 0

    for middle, _ in found:
        hide(int(middle))
    while len(found) < _MAX_LINES:
        number, row = divmod(int(coverage.argmax()), coverage.shape[1])
        if coverage[number, row] < least:
            break
        if not found:
            coverage[np.abs(slopes - slopes[number]) > _SAME_FAMILY] = 0
        # Of equally good neighbours, within the tolerance, the one in the middle.
        equal = np.flatnonzero(coverage[number, row : row + 3] == coverage[number, row])
        found.append((float(row + equal[-1] / 2), float(slopes[number])))
        hide(row)
    return found


def _traced(
    darkness: FloatArray, response: FloatArray, mask: BoolArray, middle: float, slope: float, reach: int
) -> _Line | None:
    """Follows a line, which may be a little curved, from strip to strip; None if it is too light for a pixel of ink."""
    height, width = response.shape
    edges = np.linspace(0, width, _STRIPS // 2 + 1).round().astype(int)
    at = (edges[:-1] + edges[1:]) / 2
    model = middle + (at - width / 2) * slope
    offsets = np.arange(-reach - 1, reach + 2)
    means = np.add.reduceat(response, edges[:-1], axis=1) / np.diff(edges)
    rows = np.clip(np.rint(model).astype(int)[None] + offsets[:, None], 0, height - 1)
    near = np.clip(means[rows, np.arange(len(at))], 0, None) + 1e-9
    best = near.max(axis=0)
    centres = (near * offsets[:, None]).sum(axis=0) / near.sum(axis=0)
    clear = best > 0.3 * np.median(best)
    deviation = np.interp(at, at[clear], centres[clear]) if clear.any() else np.zeros(len(at))
    # A strip with a stroke in it may have led away.
    deviation = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(deviation, 4, mode="edge"), 9), axis=1)
    columns = np.arange(width)
    line = np.rint(np.interp(columns, at, deviation) + middle + (columns - width / 2) * slope)
    centre = np.clip(line, 0, height - 1).astype(np.int64)
    line_pixels = response[centre, columns] > 0.3 * np.median(best)
    above, below = _runs(mask, centre, 2 * reach)
    line_pixels &= mask[centre, columns]
    if not line_pixels.any():
        return None
    thickness = float(np.median((above + below + 1)[line_pixels]))
    # Between two rows a thin line is lighter than where it lies in one: its darkness is that of the darker places.
    return _Line(centre, thickness, float(np.quantile(darkness[centre, columns][line_pixels], 0.9)), slope)


def _runs(mask: BoolArray, centre: npt.NDArray[np.int64], longest: int) -> tuple[Any, Any]:
    """How many pixels of the mask follow without a gap above and below the centre of each column, up to `longest`."""
    columns = np.arange(mask.shape[1])
    filled = np.pad(mask, ((longest, longest), (0, 0)))
    steps = np.arange(1, longest + 1)[:, None]
    above = np.cumprod(filled[centre + longest - steps, columns], axis=0).sum(axis=0)
    below = np.cumprod(filled[centre + longest + steps, columns], axis=0).sum(axis=0)
    return above, below


def _remove(line: _Line, mask: BoolArray, darkness: FloatArray, removed: BoolArray, bands: BoolArray) -> None:
    """Adds to `removed` the columns of a line that hold nothing but it, and its surroundings to `bands`."""
    height, width = mask.shape
    columns = np.arange(width)
    most = int(np.ceil(1.4 * line.thickness)) + 1
    # The centre may be off by two pixels: the darkest one near it is in the line.
    near = np.clip(line.centre[None] + np.arange(-2, 3)[:, None], 0, height - 1)
    centre = near[np.argmax(darkness[near, columns], axis=0), columns]
    above, below = _runs(mask, centre, most + 2)
    alone = (above + below + 1 <= most) & (darkness[centre, columns] < 1.2 * line.darkness + 0.05)
    half = int(np.ceil(line.thickness / 2)) + 2
    for step in range(-half, half + 1):
        rows = line.centre + step
        inside = (rows >= 0) & (rows < height)
        bands[rows[inside], columns[inside]] = True
    for step in range(-most - 1, most + 2):
        rows = centre + step
        inside = alone & (step >= -above - 1) & (step <= below + 1) & (rows >= 0) & (rows < height)
        removed[rows[inside], columns[inside]] = True
