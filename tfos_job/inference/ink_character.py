"""Which parts of a picture's ink are one character, and whether they look like one. numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfos_job.inference.ink_components import BoolArray, Components, IntArray, clusters, union

CUT_OFF = "cut off by the border"
SEVERAL = "more than one character"
NO_STROKES = "no strokes"

_REACH = 0.6  # between parts of a character, as a share of the longer one's side
_SMALL = 0.1  # of the heaviest part's side: smaller parts are specks, unless within the character
_MAX_PARTS = 150
_AT_BORDER = 0.3  # what ink counts that touches the border, where other ink does not
_OTHER_MASS = 0.35  # of the character's: as much ink elsewhere is another character
_WIDE, _HIGH = 2.6, 3.3  # times the other side: what is longer, with a gap, is a row or a column of characters
_MARGIN = 0.25  # of the longer side: with as much paper on another side a picture is no tight crop
_FILLED = 0.85  # of its box: more ink than strokes leave
_STROKE = 3.0  # times the other side: a longer box may be filled, by a single stroke
_MANY = 60  # parts: more than any character has


@dataclass(frozen=True)
class Character:
    """The components of one character, bool [n], and why they may be none (as `ink.Finding.doubtful`)."""

    chosen: BoolArray
    doubtful: str


def not_of_a_line(parts: Components, bands: BoolArray, thickness: float) -> BoolArray:
    """True for components that are no leftover of a removed line.

    Args:
      parts: of the ink.
      bands: bool [h, w]: the lines and their surroundings.
      thickness: of the lines; 0 if there are none.
    """
    if not thickness:
        return np.ones(len(parts), bool)
    within = parts.sums(bands) / np.maximum(parts.areas, 1)
    leftover = (within > 0.8) & (parts.lengths < 4 * thickness + 4)
    # What a corner cuts off of a line.
    short = (parts.boxes[:, 2:] - parts.boxes[:, :2]).min(axis=1)
    return ~leftover & ~(_sides(parts.boxes, parts.shape).any(axis=1) & (short < 2 * thickness + 4))


def character(parts: Components, candidates: BoolArray, mass: npt.NDArray[Any]) -> Character | None:
    """Chooses the components that are one character.

    Args:
      parts: of the ink.
      candidates: which of them may be of a character, bool [n].
      mass: sum of the darkness of each, [n].

    Returns:
      None if there is no candidate.
    """
    heaviest = np.flatnonzero(candidates)[np.argsort(-mass[candidates])][:_MAX_PARTS]
    if not heaviest.size:
        return None
    large = parts.lengths[heaviest] >= _SMALL * parts.lengths[heaviest[0]]
    long, small = heaviest[large], heaviest[~large]
    groups = [long[group] for group in clusters(parts.boxes[long], _REACH)]
    masses = np.array([mass[group].sum() for group in groups])
    touching = np.array([_sides(union(parts.boxes[group])[None], parts.shape).any() for group in groups])
    weights = np.where(touching & ~touching.all(), _AT_BORDER, 1) * masses
    best = int(weights.argmax())
    chosen = np.zeros(len(parts), bool)
    chosen[groups[best]] = True
    box = union(parts.boxes[chosen])
    reach = 0.04 * (box[2:] - box[:2]).max()
    boxes = parts.boxes[small]
    inside = (boxes[:, :2] >= box[:2] - reach).all(axis=1) & (boxes[:, 2:] <= box[2:] + reach).all(axis=1)
    chosen[small[inside]] = True
    others = np.delete(weights, best)
    if others.size and others.max() > _OTHER_MASS * weights[best]:
        return Character(chosen, SEVERAL)
    return Character(chosen, _doubt(parts, groups[best]))


def _sides(boxes: IntArray, shape: tuple[int, int]) -> BoolArray:
    """Which sides of the picture boxes touch: left, top, right and bottom, bool [n, 4]."""
    height, width = shape
    return np.concatenate([boxes[:, :2] == 0, boxes[:, 2:] == (width, height)], axis=1)


def _doubt(parts: Components, group: IntArray) -> str:
    """Why a group of components may be no whole character."""
    boxes = parts.boxes[group]
    box = union(boxes)
    width, height = box[2:] - box[:2]
    if len(group) > _MANY:
        return NO_STROKES
    if (width > _WIDE * height and _num_pieces(boxes[:, [0, 2]]) > 1) or (
        height > _HIGH * width and _num_pieces(boxes[:, [1, 3]]) > 1
    ):
        return SEVERAL
    if parts.areas[group].sum() > _FILLED * width * height and max(width, height) < _STROKE * min(width, height):
        return NO_STROKES
    margins = np.concatenate([box[:2], np.subtract(parts.shape[::-1], box[2:])])
    if (margins == 0).any() and margins.max() > _MARGIN * max(width, height):
        return CUT_OFF
    return ""


def _num_pieces(spans: IntArray) -> int:
    """In how many pieces gaps divide spans [n, 2]."""
    spans = spans[np.argsort(spans[:, 0])]
    ends = np.maximum.accumulate(spans[:, 1])
    return 1 + int((spans[1:, 0] > ends[:-1]).sum())
