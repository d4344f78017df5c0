"""Finding the ink in pictures of synthetic glyphs, whose place is known. benchmarks/ink.py does it with real ones."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests import papers
from tfos_job.fonts import find_font
from tfos_job.formats.charset import level1
from tfos_job.inference.ink import BLANK, TOO_SMALL, find
from tfos_job.inference.ink_character import CUT_OFF, NO_STROKES, SEVERAL
from tfos_job.inference.ink_components import clusters, components
from tfos_job.local_jobs.synth import Hand, draw_characters, render_glyph

CHARACTERS = level1(3755).characters[::94]  # forty that differ much


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
    sides = [max(min(one[i + 2], other[i + 2]) - max(one[i], other[i]), 0) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two glyphs, as small as a network sees them."""
    seen = [np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX)) for pixels in (one, other)]
    return float(np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1])


def printed(character: str, em: int = 64) -> np.ndarray:
    """A tight crop of a font's glyph."""
    font = ImageFont.truetype(find_font(), em, layout_engine=ImageFont.Layout.BASIC)
    image = Image.new("L", (2 * em, 2 * em), 255)
    ImageDraw.Draw(image).text((em, em), character, fill=20, font=font, anchor="mm")
    pixels = np.asarray(image)
    left, top, right, bottom = papers.ink_box(pixels)
    return pixels[top:bottom, left:right]


@pytest.mark.parametrize("kind", papers.KINDS)
def test_ink_is_found_on_every_kind_of_paper(glyphs: list[np.ndarray], kind: str) -> None:
    for number, glyph in list(enumerate(glyphs))[::8]:
        picture, box = papers.KINDS[kind](glyph, np.random.default_rng(number))
        found = find(picture)
        assert overlap(found.box, box) > 0.8, CHARACTERS[number]
        if kind not in ("tilted", "combined"):  # which change the glyph itself
            assert likeness(found.pixels, glyph) > 0.75, CHARACTERS[number]
        assert found.inverted == (kind == "inverted")
        assert not found.doubtful
        assert found.pixels.dtype == np.uint8
        assert found.pixels.max() == 255


def test_a_tight_crop_stays_as_it_is(glyphs: list[np.ndarray]) -> None:
    for glyph in glyphs:
        found = find(glyph)
        assert overlap(found.box, (0, 0, glyph.shape[1], glyph.shape[0])) > 0.97
        assert likeness(found.pixels, glyph) > 0.97
        assert not found.inverted
        assert not found.doubtful


@pytest.mark.parametrize("character", "二三川国土王口匠")
def test_straight_strokes_are_no_lines_of_the_paper(character: str) -> None:
    for pixels in (printed(character), printed(character, 200)):
        for picture in (pixels, np.pad(pixels, 40, constant_values=255)):
            found = find(picture)
            assert likeness(found.pixels, pixels) > 0.95
            assert not found.inverted
            assert not found.doubtful


@pytest.mark.parametrize("character", "田王井十口")
@pytest.mark.parametrize(("pen", "margin"), [(3, 15), (8, 15), (8, 60)])
def test_straight_strokes_of_a_thin_pen_are_no_lines_of_the_paper(character: str, pen: int, margin: int) -> None:
    """A character that is drawn nearly as large as the picture, on paper without lines."""
    across, down = {
        "田": ((0, 0.5, 1), (0, 0.5, 1)),
        "王": ((0, 0.5, 1), (0.5,)),
        "井": ((0.33, 0.66), (0.33, 0.66)),
        "十": ((0.5,), (0.5,)),
        "口": ((0, 1), (0, 1)),
    }[character]
    side = 250
    pixels = np.full((side, side), 255, np.uint8)
    for share in across:
        pixels[round(share * (side - pen)) :][:pen] = 20
    for share in down:
        pixels[:, round(share * (side - pen)) :][:, :pen] = 20
    found = find(np.pad(pixels, margin, constant_values=255))
    assert found.box == (margin, margin, margin + side, margin + side)
    assert likeness(found.pixels, pixels) > 0.9
    assert not found.doubtful


@pytest.mark.parametrize("character", "一三国圆口田")
def test_white_on_black_is_turned_over(character: str) -> None:
    pixels = np.pad(printed(character), 20, constant_values=255)
    found = find(255 - pixels)
    assert found.inverted
    assert np.array_equal(found.pixels, find(pixels).pixels)


def frame() -> np.ndarray:
    """A 口 cropped to its strokes: its border is all ink."""
    pixels = np.zeros((20, 20), np.uint8)
    pixels[2:-2, 2:-2] = 255
    return pixels


def bar() -> np.ndarray:
    """A bold 一 with little margin: most of the picture is ink."""
    pixels = np.full((10, 40), 255, np.uint8)
    pixels[2:-2, 1:-1] = 30
    return pixels


