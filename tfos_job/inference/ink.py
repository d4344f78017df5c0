"""The ink of a picture: from a photograph or a drawing to what a crop of training looks like.

Glyphs of GNT files are cropped to their ink, on paper of 255. `find` makes that of a picture in which a character is
small, off-centre, white on black, on grey, ruled or squared paper or in uneven light. numpy and Pillow alone, so
that whatever serves a network can use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfos_job.inference.ink_character import character, not_of_a_line
from tfos_job.inference.ink_components import components, union
from tfos_job.inference.ink_levels import is_inverted, levels, reduced, scaled
from tfos_job.inference.ink_lines import find_lines

GreyArray = npt.NDArray[np.uint8]

BLANK = "blank"
TOO_SMALL = "too small"

_LOOK_SIDE = 640  # pixels: a picture is looked at in this size
_GLYPH_SIDE = 128  # pixels: longest side of the result, as of nearly all glyphs in CASIA's files
_MIN_DARKNESS = 0.08  # of ink
_MIN_CONTRAST = 0.15  # darkness that a tenth of the ink must have
_INK_DARKNESS = 0.5  # of the middle of the ink, at least: the lightest of CASIA's glyphs
_LEAST_SIDE = 10  # pixels: nobody can read less


@dataclass(frozen=True)
class Finding:
    """What was found in a picture.

    Attributes:
      pixels: uint8 [h, w]: dark ink on paper of 255, cropped to the ink; large ones are scaled down.
      box: left, top, right and bottom of the ink in the picture; right and bottom are exclusive.
      inverted: the picture was white on black.
      doubtful: why the pixels may be no character; "" if they seem to be one.
    """

    pixels: GreyArray
    box: tuple[int, int, int, int]
    inverted: bool
    doubtful: str


@dataclass(frozen=True)
class _Look:
    """Ink at the size in which it was looked for.

    Attributes:
      glyph: darkness of the ink alone, float32 [h, w] of the whole picture, 0 elsewhere.
      box: of the ink, int64 [4].
      thickness: of the paper's lines, in pixels; 0 without lines.
      doubtful: as of `Finding`.
    """

    glyph: npt.NDArray[np.float32]
    box: npt.NDArray[np.int64]
    thickness: float
    doubtful: str


def find(grey: GreyArray) -> Finding:
    """Finds the ink of one character.

    Args:
      grey: uint8 [h, w], h and w at least 1.

    Returns:
      The ink. Of a picture without any, the paper of the whole picture, `doubtful`.
    """
    inverted = is_inverted(grey)
    dark = 255 - grey if inverted else grey
    small = reduced(dark, _LOOK_SIDE)
    look = _look(small)
    height, width = dark.shape
    if look is None:
        side = min(height, _GLYPH_SIDE), min(width, _GLYPH_SIDE)
        return Finding(np.full(side, 255, np.uint8), (0, 0, width, height), False, BLANK)
    scale = np.array([width / small.shape[1], height / small.shape[0]] * 2)
    box, doubtful = look.box * scale, look.doubtful
    if max(height, width) > _LOOK_SIDE and _longest(look.box) < _GLYPH_SIDE:
        # There is more to see of it.
        left, top, right, bottom = _grown(box, 0.35 * _longest(box), width, height)
        closer = reduced(dark[top:bottom, left:right], _LOOK_SIDE)
        closer_scale = np.array([(right - left) / closer.shape[1], (bottom - top) / closer.shape[0]] * 2)
        second = _look(closer, max_thickness=1.3 * look.thickness * scale[0] / closer_scale[0])
        if second is not None:
            look, box = second, second.box * closer_scale + [left, top, left, top]
    if not doubtful and _longest(box) < _LEAST_SIDE:
        doubtful = TOO_SMALL
    return Finding(_pixels(look), _grown(box, 0, width, height), inverted, doubtful)


def _longest(box: npt.NDArray[Any]) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))


def _grown(box: npt.NDArray[Any], margin: float, width: int, height: int) -> tuple[int, int, int, int]:
    """A box with a margin around it, in whole pixels within the picture."""
    left, top = np.maximum(np.floor(box[:2] - margin), 0)
    right, bottom = np.minimum(np.ceil(box[2:] + margin), (width, height))
    return int(left), int(top), int(right), int(bottom)


def _look(grey: GreyArray, max_thickness: float | None = None) -> _Look | None:
    """Looks for dark ink; None if there is none. `max_thickness` is that of lines."""
    found = levels(grey)
    low = np.maximum(_MIN_DARKNESS, 4.5 * found.noise)
    lines = find_lines(found, low, max_thickness)
    darkness = np.where(lines.removed, 0, found.darkness)
    inked = darkness > low
    if not inked.any():
        return None
    middle = float(np.median(darkness[inked]))
    inked = darkness > np.maximum(low, 0.22 * middle)
    strong = inked & (darkness > 0.5 * middle)
    parts = components(inked)
    candidates = (parts.sums(strong) >= 2) & not_of_a_line(parts, lines.bands, lines.thickness)
    found_parts = character(parts, candidates, parts.sums(np.where(inked, darkness, 0)))
    if found_parts is None:
        return None
    mask = parts.mask(found_parts.chosen)
    if np.quantile(darkness[mask], 0.9) < _MIN_CONTRAST:
        return None
    glyph = np.where(_widened(mask), np.clip(darkness, 0, 1), 0).astype(np.float32)
    return _Look(glyph, union(parts.boxes[found_parts.chosen]), lines.thickness, found_parts.doubtful)


def _widened(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask and the pixels next to it."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    high = wide.copy()
    high[:, 1:] |= wide[:, :-1]
    high[:, :-1] |= wide[:, 1:]
    return high


def _pixels(look: _Look) -> GreyArray:
    """The crop, with levels as in training."""
    left, top, right, bottom = look.box
    glyph = np.ascontiguousarray(look.glyph[top:bottom, left:right])
    longest = max(glyph.shape)
    if longest > _GLYPH_SIDE:
        scale = _GLYPH_SIDE / longest
        glyph = scaled(glyph, (max(1, round(glyph.shape[1] * scale)), max(1, round(glyph.shape[0] * scale))))
    ink = glyph[glyph > _MIN_DARKNESS]
    middle = float(np.median(ink)) if ink.size else 1.0
    gain = max(1.0, _INK_DARKNESS / middle)
    return np.rint(255 * (1 - np.clip(glyph * gain, 0, 1))).astype(np.uint8)
