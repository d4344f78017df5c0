"""Sheets of images with names: the contact sheet, the confusions, the hardest images. Uses Pillow alone.

Pixels are uint8 [S, S, C], as the network sees them. They are enlarged by an integer factor, so that each is a square.
Images of more than `_LARGEST` pixels are reduced.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tfos_job.reports.figure import GREEN, INK, LINE, MUTED, RED
from tfos_job.reports.lettering import fitted, legible, width_of, write

MARGIN, GAP, HEAD = 24, 8, 84
_GOOD, _LARGEST = 96, 128  # pixels a side of a tile
_TITLE, _TEXT, _SMALL = 22, 15, 13  # pixels of an em
_MOST_WIDTH = 1180


def side_of(image_size: int) -> int:
    """Returns the side of the tile for an image of `image_size`, in pixels."""
    return _LARGEST if image_size > _LARGEST else image_size * max(1, round(_GOOD / image_size))


def enlarged(pixels: np.ndarray) -> Image.Image:
    """Returns the tile of an image, uint8 [S, S, C] with C 1 or 3."""
    side = side_of(pixels.shape[0])
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
    return image.resize((side, side), Image.Resampling.NEAREST if side >= pixels.shape[0] else Image.Resampling.BOX)


class _Sheet:
    """A white page with a title, for tiles and text. Lengths are in pixels, from the upper left corner."""

    def __init__(self, width: int, height: int, title: str, subtitle: str) -> None:
        width = max(width, round(width_of(legible(subtitle), _SMALL)) + 2 * MARGIN)
        self._image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self._image)
        self.text(MARGIN, 40, title, width - 2 * MARGIN, size=_TITLE)
        self.text(MARGIN, 64, subtitle, width - 2 * MARGIN, size=_SMALL, fill=MUTED)

    def text(
        self,
        x: float,
        baseline: float,
        text: str,
        width: float,
        *,
        size: int = _TEXT,
        fill: str = INK,
        middle: bool = False,
    ) -> None:
        text = fitted(text, size, width)
        if middle:
            x += (width - width_of(text, size)) / 2
        write(self._draw, round(x), baseline, text, size=size, fill=fill)

    def tile(self, x: int, y: int, pixels: np.ndarray | None, side: int, edge: str = LINE) -> None:
        """Draws an image with a frame; None draws an empty frame."""
        thick = 1 if edge == LINE else 2
        if pixels is None:
            self._draw.rectangle((x, y, x + side - 1, y + side - 1), outline=LINE)
            self.text(x, y + side / 2 + 5, "none", side, size=_SMALL, fill=MUTED, middle=True)
            return
        self._draw.rectangle(
            (x - thick, y - thick, x + side - 1 + thick, y + side - 1 + thick), outline=edge, width=thick
        )
        self._image.paste(enlarged(pixels), (x, y))

    def png(self) -> bytes:
        stream = io.BytesIO()
        self._image.save(stream, "PNG", optimize=False)
        return stream.getvalue()


def contact_sheet(
    names: Sequence[str],
    stored: np.ndarray,
    augmented: np.ndarray,
    *,
    title: str,
    subtitle: str,
    heading: str = "augmented",
) -> bytes:
    """Records before augmentation and after, as a PNG.

    Args:
      names: of each record's class, n of them.
      stored: uint8 [n, S, S, C].
      augmented: uint8 [n, V, S, S, C], V versions of each; V may be 0.
      title: what is shown.
      subtitle: how it was chosen.
      heading: over the versions.
    """
    side = side_of(stored.shape[1])
    versions = augmented.shape[1]
    group = side + (2 * GAP + versions * (side + GAP) - GAP if versions else 0)
    spacing = 4 * GAP if versions else GAP + GAP // 2
    columns = max(1, min(len(names), (_MOST_WIDTH - 2 * MARGIN + spacing) // (group + spacing)))
    rows = -(-len(names) // columns)
    top = HEAD + (20 if versions else 0)
    row_height = side + 30
    width = 2 * MARGIN + columns * (group + spacing) - spacing
    sheet = _Sheet(width, top + rows * row_height + MARGIN // 2, title, subtitle)
    for column in range(columns if versions else 0):
        x = MARGIN + column * (group + spacing)
        sheet.text(x, top - 8, "stored", side, size=_SMALL, fill=MUTED)
        sheet.text(x + side + 2 * GAP, top - 8, heading, group - side, size=_SMALL, fill=MUTED)
    for number, name in enumerate(names):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * (group + spacing), top + row * row_height
        sheet.tile(x, y, stored[number], side)
        sheet.text(x, y + side + 18, name, group, middle=not versions)
        for version in range(versions):
            sheet.tile(x + side + 2 * GAP + version * (side + GAP), y, augmented[number, version], side)
    return sheet.png()


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """A row of `confusions`. `right` has a correctly recognised image of the true and of the predicted class."""

    label: str
    predicted: str
    num_records: int
    rate: float
    wrong: Sequence[np.ndarray]
    right: tuple[np.ndarray | None, np.ndarray | None]


def confusions(pairs: Sequence[ConfusedPair], image_size: int, most_wrong: int, *, title: str, subtitle: str) -> bytes:
    """Draws pairs of classes that are confused, with images of both; returns a PNG.

    Args:
      pairs: a row each.
      image_size: S of all images.
      most_wrong: maximum number of confused images of a pair.
      title: of the sheet.
      subtitle: its data, with counts.
    """
    side, names_width = side_of(image_size), 220
    rights = MARGIN + names_width + 2 * GAP
    first = rights + 2 * (side + GAP) + 3 * GAP
    top, row_height = HEAD + 24, side + 2 * GAP + 2
    width = first + max(most_wrong, 2) * (side + GAP) - GAP + MARGIN
    sheet = _Sheet(width, top + len(pairs) * row_height + MARGIN // 2, title, subtitle)
    heads = (MARGIN, "true class → guess"), (rights, "both, recognised rightly"), (first, "confused, the surest first")
    for x, text in heads if pairs else [(MARGIN, "Nothing was confused.")]:
        sheet.text(x, top - 10, text, width - x, size=_SMALL, fill=MUTED)
    for row, pair in enumerate(pairs):
        y = top + row * row_height
        share = f"{pair.num_records:,} of {round(pair.num_records / pair.rate):,}  ({pair.rate:.1%})"
        _name_pair(sheet, pair, y + side // 2, names_width)
        sheet.text(MARGIN, y + side // 2 + 24, share, names_width, size=_SMALL, fill=MUTED)
        for number, pixels in enumerate(pair.wrong):
            sheet.tile(first + number * (side + GAP), y, pixels, side, RED)
        for number, right in enumerate(pair.right):
            sheet.tile(rights + number * (side + GAP), y, right, side, GREEN)
    return sheet.png()


def _name_pair(sheet: _Sheet, pair: ConfusedPair, baseline: float, width: int) -> None:
    """Writes the names in large type if they fit, else in small type on two lines."""
    text, large = f"{pair.label} → {pair.predicted}", 24
    if width_of(fitted(text, large, 10_000), large) <= width:
        sheet.text(MARGIN, baseline, text, width, size=large)
    else:
        sheet.text(MARGIN, baseline - 16, pair.label, width)
        sheet.text(MARGIN, baseline + 4, f"→ {pair.predicted}", width)


@dataclass(frozen=True, kw_only=True)
class HardImage:
    """An image of `hardest` with its true and its predicted class."""

    label: str
    predicted: str
    label_probability: float
    predicted_probability: float
    is_correct: bool
    pixels: np.ndarray


def hardest(images: Sequence[HardImage], image_size: int, *, title: str, subtitle: str) -> bytes:
    """Draws the images with the highest loss; returns a PNG. Arguments are those of `confusions`."""
    side = side_of(image_size)
    pitch = max(side, 104) + 2 * GAP
    columns = (_MOST_WIDTH - 2 * MARGIN + 2 * GAP) // pitch
    columns = max(1, min(columns, len(images)))
    row_height = side + 56
    rows = -(-len(images) // columns)
    sheet = _Sheet(2 * MARGIN + columns * pitch - 2 * GAP, HEAD + rows * row_height + MARGIN // 2, title, subtitle)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        x, y = MARGIN + column * pitch, HEAD + row * row_height
        width = pitch - 2 * GAP
        sheet.tile(x + (width - side) // 2, y, image.pixels, side, GREEN if image.is_correct else RED)
        for line, (name, probability, fill) in enumerate(
            ((image.label, image.label_probability, GREEN), (image.predicted, image.predicted_probability, RED))
        ):
            if line and image.is_correct:
                continue
            share = f"{probability:.1%}"
            room = width - width_of(share, _SMALL) - 6
            baseline = y + side + 19 + 19 * line
            sheet.text(x, baseline, name, room, fill=fill)
            sheet.text(x + width - width_of(share, _SMALL), baseline, share, width, size=_SMALL, fill=MUTED)
    return sheet.png()
