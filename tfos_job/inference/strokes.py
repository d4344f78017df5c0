"""Strokes of a pen, drawn as training pictures look: the one raster of whoever serves drawings. numpy alone.

The same strokes give the same pixels on every machine. Coordinates become whole numbers by one subtraction and one
multiplication each, which IEEE 754 defines to the last bit; all that follows is integer arithmetic. A stroke's edge is
a ramp one pixel wide: a pixel's level depends on the distance from its centre to the nearest centre line.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfos_job.errors import BadDataError
from tfos_job.inference.ink_statistics import TYPICAL, InkStatistics

GreyArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

MAX_POINTS = 20_000
"""Of a drawing: a pen that is sampled a thousand times a second makes as many in twenty seconds."""

MAX_STROKES = 500

_UNIT = 64  # of coordinates, to a pixel
_LEVELS = 255
_FINER = 0.75  # of training's strokes: the mean of them has what runs together; broader ones would be misread
_NEAR = 2 * _UNIT  # points nearer to each other than two pixels are one, but for a stroke's end
_PIECE = 16 * _UNIT  # longest piece of a line: what is looked at around it is the square of it
_MAX_PATH = 100  # times the longer side of the drawing: no character has so much of it
_LEAST_EXTENT = 1 / 20  # of the canvas: a smaller drawing, such as one dot, is not enlarged to the whole picture
_NEXT = "Draw one character"
_FAR = 16.0  # times the canvas, from its origin: coordinates are of something else


def draw(strokes: Sequence[Any], size: Sequence[Any], like: InkStatistics = TYPICAL) -> GreyArray:
    """Draws strokes with a round pen, cropped, like the ink of training pictures.

    Where on the canvas they are, and how large, makes no difference.

    Args:
      strokes: in drawing order, each a list of points [x, y]; y grows downwards. A stroke of one point is a dot.
      size: width and height of the canvas, in the unit of the points.
      like: what the pictures of training look like.

    Returns:
      uint8 [h, w]: paper is 255, ink `like.ink_level`. The longer side is `like.side`, and the ink touches all
      four sides; or the picture is `like.sheet`, and the ink in the middle of it.

    Raises:
      BadDataError: there is no stroke, or not one of them is of finite numbers; there are too many points, or more of
        strokes than any character has.
    """
    lines = _lines(strokes)
    extent = _extent(size, lines)
    side = like.side if like.sheet is None else min(like.side, *like.sheet)
    width = min(max(round(_FINER * like.stroke_width * side * _UNIT), _UNIT), side * _UNIT // 2)
    placed, height_width = _placed(lines, extent, side * _UNIT - width)
    if like.sheet is not None:
        sheet = like.sheet[1], like.sheet[0]
    elif max(height_width) < side * _UNIT - width:  # less than `_LEAST_EXTENT`
        sheet = side, side
    else:
        height, across = (-(-(length + width) // _UNIT) for length in height_width)
        sheet = height, across
    top, left = ((paper * _UNIT - length) // 2 for paper, length in zip(sheet, height_width, strict=True))
    path = sum(int(np.abs(np.diff(line, axis=0)).max(axis=1).sum()) for line in placed)
    if path > _MAX_PATH * side * _UNIT:
        raise BadDataError("the strokes are longer than those of any character", place="strokes", next_step=_NEXT)
    pieces = [piece for line in placed for piece in _pieces(line + np.array([left, top]))]
    darkness = (255 - _inked(pieces, sheet, width).astype(np.int64)) * (255 - like.ink_level)
    return (255 - (darkness + 127) // 255).astype(np.uint8)


def _lines(strokes: Sequence[Any]) -> list[npt.NDArray[np.float64]]:
    """The strokes as arrays [n, 2]."""
    if not isinstance(strokes, Sequence) or isinstance(strokes, str | bytes) or not len(strokes):
        raise BadDataError("there is no stroke", place="strokes", next_step='Give "strokes": [[[x, y], …], …]')
    if len(strokes) > MAX_STROKES:
        raise BadDataError(f"{len(strokes)} strokes are more than {MAX_STROKES}", place="strokes", next_step=_NEXT)
    num_points = sum(len(stroke) if isinstance(stroke, Sequence | np.ndarray) else 1 for stroke in strokes)
    if num_points > MAX_POINTS:
        raise BadDataError(f"{num_points} points are more than {MAX_POINTS}", place="strokes", next_step=_NEXT)
    return [_line(stroke, f"strokes[{number}]") for number, stroke in enumerate(strokes)]


def _line(stroke: Any, place: str) -> npt.NDArray[np.float64]:
    try:
        points = np.asarray(stroke if _holds_numbers(stroke) else None)
    except (ValueError, OverflowError):  # lists of different lengths; numbers above all types
        points = np.empty(0, object)
    if points.dtype.kind not in "iuf" or points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise BadDataError("a stroke is not a list of points [x, y]", place=place, next_step="Give numbers in pairs")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise BadDataError("a coordinate is not a finite number", place=place, next_step="Give numbers in pairs")
    return points


def _holds_numbers(stroke: Any) -> bool:
    """True for points of numbers. Of texts numpy would make an array with room for the longest one in each place."""
    if isinstance(stroke, np.ndarray):
        return True
    is_list = isinstance(stroke, Sequence) and all(isinstance(point, Sequence | np.ndarray) for point in stroke)
    return is_list and all(isinstance(value, int | float | np.number) for point in stroke for value in point)


def _extent(size: Sequence[Any], lines: list[npt.NDArray[np.float64]]) -> tuple[npt.NDArray[np.float64], float]:
    """The upper left corner of the drawing, and the length that becomes the picture's longer side."""
    if not isinstance(size, Sequence) or len(size) != 2 or not all(_is_length(length) for length in size):
        raise BadDataError(
            "the size of the canvas is not two numbers above 0", place="size", next_step='Give "size": [width, height]'
        )
    canvas = float(max(size))
    points = np.concatenate(lines)
    if np.abs(points).max() > _FAR * canvas:
        raise BadDataError(
            "points lie far outside of the canvas", place="strokes", next_step="Give points and size in the same unit"
        )
    corner = points.min(axis=0)
    return corner, max(float((points.max(axis=0) - corner).max()), _LEAST_EXTENT * canvas)


