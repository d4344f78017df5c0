"""Pictures of a glyph as people take and draw them: on pages, ruled or not, in uneven light, with other pens.

Each function of `KINDS` takes a tight crop (dark ink, paper 255) and random numbers. It returns the picture and the box
of the ink in it: left, top, right and bottom, the latter two exclusive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

GreyArray = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
Random = np.random.Generator
Painter = Callable[[GreyArray, Random], tuple[GreyArray, Box]]


def tight(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """As it is in a GNT file."""
    return glyph, (0, 0, glyph.shape[1], glyph.shape[0])


def small(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """Within a page many times its size."""
    side = round(max(glyph.shape) * draw.uniform(5, 9))
    return _placed(glyph, (side, side), draw, centred=0.5)


def off_centre(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """Near a corner of a drawing field."""
    side = round(max(glyph.shape) * draw.uniform(2, 3.5))
    return _placed(glyph, (side, side), draw, centred=0.0)


def lined(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """On ruled paper; the lines may go through it."""
    page, box = _page(glyph, draw)
    return _ruled(page, draw, both=False), box


def squared(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """On squared paper."""
    page, box = _page(glyph, draw)
    return _ruled(page, draw, both=True), box


def grey(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """A photograph: uneven light on grey paper, blur and noise."""
    page, box = _page(glyph, draw)
    return photographed(page, draw), box


def thick(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """With a felt pen."""
    return _penned(glyph, draw, ImageFilter.MinFilter, 9)


def thin(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """With a fine pen."""
    return _penned(glyph, draw, ImageFilter.MaxFilter, 7)


def tilted(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """On a page that was not held straight: up to 8 degrees."""
    page, _ = _page(glyph, draw)
    turned = _turned(page, _tilt(draw))
    return turned, ink_box(turned)


def inverted(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """Chalk on a board."""
    page, box = _page(glyph, draw)
    return 255 - page, box


def combined(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """A photograph, not held straight, of ruled or squared paper."""
    page, _ = _page(glyph, draw)
    degrees = _tilt(draw)
    box = ink_box(_turned(page, degrees))
    ruled = _ruled(page, draw, both=bool(draw.integers(2)))
    return photographed(_turned(ruled, degrees), draw), box


KINDS: dict[str, Painter] = {
    painter.__name__: painter
    for painter in (tight, small, off_centre, lined, squared, grey, thick, thin, tilted, inverted, combined)
}


@dataclass(frozen=True)
class Paper:
    """How a page without ink is made."""

    ruled: bool = False
    squared: bool = False
    photographed: bool = False
    tilted: bool = False
    inverted: bool = False


PAPERS: dict[str, Paper] = {
    "white": Paper(),
    "black": Paper(inverted=True),
    "lined": Paper(ruled=True),
    "squared": Paper(squared=True),
    "grey": Paper(photographed=True),
    "grey lined": Paper(ruled=True, photographed=True, tilted=True),
    "grey squared": Paper(squared=True, photographed=True, tilted=True),
}


def blank(paper: Paper, draw: Random) -> GreyArray:
    """A page without ink."""
    page = np.full((draw.integers(150, 500), draw.integers(150, 500)), 255, np.uint8)
    if paper.ruled or paper.squared:
        page = _ruled(page, draw, both=paper.squared)
    if paper.tilted:
        page = _turned(page, _tilt(draw))
    if paper.photographed:
        page = photographed(page, draw)
    return 255 - page if paper.inverted else page


# --- what pictures are made of ----------------------------------------------------------------------------------------


def ink_box(page: GreyArray) -> Box:
    """The box of what is darker than 200 on white paper."""
    rows, columns = np.flatnonzero((page < 200).any(axis=1)), np.flatnonzero((page < 200).any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def photographed(page: GreyArray, draw: Random) -> GreyArray:
    """Grey paper in light that falls off to one side, with a shadow, a little out of focus, with a sensor's noise."""
    height, width = page.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = draw.uniform(0, 2 * np.pi)
    light = draw.uniform(150, 225) + draw.uniform(15, 45) * (x * np.cos(angle) + y * np.sin(angle))
    light -= draw.uniform(0, 25) * (x * x + y * y)
    # The soft edge of a hand's shadow.
    edge = x * np.cos(angle + 1) + y * np.sin(angle + 1) - draw.uniform(-0.5, 0.5)
    light *= 1 - draw.uniform(0, 0.25) / (1 + np.exp(-edge * draw.uniform(5, 15)))
    # Ink reflects a little as well, and a page's fibres are seen.
    reflectance = 0.12 + 0.88 * page / 255
    coarse = Image.fromarray(draw.normal(0, 1, (height // 2 + 1, width // 2 + 1)).astype(np.float32))
    fibres = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    picture = light * reflectance * (1 + 0.02 * fibres)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 0.9)))
    noisy = np.asarray(image) + draw.normal(0, draw.uniform(2, 6), page.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _page(glyph: GreyArray, draw: Random) -> tuple[GreyArray, Box]:
    """A page of two to four times the glyph's size."""
    side = max(glyph.shape) * draw.uniform(2, 4)
    size = (round(side * draw.uniform(1, 1.3)), round(side * draw.uniform(1, 1.3)))
    return _placed(glyph, size, draw, centred=0.6)


def _placed(glyph: GreyArray, size: tuple[int, int], draw: Random, *, centred: float) -> tuple[GreyArray, Box]:
    """Puts a glyph on white paper of (height, width), somewhere; `centred` 1 is its middle."""
    page = np.full(size, 255, np.uint8)
    free = np.array(size) - glyph.shape
    share = 0.5 + (1 - centred) * draw.uniform(-0.42, 0.42, 2)
    if not centred:
        share = draw.choice([0.06, 0.94], 2)
    top, left = (free * share).astype(int)
    height, width = glyph.shape
    page[top : top + height, left : left + width] = glyph
    return page, (int(left), int(top), int(left) + width, int(top) + height)


def _ruled(page: GreyArray, draw: Random, *, both: bool) -> GreyArray:
    """Draws lines, light or dark, a bit tilted."""
    height, width = page.shape
    scale = 4
    image = Image.new("L", (width * scale, height * scale), 255)
    pen = ImageDraw.Draw(image)
    pitch = draw.uniform(0.1, 0.3) * min(page.shape)
    thickness = draw.uniform(0.8, 2.2) * max(1.0, min(page.shape) / 400)
    level = int(draw.uniform(60, 215))
    slope = np.tan(np.radians(draw.uniform(-1.5, 1.5)))
    reach = 2 * max(page.shape)
    for offset in np.arange(-height + draw.uniform(0, pitch), 2 * height, pitch):
        ends = [(-reach, offset - slope * reach), (reach, offset + slope * reach)]
        pen.line([(x * scale, y * scale) for x, y in ends], fill=level, width=round(thickness * scale))
    for offset in np.arange(-width + draw.uniform(0, pitch), 2 * width, pitch) if both else ():
        ends = [(offset + slope * reach, -reach), (offset - slope * reach, reach)]
        pen.line([(x * scale, y * scale) for x, y in ends], fill=level, width=round(thickness * scale))
    lines = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return np.minimum(page, lines)


def _penned(glyph: GreyArray, draw: Random, pen: Any, size: int) -> tuple[GreyArray, Box]:
    """Draws with another pen, on a page of four times the pixels."""
    large = Image.fromarray(np.pad(glyph, 3, constant_values=255))
    large = large.resize((large.width * 4, large.height * 4), Image.Resampling.BICUBIC)
    changed = np.asarray(large.filter(pen(size)))
    page, _ = _page(changed, draw)
    return page, ink_box(page)


def _tilt(draw: Random) -> float:
    return float(draw.choice([-1, 1]) * draw.uniform(3, 8))


def _turned(page: GreyArray, degrees: float) -> GreyArray:
    """Turns a page, and cuts off the corners."""
    height, width = page.shape
    # The largest cut that has no corner, of about the same shape.
    turned = Image.fromarray(page).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=255)
    angle = abs(np.radians(degrees))
    cut = (width * np.sin(angle) / 2, height * np.sin(angle) / 2)
    x, y = int(cut[1]) + 1, int(cut[0]) + 1
    return np.ascontiguousarray(np.asarray(turned)[y : height - y, x : width - x])
