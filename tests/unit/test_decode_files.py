"""Odd picture files in the exported graph, beside what `pictures.read_picture` makes of them before it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfos_job.formats.form import Form
from tfos_job.inference.pictures import read_picture
from tfos_job.input.decoding import decode_files, preprocess

DRAW = np.random.default_rng(3)
GREY = Image.fromarray(DRAW.integers(0, 250, (24, 32), np.uint8))
RGB = Image.fromarray(DRAW.integers(0, 250, (24, 32, 3), np.uint8))
DEEP = DRAW.integers(0, 65_536, (24, 32), np.uint16)
PALETTE = RGB.quantize(16)
INK = int(np.asarray(PALETTE)[12, 16])  # a colour of the palette


def saved(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, colour: int, rows: list[bytes], *, is_interlaced: bool = False) -> bytes:
    head = struct.pack(">IIBBBBB", 32, 24, depth, colour, 0, 0, is_interlaced)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def interlaced(pixels: np.ndarray) -> bytes:
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [row.tobytes() for left, top, across, down in passes for row in pixels[top::down, left::across]]
    return png(8, 0, rows, is_interlaced=True)


def turned(image: Image.Image, image_format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(image, image_format, exif=exif)


SAME = {
    "palette": saved(PALETTE, "PNG"),
    "1 bit": saved(GREY.convert("1"), "PNG"),
    "2 bits": png(2, 0, [row.tobytes() for row in DRAW.integers(0, 256, (24, 8), np.uint8)]),
    "interlaced": interlaced(np.asarray(GREY)),
    "animated PNG": saved(GREY, "PNG", save_all=True, append_images=[GREY.rotate(180)]),
    "animated GIF": saved(GREY, "GIF", save_all=True, append_images=[GREY.rotate(180)]),
    "CMYK": saved(RGB.convert("CMYK"), "JPEG"),
    "progressive": saved(RGB, "JPEG", progressive=True),
}
WITHIN_A_LEVEL = {
    "16 bits": saved(Image.fromarray(DEEP), "PNG"),
    "16 bits of colour": png(16, 2, [row.astype(">u2").repeat(3).tobytes() for row in DEEP]),
}
REFUSED = {
    "grey and alpha": saved(Image.merge("LA", (GREY, GREY)), "PNG"),
    "RGBA": saved(Image.merge("RGBA", (*RGB.split(), GREY)), "PNG"),
    "a colour of a palette": saved(PALETTE, "PNG", transparency=INK),
    "alpha of a palette": saved(PALETTE, "PNG", transparency=bytes([100] * 16)),
    "a grey level": saved(GREY, "PNG", transparency=20),
    "a colour": saved(RGB, "PNG", transparency=(1, 2, 3)),
}
OTHER = {
    "turned JPEG": turned(RGB, "JPEG"),
    "turned PNG": turned(GREY, "PNG"),
    "transparent GIF": saved(PALETTE, "GIF", transparency=INK),
}


@pytest.fixture(scope="module", params=[1, 3])
def form(request: pytest.FixtureRequest) -> Form:
    return Form(image_size=16, num_channels=request.param, antialias=request.param == 3)


@pytest.fixture(scope="module")
def decode(form: Form) -> Any:
    return tf.function(lambda files: decode_files(files, form), [tf.TensorSpec([None], tf.string)])


def largest_difference(decode: Any, form: Form, data: bytes) -> int:
    before = read_picture(data, "a picture", num_channels=form.num_channels)
    expected = preprocess(tf.constant(before[np.newaxis]), form).numpy()
    found = decode(tf.constant([data, saved(GREY, "PNG")])).numpy()[:1]
    return int(np.abs(found.astype(int) - expected).max())


@pytest.mark.parametrize("name", [*SAME, *WITHIN_A_LEVEL, *OTHER])
def test_it_sees_what_is_seen_before_it_or_what_the_formats_document_says(decode: Any, form: Form, name: str) -> None:
    data = {**SAME, **WITHIN_A_LEVEL, **OTHER}[name]
    difference = largest_difference(decode, form, data)
    assert (difference <= (name in WITHIN_A_LEVEL)) == (name not in OTHER)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_transparent_in_a_png_is_refused_in_words(decode: Any, name: str) -> None:
    read_picture(REFUSED[name], name)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a PNG with transparent parts: put it on white paper"):
        decode(tf.constant([saved(GREY, "PNG"), REFUSED[name]]))


def test_names_of_parts_within_pixels_are_none(decode: Any) -> None:
    data = png(8, 0, [b"tRNS" * 8] * 24)
    stored = data[:33] + chunk(b"IDAT", zlib.compress((b"\0" + b"tRNS" * 8) * 24, 0)) + chunk(b"IEND", b"")
    assert b"tRNS" in stored
    np.testing.assert_array_equal(*decode(tf.constant([data, stored])).numpy())
