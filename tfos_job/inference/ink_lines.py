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

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[Any]

MAX_THICKNESS = 0.013
"""Of a line, as a share of the picture's side along it: what is thicker is a stroke."""
_MIN_SIDE = 48  # pixels: no line is a pixel wide in less
_STRIPS = 48
_MAX_SLOPE = 0.18  # 10 degrees
_MIN_COVERAGE = 0.72  # strips of a line where it is seen: strokes hide it elsewhere
_MIN_ENDS = 0.5  # the same, in the fifths at both ends: a line goes through the whole picture
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
    """The centre in each column, int64 [w], and the thickness."""

    centre: npt.NDArray[np.int64]
    thickness: float
    slope: float


def find_lines(darkness: FloatArray, noise: float, threshold: float, max_thickness: float | None = None) -> Lines:
    """Finds lines in both directions.

    Args:
      darkness: float32 [h, w], 0 is paper.
      noise: standard deviation of the paper's.
      threshold: darkness from which a pixel is ink or line.
      max_thickness: pixels; by default a share of the side.
    """
    across = _one_direction(darkness, noise, threshold, max_thickness)
    down = _one_direction(darkness.T, noise, threshold, max_thickness)
    slopes = [lines.slope for lines in (across, down) if lines.thickness]
    # A square's other side leans the other way.
    slope = across.slope if across.thickness else -down.slope
    return Lines(
        across.removed | down.removed.T,
        across.bands | down.bands.T,
        slope if slopes else 0.0,
        max(across.thickness, down.thickness),
    )


def _one_direction(darkness: FloatArray, noise: float, threshold: float, max_thickness: float | None) -> Lines:
    height, width = darkness.shape
    removed, bands = np.zeros((height, width), bool), np.zeros((height, width), bool)
    nothing = Lines(removed, bands, 0.0, 0.0)
    if min(height, width) < _MIN_SIDE:
        return nothing
    limit = MAX_THICKNESS * width if max_thickness is None else max_thickness
    reach = max(2, round(1.5 * limit))
    response = _thin(darkness, reach)
    mask = darkness > threshold
    found = []
    for middle, slope in _candidates(response, noise, reach):
        line = _traced(response, mask, middle, slope, reach)
        if line.thickness <= limit:
            found.append(line)
    for line in found:
        _remove(line, mask, darkness, removed, bands)
    if not found:
        return nothing
    return Lines(removed, bands, float(np.median([x.slope for x in found])), max(x.thickness for x in found))


def _thin(darkness: FloatArray, reach: int) -> FloatArray:
    """How much darker a pixel is than those `reach` above and below: thin, nearly horizontal things."""
    filled = np.pad(darkness, ((reach, reach), (0, 0)), mode="edge")
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
    tolerant = np.pad(tolerant, ((height, height), (0, 0)))
    offsets = (edges[:-1] + edges[1:]) / 2 - width / 2
    slopes = np.linspace(-_MAX_SLOPE, _MAX_SLOPE, 2 * int(_MAX_SLOPE * width / 1.5) + 1)
    coverage = np.empty((len(slopes), height), np.float32)
    rows = np.arange(height)[:, None] + height
    fifth = _STRIPS // 5
    for number, slope in enumerate(slopes):
        along = tolerant[rows + np.rint(offsets * slope).astype(int), np.arange(_STRIPS)]
        ends = np.minimum(along[:, :fifth].mean(axis=1), along[:, -fifth:].mean(axis=1))
        coverage[number] = np.where(ends >= _MIN_ENDS, along.mean(axis=1), 0)
    found: list[tuple[float, float]] = []
    while len(found) < _MAX_LINES:
        number, row = divmod(int(coverage.argmax()), height)
        if coverage[number, row] < _MIN_COVERAGE:
            break
        if not found:
            coverage[np.abs(slopes - slopes[number]) > _SAME_FAMILY] = 0
        # Of equally good neighbours, within the tolerance, the one in the middle.
        equal = np.flatnonzero(coverage[number, row : row + 3] == coverage[number, row])
        middle = row + equal[-1] / 2
        found.append((float(middle), float(slopes[number])))
        coverage[:, max(0, row - reach - 1) : row + reach + 2] = 0
    return found


def _traced(response: FloatArray, mask: BoolArray, middle: float, slope: float, reach: int) -> _Line:
    """Follows a line, which may be a little curved, from strip to strip."""
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
    deviation = np.convolve(np.pad(deviation, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    columns = np.arange(width)
    line = np.rint(np.interp(columns, at, deviation) + middle + (columns - width / 2) * slope)
    centre = np.clip(line, 0, height - 1).astype(np.int64)
    line_pixels = response[centre, columns] > 0.3 * np.median(best)
    above, below = _runs(mask, centre, 2 * reach)
    thick = (above + below + 1)[line_pixels & mask[centre, columns]]
    return _Line(centre, float(np.median(thick)) if thick.size else 1.0, slope)


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
    # The centre may be off by a pixel: the darkest one near it is in the line.
    near = np.clip(line.centre[None] + np.arange(-1, 2)[:, None], 0, height - 1)
    centre = near[np.argmax(darkness[near, columns], axis=0), columns]
    above, below = _runs(mask, centre, most + 2)
    alone = above + below + 1 <= most
    half = int(np.ceil(line.thickness / 2)) + 2
    for step in range(-half, half + 1):
        rows = line.centre + step
        inside = (rows >= 0) & (rows < height)
        bands[rows[inside], columns[inside]] = True
    for step in range(-most - 1, most + 2):
        rows = centre + step
        inside = alone & (step >= -above - 1) & (step <= below + 1) & (rows >= 0) & (rows < height)
        removed[rows[inside], columns[inside]] = True
