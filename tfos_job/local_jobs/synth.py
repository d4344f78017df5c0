"""`synth`: GNT shards of synthetic handwriting, to try the whole job without real data.

Each character is drawn once from a font (Noto Sans CJK, OFL) and blurred, so that a threshold determines the weight of
its strokes. Each synthetic writer has a hand: slant, aspect, size, weight, ink and a smooth distortion; each glyph
varies these a little. As in CASIA's files a glyph is cropped to its ink and the background is 255.

The bytes depend on seed, writer and class alone (and on the versions of NumPy, Pillow and the font).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from tfos_job import storage
from tfos_job.config import SynthConfig
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.fonts import find_font
from tfos_job.formats import charset as charsets
from tfos_job.formats import gnt
from tfos_job.layout import SYNTH_SETTINGS, join

FORMAT_VERSION = 1
"""Version of hands and drawing: raise it when a change gives other bytes for the same seed."""
PROGRESS_LOG_S = 10.0

_EM = 96  # pixels of a character's square in its drawing
_CANVAS = 136  # pixels a side of the drawing: a margin around the square for the hand's distortions
_BLUR = 2.6  # pixels: about a third of a stroke's width, so that thresholds of 0.3 to 0.6 make it thinner or thicker
_EDGE = 5.0  # steepness of the threshold: a stroke's edge is a pixel or two wide, as a scanner sees it
_MARGIN = 1.35  # side of the sampled square, in ems
_FIELD = 7  # control points a side of a distortion

FloatArray = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Hand:
    """A writer's hand. Lengths are in ems, angles in radians, greys 0 to 255.

    Attributes:
      size: pixels of an em.
      threshold: of the blurred drawing, above which there is ink: a low threshold makes bold strokes.
      field: [2, 7, 7] displacement in x and y at control points over the glyph.
      unsteadiness: variation between the writer's glyphs.
    """

    size: float
    aspect: float
    slant: float
    slope: float
    threshold: float
    ink: float
    grain: float
    field: FloatArray
    unsteadiness: float

    @staticmethod
    def of(seed: int, writer: int) -> Hand:
        draw = np.random.default_rng([seed, writer, 0])
        return Hand(
            size=draw.uniform(48, 92),
            aspect=draw.uniform(0.78, 1.22),
            slant=draw.normal(0.06, 0.13),
            slope=draw.normal(-0.03, 0.05),
            threshold=draw.uniform(0.28, 0.56),
            ink=draw.uniform(20, 110),
            grain=draw.uniform(5, 20),
            field=draw.normal(0, 0.03, (2, _FIELD, _FIELD)).astype(np.float32),
            unsteadiness=draw.uniform(0.6, 1.4),
        )


def synthesize(config: SynthConfig) -> list[str]:
    """Writes one GNT file per writer, each with every character once; existing files are kept.

    Returns:
      The paths of all files, in the order of their writers.

    Raises:
      SettingsError: the folder has other files, or was made with other settings.
      MissingInputError: the font is not installed.
    """
    characters = charsets.level1(config.charset_size).characters
    folder = storage.absolute(config.gnt_dir)
    _claim(folder, config)
    writers = range(config.first_writer, config.first_writer + config.num_writers)
    paths = [join(folder, f"{writer:04d}-s.gnt") for writer in writers]
    present = {entry.path for entry in storage.list_dir(folder)}
    missing = [(writer, path) for writer, path in zip(writers, paths, strict=True) if path not in present]
    if not missing:
        _log.info("%s is up to date (%d writers of %d characters): nothing to do", folder, len(paths), len(characters))
        return paths
    drawings = draw_characters(characters)
    logged_s = time.monotonic()
    for number, (writer, path) in enumerate(missing, start=1):
        write_writer(path, drawings, characters, seed=config.seed, writer=writer)
        if time.monotonic() - logged_s >= PROGRESS_LOG_S or number == len(missing):
            logged_s = time.monotonic()
            _log.info("%d of %d writers of %d characters", number, len(missing), len(characters))
    return paths


def _claim(folder: str, config: SynthConfig) -> None:
    """Checks that the folder was made by synth with these settings: synthetic and real writers must not mix."""
    settings = dataclasses.asdict(config) | {"format_version": FORMAT_VERSION}
    del settings["gnt_dir"]
    storage.make_dirs(folder)
    path = join(folder, SYNTH_SETTINGS)
    next_step = "Give another --gnt_dir, or remove this one"
    if storage.exists(path):
        found = _read_settings(path)
        different = sorted(name for name in settings.keys() | found.keys() if settings.get(name) != found.get(name))
        if different:
            changes = ", ".join(f"{name} {found.get(name)}, now {settings.get(name)}" for name in different)
            raise SettingsError(f"was made with other settings: {changes}", place=folder, next_step=next_step)
    elif storage.list_dir(folder):
        raise SettingsError(f"is not empty and has no {SYNTH_SETTINGS}", place=folder, next_step=next_step)
    else:
        storage.write_json(path, settings)


def _read_settings(path: str) -> dict[str, Any]:
    try:
        return dict(storage.read_json(path))
    except (ValueError, TypeError) as error:
        raise BadDataError(
            f"not the settings of synth: {error}", place=path, next_step="Remove the folder, or give another --gnt_dir"
        ) from error


def write_writer(
    path: str, drawings: npt.NDArray[np.uint8], characters: Sequence[str], *, seed: int, writer: int
) -> None:
    """Writes the GNT file of one writer; `drawings` are those of `draw_characters`."""
    hand = Hand.of(seed, writer)
    with storage.open_write(path) as stream:
        for class_id, character in enumerate(characters):
            draw = np.random.default_rng([seed, writer, 1 + class_id])
            gnt.write(stream, gnt.encode_tag(character), render_glyph(drawings[class_id], hand, draw))


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw_characters(characters: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Draws each character once, centred on a canvas and blurred. Returns [N, 136, 136] uint8, ink 255."""
    font = ImageFont.truetype(find_font(), _EM, layout_engine=ImageFont.Layout.BASIC)
    drawings = np.empty((len(characters), _CANVAS, _CANVAS), np.uint8)
    for drawing, character in zip(drawings, characters, strict=True):
        image = Image.new("L", (_CANVAS, _CANVAS), 0)
        ImageDraw.Draw(image).text((_CANVAS / 2, _CANVAS / 2), character, fill=255, font=font, anchor="mm")
        drawing[:] = np.asarray(image.filter(ImageFilter.GaussianBlur(_BLUR)))
    return drawings