def _is_length(length: Any) -> bool:
    return isinstance(length, int | float) and not isinstance(length, bool) and 1e-6 < length < 1e6


def _placed(
    lines: list[npt.NDArray[np.float64]], extent: tuple[npt.NDArray[np.float64], float], longest: int
) -> tuple[list[IntArray], tuple[int, int]]:
    """Lines in units of the picture, from 0 on, and the height and width of their box."""
    corner, length = extent
    placed = [np.rint((line - corner) * (longest / length)).astype(np.int64) for line in lines]
    width, height = (int(side) for side in np.concatenate(placed).max(axis=0))
    return placed, (height, width)


def _pieces(line: IntArray) -> list[tuple[int, int, int, int]]:
    """The line in pieces (x, y, x, y) that are short, but not very short; of a dot, one piece."""
    first, *rest = line.tolist()
    kept = [first]
    for x, y in rest[:-1]:
        if max(abs(x - kept[-1][0]), abs(y - kept[-1][1])) >= _NEAR:
            kept.append([x, y])
    kept.append(rest[-1] if rest else first)
    pieces = []
    for (left, top), (right, bottom) in itertools.pairwise(kept):
        along_x, along_y = right - left, bottom - top
        num = max(1, -(-max(abs(along_x), abs(along_y)) // _PIECE))
        cuts = [(left + along_x * k // num, top + along_y * k // num) for k in range(num + 1)]
        pieces += [(*start, *end) for start, end in itertools.pairwise(cuts)]
    return pieces


def _inked(pieces: list[tuple[int, int, int, int]], sheet: tuple[int, int], width: int) -> GreyArray:
    """The picture of pieces with round ends, `width` units wide: paper is 255, ink 0."""
    height, across = sheet
    far = np.int64(1) << 40
    squares = np.full(sheet, far)  # of the distance from each pixel's centre to the nearest line
    reach = width // 2 + _UNIT
    for piece in pieces:
        (left, right), (top, bottom) = (
            (max((min(ends) - reach) // _UNIT, 0), min((max(ends) + reach) // _UNIT + 1, length))
            for ends, length in ((piece[::2], across), (piece[1::2], height))
        )
        around = squares[top:bottom, left:right]
        x = np.arange(left, right) * _UNIT + _UNIT // 2
        y = (np.arange(top, bottom) * _UNIT + _UNIT // 2)[:, np.newaxis]
        np.minimum(around, _squared_distances(x, y, piece), out=around)
    # From paper to ink in 255 steps, while the edge passes over a pixel; the distances of the steps are in 1/510 units.
    steps = _LEVELS * width + _UNIT * (_LEVELS - 1 - 2 * np.arange(_LEVELS))
    limits = np.sort(np.sign(steps) * steps**2 // (2 * _LEVELS) ** 2)
    return (np.searchsorted(limits, squares.ravel(), side="left")).astype(np.uint8).reshape(sheet)


def _squared_distances(x: IntArray, y: IntArray, piece: tuple[int, int, int, int]) -> IntArray:
    """The squares of the distances of points to a piece of a line, rounded down."""
    left, top, right, bottom = piece
    along_x, along_y = right - left, bottom - top
    x, y = x - left, y - top
    from_start = x * x + y * y
    length = along_x * along_x + along_y * along_y
    if not length:
        return from_start
    along = x * along_x + y * along_y
    across = x * along_y - y * along_x
    from_end = (x - along_x) ** 2 + (y - along_y) ** 2
    return np.where(along <= 0, from_start, np.where(along >= length, from_end, across * across // length))
