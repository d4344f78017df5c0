"""The raster of strokes: the same pixels everywhere, whatever the place and size of the drawing; and ink measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfos_job.errors import BadDataError
from tfos_job.inference import strokes
from tfos_job.inference.ink_statistics import TYPICAL, InkStatistics, measure
from tfos_job.inference.strokes import draw

YONG = [  # 永, roughly
    [[140, 40], [165, 66]],
    [[90, 92], [152, 90], [150, 240], [118, 222]],
    [[40, 142], [108, 138], [92, 186], [34, 232]],
    [[226, 96], [190, 128], [156, 142]],
    [[154, 146], [190, 196], [252, 234]],
]
SIZE = [280, 280]
ONE = [[[20.5, 100], [90, 97.25], [180, 101]]]
LOOPS = [[[(7 * k * k) % 211 / 2, (5 * k * k + 3 * k) % 223 / 2] for k in range(40)], [[30, 30]]]
SHEET = dataclasses.replace(TYPICAL, side=24, sheet=(64, 48))
BOLD = dataclasses.replace(TYPICAL, stroke_width=0.12, side=64, ink_level=0)

DIGESTS = [
    (YONG, TYPICAL, "a629f350873b69cd6fcdb62e523612c4", (80, 86)),
    (YONG, BOLD, "86f976d81283eb3bec72d76820215d10", (60, 64)),
    (YONG, SHEET, "8e2993e50e2adfc6a8e21be82d40d498", (48, 64)),
    (ONE, TYPICAL, "8dfe9ead6efe8254676f36f85749faf8", (6, 86)),
    (LOOPS, TYPICAL, "9e64911f19776c6698796709cecbf3c4", (86, 85)),
    ([[[3, 4]]], TYPICAL, "86fcdf564d83f095bf298420f8a0b973", (86, 86)),
]


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:32]


@pytest.mark.parametrize(("drawn", "like", "expected", "shape"), DIGESTS)
def test_the_pixels_are_the_same_on_every_machine(
    drawn: list[Any], like: InkStatistics, expected: str, shape: tuple[int, int]
) -> None:
    """A network answers about these pixels: a change of the raster changes answers, and needs accuracies measured."""
    pixels = draw(drawn, SIZE, like)
    assert pixels.dtype == np.uint8
    assert pixels.shape == shape
    assert digest(pixels) == expected


@pytest.mark.parametrize("drawn", [YONG, ONE])
@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x / 2, y / 2),
        lambda x, y: (4 * x, 4 * y),
        lambda x, y: (x + 17, y - 29),
        lambda x, y: (x / 4 + 100.5, y / 4 + 3),
    ],
)
def test_place_and_size_on_the_canvas_make_no_difference(drawn: list[Any], change: Callable[..., Any]) -> None:
    moved = [[change(x, y) for x, y in stroke] for stroke in drawn]
    np.testing.assert_array_equal(draw(moved, [560, 700]), draw(drawn, SIZE))


def test_neither_do_the_order_of_strokes_and_repeated_points() -> None:
    other = [[point for point in stroke for _ in range(3)] for stroke in YONG[::-1]]
    np.testing.assert_array_equal(draw(other, SIZE), draw(YONG, SIZE))


def test_the_ink_touches_the_sides_of_a_crop() -> None:
    pixels = draw(YONG, SIZE)
    assert max(pixels.shape) == TYPICAL.side
    dark = pixels < 170
    assert dark.any(axis=0)[[0, -1]].all()
    assert dark.any(axis=1)[[0, -1]].all()
    assert pixels.min() == TYPICAL.ink_level
    assert pixels.max() == 255


def test_a_sheet_has_its_size_and_the_ink_in_its_middle() -> None:
    pixels = draw(YONG, SIZE, SHEET)
    assert pixels.shape == (48, 64)
    rows, columns = (np.flatnonzero((pixels < 200).any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(SHEET.side, abs=1)
    assert rows.min() + rows.max() == pytest.approx(47, abs=1)
    assert columns.min() + columns.max() == pytest.approx(63, abs=1)


def test_a_dot_is_round_and_not_enlarged() -> None:
    pixels = draw([[[50, 60]]], SIZE)
    assert pixels.shape == (86, 86)
    radius = strokes._FINER * TYPICAL.stroke_width * 86 / 2
    ink = (255 - pixels.astype(int)) / (255 - TYPICAL.ink_level)
    assert ink.sum() == pytest.approx(math.pi * radius**2, rel=0.03)
    np.testing.assert_array_equal(pixels, pixels.T)
    np.testing.assert_array_equal(pixels, pixels[::-1, ::-1])


def test_lines_are_as_wide_as_they_should_be_in_every_direction() -> None:
    like = dataclasses.replace(TYPICAL, side=100, stroke_width=0.08 / strokes._FINER, ink_level=0)
    for degrees in range(0, 180, 15):
        x, y = 100 * math.cos(math.radians(degrees)), 100 * math.sin(math.radians(degrees))
        pixels = draw([[[200 - x, 200 - y], [200 + x, 200 + y]]], [400, 400], like)
        length = 92 * math.hypot(x, y) / max(abs(x), abs(y))
        ink = (255 - pixels.astype(int)).sum() / 255
        assert ink == pytest.approx(8 * length + math.pi * 4**2, rel=0.02)


BAD = {
    "no stroke": ([], SIZE),
    "an empty stroke": ([[[1, 2]], []], SIZE),
    "NaN": ([[[1, math.nan]]], SIZE),
    "infinite": ([[[1, math.inf]]], SIZE),
    "huge": ([[[10**400, 1]]], SIZE),
    "far": ([[[1e30, 1]]], SIZE),
    "text": ([[["1", "2"]]], SIZE),
    "long text": ([[["1" * 10_000_000, "2"], *[["1", "2"]] * (strokes.MAX_POINTS - 1)]], SIZE),  # 1.6 TB as an array
    "none": ([[None]], SIZE),
    "true": ([[[True, False]]], SIZE),
    "three numbers": ([[[1, 2, 3]]], SIZE),
    "points for strokes": ([[1, 2], [3, 4]], SIZE),
    "of two lengths": ([[[1, 2], [3]]], SIZE),
    "an object": ({"a": 1}, SIZE),
    "a text": ("永", SIZE),
    "a number": (3, SIZE),
    "no size": (ONE, None),
    "one size": (ONE, [280]),
    "size 0": (ONE, [280, 0]),
    "size of nearly 0": ([[[5e-324, 0], [0, 0]]], [5e-324, 5e-324]),
    "size NaN": (ONE, [280, math.nan]),
    "size in text": (ONE, ["280", "280"]),
    "too many points": ([[[k % 280, 1] for k in range(strokes.MAX_POINTS + 1)]], SIZE),
    "too many strokes": ([[[1, 1]]] * (strokes.MAX_STROKES + 1), SIZE),
    "a scribble": ([[[280 * (k % 2), k % 280] for k in range(strokes.MAX_POINTS)]], SIZE),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_drawing_is_refused_in_words(name: str) -> None:
    with pytest.raises(BadDataError) as refused:
        draw(*BAD[name])  # type: ignore[arg-type]
    assert refused.value.fact
    assert refused.value.place
    assert refused.value.next_step


# --- ink that is measured ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 86, 128])
@pytest.mark.parametrize("stroke_width", [0.04, 0.06, 0.1])
def test_a_drawing_measures_as_it_was_drawn(side: int, stroke_width: float) -> None:
    like = InkStatistics(stroke_width=stroke_width / strokes._FINER, ink_share=0, ink_level=0, side=side)
    found = measure([draw(YONG, SIZE, like), np.full((20, 20), 255, np.uint8), draw(ONE, SIZE, like)])
    assert found is not None
    assert found.stroke_width == pytest.approx(stroke_width, rel=0.06)
    assert (found.side, found.sheet, found.num_pictures, found.ink_level) == (side, None, 2, 0)


def test_light_ink_on_sheets_is_measured() -> None:
    found = measure([draw(YONG, SIZE, dataclasses.replace(TYPICAL, side=40, sheet=(64, 64), ink_level=153))] * 3)
    assert found is not None
    assert found.sheet == (64, 64)
    assert found.side == pytest.approx(40, abs=1)
    assert found.stroke_width == pytest.approx(strokes._FINER * TYPICAL.stroke_width, rel=0.15)
    assert found.ink_level == pytest.approx(153, abs=8)


def test_without_ink_there_is_nothing_to_measure() -> None:
    assert measure([]) is None
    assert measure([np.full((9, 9), 255, np.uint8), np.full((1, 1), 250, np.uint8)]) is None


@pytest.mark.parametrize("statistics", [TYPICAL, SHEET])
def test_statistics_come_back_from_json(statistics: InkStatistics) -> None:
    assert InkStatistics.from_json(json.loads(json.dumps(statistics.to_json() | {"later": 1}))) == statistics


@pytest.mark.parametrize(
    "change",
    [{"side": None}, {"side": 0}, {"stroke_width": math.nan}, {"sheet": [64]}, {"sheet": [1, 1]}, {"side": "x"}],
)
def test_statistics_that_no_ink_has_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadDataError):
        InkStatistics.from_json(TYPICAL.to_json() | change)


if __name__ == "__main__":
    for drawn, like, *_ in DIGESTS:
        made = draw(drawn, SIZE, like)
        print(digest(made), made.shape)