def render_glyph(drawing: npt.NDArray[np.uint8], hand: Hand, draw: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Renders one glyph in a writer's hand.

    Args:
      drawing: [136, 136] uint8, see `draw_characters`.
      hand: of the writer.
      draw: random numbers of this glyph.

    Returns:
      [height, width] uint8, cropped to the ink, background 255.
    """
    unsteady = hand.unsteadiness
    side = round(_MARGIN * hand.size * _about_one(draw, 0.07 * unsteady))
    x, y = _positions(side, hand, draw)
    blurred = _bilinear(drawing, x, y)
    threshold = hand.threshold + draw.normal(0, 0.02 * unsteady)
    coverage = np.clip((blurred / 255 - threshold) * _EDGE + 0.5, 0, 1)
    # Grain belongs to the paper under the ink; pressure changes slowly along the strokes.
    pressure = _smooth(draw.normal(0, 12 * unsteady, (_FIELD, _FIELD)), side)
    ink = hand.ink + pressure + draw.normal(0, hand.grain, (side, side)).astype(np.float32)
    pixels = 255 - coverage * (255 - np.clip(ink, 0, 200))
    return _crop(np.rint(pixels).astype(np.uint8), coverage > 0.3)


def _about_one(draw: np.random.Generator, spread: float) -> float:
    return float(np.clip(draw.normal(1, spread), 0.8, 1.25))


def _positions(side: int, hand: Hand, draw: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Returns the position in the drawing of each pixel of the glyph: two [side, side] arrays, in its pixels."""
    unsteady = hand.unsteadiness
    steps = np.linspace(-_MARGIN / 2, _MARGIN / 2, side, dtype=np.float32)
    u, v = np.meshgrid(steps, steps)
    stretch = np.sqrt(hand.aspect * _about_one(draw, 0.06 * unsteady))
    slant = hand.slant + draw.normal(0, 0.05 * unsteady)
    slope = hand.slope + draw.normal(0, 0.03 * unsteady)
    field = hand.field + draw.normal(0, 0.024 * unsteady, hand.field.shape)
    x = u / stretch + slant * v + _smooth(field[0], side)
    y = v * stretch + slope * u + _smooth(field[1], side)
    return (x * _EM + _CANVAS / 2).astype(np.float32), (y * _EM + _CANVAS / 2).astype(np.float32)


def _smooth(points: npt.NDArray[Any], side: int) -> FloatArray:
    """Returns a smooth [side, side] surface through [7, 7] control points."""
    weights = _spline(side)
    return np.asarray(weights @ points.astype(np.float32) @ weights.T, np.float32)


@functools.lru_cache(maxsize=256)
def _spline(side: int) -> FloatArray:
    """Returns the weights of the control points along one axis, [side, 7]: a uniform cubic B-spline.

    They are scaled so that a surface varies as much as its (independent) control points.
    """
    position = np.linspace(0, _FIELD - 3, side, dtype=np.float32)[:, None] + 1
    distance = np.abs(position - np.arange(_FIELD, dtype=np.float32))
    near, far = 2 / 3 - distance**2 * (1 - distance / 2), (2 - distance) ** 3 / 6
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)), np.float32)


def _bilinear(drawing: npt.NDArray[np.uint8], x: FloatArray, y: FloatArray) -> FloatArray:
    """Interpolates the drawing's values (0 to 255); positions outside are clipped to its empty margin."""
    x = np.clip(x, 0, _CANVAS - 1.001)
    y = np.clip(y, 0, _CANVAS - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    right_share, bottom_share = x - left, y - top
    flat = drawing.ravel()
    at = top * _CANVAS + left
    upper = flat[at] * (1 - right_share) + flat[at + 1] * right_share
    lower = flat[at + _CANVAS] * (1 - right_share) + flat[at + _CANVAS + 1] * right_share
    return np.asarray(upper * (1 - bottom_share) + lower * bottom_share, np.float32)


def _crop(pixels: npt.NDArray[np.uint8], ink: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Crops `pixels` to the rows and columns with ink; returns one white pixel if there is no ink."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not rows.size:
        return np.full((1, 1), 255, np.uint8)
    return np.ascontiguousarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