@pytest.mark.parametrize(
    "glyph", [frame(), bar(), printed("十"), printed("十") // 4 + 60], ids=["口", "一", "十", "pale 十"]
)
def test_white_on_black_is_known_in_a_tight_crop(glyph: np.ndarray) -> None:
    upright, inverted = find(glyph), find(255 - glyph)
    assert (upright.inverted, inverted.inverted) == (False, True)
    assert upright.box == inverted.box
    assert np.array_equal(upright.pixels, inverted.pixels)
    assert (upright.doubtful, inverted.doubtful) == ("", "")


@pytest.mark.parametrize("paper", papers.PAPERS)
def test_a_page_without_ink_is_blank(paper: str) -> None:
    for seed in range(4):
        page = papers.blank(papers.PAPERS[paper], np.random.default_rng(seed))
        found = find(page)
        assert found.doubtful == BLANK
        assert found.box == (0, 0, page.shape[1], page.shape[0])
        assert found.pixels.min() == 255


def test_doubts() -> None:
    page = np.full((300, 300), 255, np.uint8)

    def doubt(*glyphs: tuple[int, int, np.ndarray], field: np.ndarray = page) -> str:
        picture = field.copy()
        for top, left, pixels in glyphs:
            cut = picture[top : top + pixels.shape[0], left : left + pixels.shape[1]]
            np.minimum(cut, pixels[: cut.shape[0], : cut.shape[1]], out=cut)
        return find(picture).doubtful

    glyph, block = printed("永"), np.zeros((80, 80), np.uint8)
    assert doubt((100, 100, glyph)) == ""
    assert doubt((100, 20, glyph), (100, 100, glyph), (100, 180, glyph)) == SEVERAL
    assert doubt((10, 20, glyph), (210, 220, glyph)) == SEVERAL
    assert doubt((100, 260, glyph)) == CUT_OFF
    assert doubt((100, 100, block)) == NO_STROKES
    assert doubt((100, 100, printed("永", 8))) == TOO_SMALL
    assert doubt((100, 100, np.zeros((6, 6), np.uint8)))
    assert doubt((100, 100, 255 - (255 - glyph) // 12)) == BLANK  # too light to be ink


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 3), (17, 900), (300, 400), (1300, 40)])
def test_no_picture_is_too_odd(shape: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    for level in (0, 1, 128, 254, 255):
        assert find(np.full(shape, level, np.uint8)).doubtful == BLANK
    rows, columns = np.indices(shape)
    odd = [
        draw.integers(0, 256, shape),
        draw.choice([0, 255], shape, p=[0.02, 0.98]),
        draw.choice([0, 255], shape),
        (rows + columns) % 2 * 255,
        (rows // 8 + columns // 8) % 2 * 255,
        columns * 255 // shape[1],
        rows % 6 // 5 * 255,
    ]
    for pixels in odd:
        found = find(pixels.astype(np.uint8))
        left, top, right, bottom = found.box
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]
        assert min(found.pixels.shape) >= 1


def test_noise_alone_is_no_character() -> None:
    draw = np.random.default_rng(0)
    for spread in (1, 5, 20, 60):
        noise = np.clip(draw.normal(128, spread, (200, 300)), 0, 255).astype(np.uint8)
        assert find(noise).doubtful


def test_a_small_character_on_a_large_page_keeps_its_pixels(glyphs: list[np.ndarray]) -> None:
    page = np.full((1500, 2100), 255, np.uint8)
    height, width = glyphs[3].shape
    page[900 : 900 + height, 300 : 300 + width] = glyphs[3]
    found = find(page)
    assert overlap(found.box, (300, 900, 300 + width, 900 + height)) > 0.95
    assert likeness(found.pixels, glyphs[3]) > 0.97


def test_a_large_character_is_scaled_to_the_size_of_training() -> None:
    pixels = printed("永", 700)
    found = find(np.pad(pixels, 200, constant_values=255))
    assert 100 <= max(found.pixels.shape) <= 160
    assert likeness(found.pixels, pixels) > 0.97


# --- connected parts --------------------------------------------------------------------------------------------------


def flooded(mask: np.ndarray) -> list[frozenset[tuple[int, int]]]:
    """The connected parts, pixel by pixel."""
    left, parts = set(zip(*(at.tolist() for at in np.nonzero(mask)), strict=True)), []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            part.add((row, column))
            near = {(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left
            left -= near
            edge += near
        parts.append(frozenset(part))
    return parts


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_components_are_those_of_a_flood(share: float) -> None:
    draw = np.random.default_rng(int(100 * share))
    for shape in ((1, 1), (1, 30), (30, 1), (17, 23), (40, 31)):
        mask = draw.random(shape) < share
        parts = components(mask)
        values = draw.random(shape)
        found = {}
        for number in range(len(parts)):
            pixels = parts.mask(np.arange(len(parts)) == number)
            rows, columns = np.nonzero(pixels)
            found[frozenset(zip(rows.tolist(), columns.tolist(), strict=True))] = number
            assert parts.boxes[number].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert parts.areas[number] == len(rows)
            assert parts.sums(values)[number] == pytest.approx(values[pixels].sum())
        assert found.keys() == set(flooded(mask))
        assert np.array_equal(parts.mask(np.ones(len(parts), bool)), mask)


def test_clusters_grow_by_what_they_have_reached() -> None:
    boxes = np.array([[0, 0, 10, 10], [14, 0, 24, 10], [34, 0, 44, 10], [90, 0, 100, 10]])
    assert sorted(sorted(group.tolist()) for group in clusters(boxes, 0.5)) == [[0, 1, 2], [3]]
