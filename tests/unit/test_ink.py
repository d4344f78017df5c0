"""Finding the ink in pictures of synthetic glyphs, whose place is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests import papers
from tfos_job.formats.charset import level1
from tfos_job.inference.ink import BLANK, find
from tfos_job.local_jobs.synth import Hand, draw_characters, render_glyph

CHARACTERS = level1(3755).characters[::400]  # ten that differ much


@pytest.fixture(scope="module")
def glyphs() -> list[np.ndarray]:
    """Tight crops, each in the hand of another writer."""
    drawings = draw_characters(CHARACTERS)
    return [
        render_glyph(drawing, Hand.of(0, writer), np.random.default_rng(writer))
        for writer, drawing in enumerate(drawings)
    ]


def overlap(one: papers.Box, other: papers.Box) -> float:
    """Intersection over union."""
    sides = [min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


@pytest.mark.parametrize("kind", ["tight", "small", "off_centre", "grey", "inverted", "thick", "thin", "tilted"])
def test_the_box_of_the_ink_is_found(glyphs: list[np.ndarray], kind: str) -> None:
    for number, glyph in enumerate(glyphs):
        picture, box = papers.KINDS[kind](glyph, np.random.default_rng(number))
        found = find(picture)
        assert overlap(found.box, box) > 0.8, CHARACTERS[number]
        assert found.inverted == (kind == "inverted")
        assert not found.doubtful


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 3), (700, 700)])
def test_a_page_of_any_size_without_ink_is_blank(shape: tuple[int, int]) -> None:
    for level in (0, 128, 255):
        found = find(np.full(shape, level, np.uint8))
        assert found.doubtful == BLANK
        assert found.pixels.min() == 255
        assert found.box == (0, 0, shape[1], shape[0])
