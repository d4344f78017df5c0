"""How the ink of training pictures looks: what a drawing has to look like to be one of them. numpy and Pillow alone.

A network knows the width of the strokes that it was trained on, their share of the picture, and the size from which
pictures were scaled. An export carries these numbers (`measure`), and `strokes.py` draws by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tfos_job.errors import BadDataError

GreyArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_ENLARGED = 3  # times, before edges are counted: strokes are few pixels wide
_SAME = 0.9  # of the pictures: as many of one size are sheets of that size,
_LOOSE = 0.8  # if the ink's longer side is at most this part of theirs
_DARK = 0.5  # of the ink's darkness: darker is within a stroke
_LEAST_DARKNESS = 40  # levels: fainter ones are paper


@dataclass(frozen=True, kw_only=True)
class InkStatistics:
    """Medians over pictures.

    Attributes:
      stroke_width: as a share of the longer side of the ink's box.
      ink_share: of the ink's box, that ink covers.
      ink_level: grey level of ink; 0 is black.
      side: longer side of the ink's box, in pixels.
      sheet: width and height of the pictures, if they are of one size and larger than their ink; None if they are
        cropped to it.
      num_pictures: that were measured; 0 of a default.
    """

    stroke_width: float
    ink_share: float
    ink_level: int
    side: int
    sheet: tuple[int, int] | None = None
    num_pictures: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"sheet": None if self.sheet is None else list(self.sheet)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> InkStatistics:
        """The statistics that `to_json` wrote; numbers that are there in later versions are left out.

        Raises:
          BadDataError: one is missing, or is no number that ink can have.
        """
        try:
            sheet = values["sheet"]
            made = cls(
                stroke_width=float(values["stroke_width"]),
                ink_share=float(values["ink_share"]),
                ink_level=int(values["ink_level"]),
                side=int(values["side"]),
                sheet=None if sheet is None else (int(sheet[0]), int(sheet[1])),
                num_pictures=int(values["num_pictures"]),
            )
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise BadDataError(f"no statistics of ink: {error!r}") from error
        sides = (made.side, *(made.sheet or ()))
        if not (0 < made.stroke_width < 1 and all(4 <= side <= 4096 for side in sides) and 0 <= made.ink_level < 255):
            raise BadDataError(f"no statistics of ink: {made}")
        return made


TYPICAL = InkStatistics(stroke_width=0.0565, ink_share=0.272, ink_level=84, side=86)
"""Of handwriting in crops, where nothing is recorded: the medians of pixels from CASIA-HWDB1.x."""


class _Measured(NamedTuple):
    stroke_width: float  # in pixels
    ink_share: float
    ink_level: float
    side: int
    size: tuple[int, int]  # width and height of the picture


def measure(pictures: Iterable[GreyArray]) -> InkStatistics | None:
    """Measures dark ink on white paper.

    Args:
      pictures: uint8 [h, w], as they are stored. A few hundred are enough.

    Returns:
      None if none of them has ink.
    """
    found = [one for one in map(_measured, pictures) if one is not None]
    if not found:
        return None
    side = float(np.median([one.side for one in found]))
    sizes, counts = np.unique([one.size for one in found], axis=0, return_counts=True)
    width, height = (int(length) for length in sizes[counts.argmax()])
    is_sheet = counts.max() >= _SAME * len(found) and side <= _LOOSE * max(width, height)
    return InkStatistics(
        stroke_width=round(float(np.median([one.stroke_width / one.side for one in found])), 4),
        ink_share=round(float(np.median([one.ink_share for one in found])), 4),
        ink_level=round(float(np.median([one.ink_level for one in found]))),
        side=max(4, round(side)),
        sheet=(width, height) if is_sheet else None,
        num_pictures=len(found),
    )


def _measured(grey: GreyArray) -> _Measured | None:
    darkness = 255 - grey.astype(np.int64)
    inked = darkness[darkness >= max(_LEAST_DARKNESS, int(darkness.max()) // 3)]
    if not inked.size:
        return None
    limit = _DARK * float(np.median(inked))
    mask = darkness > limit
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = np.pad(grey[top:bottom, left:right], 1, constant_values=255)
    size = (box.shape[1] * _ENLARGED, box.shape[0] * _ENLARGED)
    fine = np.asarray(Image.fromarray(box).resize(size, Image.Resampling.BILINEAR)) < 255 - limit
    area, edge = int(fine.sum()), _perimeter(np.pad(fine, 1))
    return _Measured(
        stroke_width=2 * area / edge / _ENLARGED,
        ink_share=float(mask[top:bottom, left:right].mean()),
        ink_level=255 - float(np.median(darkness[mask])),
        side=int(max(bottom - top, right - left)),
        size=(grey.shape[1], grey.shape[0]),
    )


def _perimeter(mask: BoolArray) -> float:
    """The length of a mask's edge, by Crofton: how often lines in four directions cross it."""
    straight = (mask[:, 1:] != mask[:, :-1]).sum() + (mask[1:] != mask[:-1]).sum()
    oblique = (mask[1:, 1:] != mask[:-1, :-1]).sum() + (mask[1:, :-1] != mask[:-1, 1:]).sum()
    return float(np.pi / 8 * (straight + oblique / np.sqrt(2)))
