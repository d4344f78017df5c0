"""The transparent parts of a picture, and the white paper that shows there."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageOps

from tfos_job.formats import png

_FAINT = 8  # invisible difference, in levels of 255, between the darkest ink and white paper
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Pillow's modes of grey with 16 bits."""


def by_key(image: Image.Image, parts: png.Parts) -> Image.Image:
    """A PNG of which one grey or one colour is transparent, as the picture with an alpha channel; others as they are.

    Pillow compares that key with what it has made of the samples: 8 bits of any depth.

    Args:
      image: Pillow's, loaded.
      parts: of its file.
    """
    num_samples = {png.GREY: 1, png.RGB: 3}.get(parts.colour, 0)
    part = parts.first(b"tRNS") or b""
    if num_samples == 0 or len(part) != 2 * num_samples:
        return image
    key = np.array(struct.unpack(f">{num_samples}H", part)) & ((1 << parts.depth) - 1)
    samples = _samples(image, parts)
    alpha = Image.fromarray(np.where((samples == key).all(axis=2), 0, 255).astype(np.uint8))
    opaque = grey_of_16_bits(image) if image.mode in DEEP_GREY else image.convert("L" if num_samples == 1 else "RGB")
    opaque.info = {name: value for name, value in image.info.items() if name != "transparency"}
    opaque.putalpha(alpha)
    opaque.format = image.format
    return opaque


def _samples(image: Image.Image, parts: png.Parts) -> np.ndarray:
    """The samples of the file, [h, w, c]."""
    samples = np.asarray(image).astype(np.int64)
    if image.mode == "RGB" and parts.depth == 16:
        # Pillow takes the first byte of each; told that the other order is the file's, it takes the second one.
        with Image.open(io.BytesIO(parts.bare()), formats=("PNG",)) as low:
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
            return samples << 8 | np.asarray(low)
    if parts.depth < 8 and image.mode == "L":  # 255 stands for the brightest; in mode 1 that is 1
        samples //= 255 // ((1 << parts.depth) - 1)
    return samples if samples.ndim == 3 else samples[:, :, np.newaxis]


def grey_of_16_bits(image: Image.Image) -> Image.Image:
    """A picture of 16 bits in 8. Pillow's own conversion clips at 255 instead of scaling."""
    deep = np.clip(np.asarray(image, np.float64), 0, 65535)
    return Image.fromarray(np.round(deep / 257).astype(np.uint8))


def on_paper(image: Image.Image) -> Image.Image:
    """A picture in mode RGBA on white paper. White ink, which would leave the page blank, is inverted."""
    page = _on_white(image)
    alpha = image.getchannel("A")
    is_blank = bool((np.asarray(page.convert("L")) > 255 - _FAINT).all())
    if not is_blank or alpha.getextrema()[0] == 255:
        return page
    ink = ImageOps.invert(image.convert("RGB"))
    ink.putalpha(alpha)
    return _on_white(ink)


def _on_white(image: Image.Image) -> Image.Image:
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image)
    return paper
