"""Text in pictures: a font for each character, and a substitute for characters without a font.

Noto Sans CJK has Chinese, Japanese, Korean, Latin, Greek and Cyrillic; DejaVu Sans, which is part of matplotlib, many
other scripts. A character that neither has is written as its code point, not as an empty box.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

from PIL import ImageDraw, ImageFont

from tfos_job.fonts import find_font

LONGEST_NAME = 16
"""Maximum length of a class's name in a picture, in characters; longer names are cut."""
_ELLIPSIS = "…"


@functools.cache
def font_files() -> tuple[str, ...]:
    """Returns the fonts' files, the preferred one first.

    Raises:
      MissingInputError: Noto Sans CJK is not installed.
    """
    import matplotlib

    return find_font(), str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@functools.cache
def _code_points(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


def _font_of(character: str) -> int | None:
    """Returns the first font that has a character; None if no font has it."""
    return next((i for i, path in enumerate(font_files()) if ord(character) in _code_points(path)), None)


def legible(text: str) -> str:
    """Returns a text on one line, with the code point instead of each character that no font has."""
    one_line = " ".join(text.split())
    return "".join(c if _font_of(c) is not None else f"U+{ord(c):04X}" for c in one_line) or "(no name)"


def short(text: str, longest: int = LONGEST_NAME) -> str:
    """Returns `legible` text, cut to `longest` characters."""
    text = legible(text)
    return text if len(text) <= longest else text[: longest - 1].rstrip() + _ELLIPSIS


@functools.cache
def _font(index: int, size: int) -> ImageFont.FreeTypeFont:
    # BASIC: the result of RAQM depends on libraries of the system.
    return ImageFont.truetype(font_files()[index], size, layout_engine=ImageFont.Layout.BASIC)


def _runs(text: str, size: int) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """Splits a legible text into parts that one font can write."""
    return [(_font(index or 0, size), "".join(run)) for index, run in itertools.groupby(text, _font_of)]


def width_of(text: str, size: int) -> float:
    """Returns the width of a legible text in pixels, at a font size in pixels."""
    return sum(font.getlength(run) for font, run in _runs(text, size))


def fitted(text: str, size: int, width: float) -> str:
    """Returns `legible` text, cut to `width` pixels."""
    text = legible(text)
    if width_of(text, size) <= width:
        return text
    while text and width_of(text + _ELLIPSIS, size) > width:
        text = text[:-1].rstrip()
    return text + _ELLIPSIS


def write(draw: ImageDraw.ImageDraw, x: float, baseline: float, text: str, *, size: int, fill: str) -> float:
    """Writes a legible text from `x` on; returns the x of its end."""
    for font, run in _runs(text, size):
        draw.text((x, baseline), run, font=font, fill=fill, anchor="ls")
        x += font.getlength(run)
    return x
