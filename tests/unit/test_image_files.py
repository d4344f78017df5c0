from __future__ import annotations

import functools
import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfos_job.data import headers, image_files
from tfos_job.data.decoding import decode_file

Image_ = Image.Image
UPRIGHT, TURNED = 1, 6  # EXIF's words
ORIENTATION = 0x0112


def photograph(height: int = 27, width: int = 33) -> Image_:
    """Colours that change smoothly, for a JPEG of them to be worth its name."""
    few = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def file(image: Image_, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[ORIENTATION] = orientation
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def handmade_png(packed: bytes, *more: bytes, height: int = 3, width: int = 2, colour: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *more, chunk(b"IDAT", packed), chunk(b"IEND", b"")))


ROWS = zlib.compress(bytes(3 * (1 + 2 * 3)))

KEPT: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: file(photograph(), "JPEG"),
    "fine JPEG": lambda: file(photograph(), "JPEG", quality=98, subsampling="4:4:4"),
    "JPEG 4:2:2": lambda: file(photograph(), "JPEG", subsampling="4:2:2"),
    "progressive JPEG": lambda: file(photograph(), "JPEG", progressive=True),
    "JPEG with restarts": lambda: file(photograph(), "JPEG", restart_marker_rows=1),
    "JPEG of RGB": lambda: file(photograph(), "JPEG", keep_rgb=True),
    "grey JPEG": lambda: file(photograph().convert("L"), "JPEG"),
    "upright JPEG": lambda: file(photograph(), "JPEG", exif=exif(UPRIGHT)),
    "JPEG whose EXIF is junk": lambda: file(photograph(), "JPEG", exif=b"Exif\0\0junk"),
    "JPEG with junk behind it": lambda: file(photograph(), "JPEG") + b"junk",
    "MPO": lambda: file(photograph(), "MPO", save_all=True, append_images=[photograph().rotate(90)]),
    "PNG": lambda: file(photograph(), "PNG"),
    "grey PNG": lambda: file(photograph().convert("L"), "PNG"),
    "PNG with a palette": lambda: file(photograph().quantize(200), "PNG"),
    "PNG with a gamma": lambda: handmade_png(ROWS, chunk(b"gAMA", struct.pack(">I", 45_455))),
    "GIF": lambda: file(photograph().quantize(30), "GIF"),
    "interlaced GIF": lambda: file(photograph().quantize(200), "GIF", interlace=True),
    "plain GIF": lambda: file(photograph().quantize(200), "GIF", interlace=False),
    "grey GIF": lambda: file(photograph().convert("L"), "GIF"),
    "one pixel": lambda: file(photograph(1, 1), "GIF"),
}


def turned(orientation: int) -> tuple[bytes, Image_]:
    """A picture that is stored turned, and as it is meant to be seen by ImageOps, which has this from EXIF's tables."""
    data = file(photograph(), "PNG", exif=exif(orientation))
    return data, ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def transparent(image: Image_, alpha: int = 0) -> Image_:
    coloured = image.convert("RGBA")
    coloured.putalpha(alpha)
    return coloured


def gif_in_a_corner() -> bytes:
    """The canvas is larger than the picture."""
    data = bytearray(file(photograph().quantize(30), "GIF"))
    data[6:10] = struct.pack("<HH", 40, 30)
    return bytes(data)


def gif_without_colours() -> bytes:
    """No colour table: Pillow shows it in grey, giflib has no answer."""
    data = file(photograph().convert("L"), "GIF")
    frame = data.index(b",", 13 + 768)
    return data[:10] + b"\x00" + data[11:13] + data[frame : frame + 9] + b"\x00" + data[frame + 10 :]


MADE_PNG: dict[str, Callable[[], tuple[bytes, Image_]]] = {
    "turned JPEG": lambda: (
        file(photograph(), "JPEG", exif=exif(TURNED)),
        Image.open(io.BytesIO(file(photograph(), "JPEG"))).transpose(Image.Transpose.ROTATE_270),
    ),
    **{f"PNG turned {n}": functools.partial(turned, n) for n in range(2, 9)},
    "CMYK JPEG": lambda: (
        file(photograph().convert("CMYK"), "JPEG"),
        Image.open(io.BytesIO(file(photograph().convert("CMYK"), "JPEG"))).convert("RGB"),
    ),
    "16-bit PNG": lambda: (
        file(Image.fromarray(np.asarray(photograph().convert("L")).astype(np.uint16) * 257), "PNG"),
        photograph().convert("L"),
    ),
    "1-bit PNG": lambda: (file(photograph().convert("1"), "PNG"), photograph().convert("1").convert("L")),
    "4-bit PNG": lambda: (file(photograph().quantize(9), "PNG"), photograph().quantize(9).convert("RGB")),
    "PNG of nothing": lambda: (file(transparent(photograph()), "PNG"), Image.new("RGB", (33, 27), "white")),
    "opaque PNG": lambda: (file(transparent(photograph(), 255), "PNG"), photograph()),
    "PNG with a transparent colour": lambda: (
        handmade_png(ROWS, chunk(b"tRNS", bytes(6))),
        Image.new("RGB", (2, 3), "white"),
    ),
    "PNG with junk behind it": lambda: (file(photograph(), "PNG") + b"junk", photograph()),
    "APNG": lambda: (file(photograph(), "PNG", save_all=True, append_images=[photograph().rotate(90)]), photograph()),
    "GIF of two": lambda: (
        file(photograph().quantize(30), "GIF", save_all=True, append_images=[photograph().quantize(9)]),
        photograph().quantize(30).convert("RGB"),
    ),
    "GIF with junk behind it": lambda: (
        file(photograph().quantize(30), "GIF") + b"junk",
        photograph().quantize(30).convert("RGB"),
    ),
    "GIF without colours": lambda: (gif_without_colours(), Image.open(io.BytesIO(gif_without_colours()))),
}


@functools.cache
def decoder(num_channels: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Training's, as a graph."""
    string = tf.TensorSpec([], tf.string)
    return tf.function(lambda data, image_format: decode_file(data, image_format, num_channels), [string, string])


def seen_by_training(picture: image_files.Picture, num_channels: int) -> np.ndarray:
    return decoder(num_channels)(tf.constant(picture.data), tf.constant(picture.image_format)).numpy()


def assert_that_all_see_the_same(picture: image_files.Picture) -> None:
    with image_files.opened(picture.data) as image:
        assert (picture.height, picture.width) == (image.height, image.width)
        colours, grey = np.asarray(image.convert("RGB")), np.asarray(image_files.flat(image).convert("L"))
    np.testing.assert_array_equal(seen_by_training(picture, 3), colours)
    np.testing.assert_array_equal(seen_by_training(picture, 1)[:, :, 0], grey)
    stored = image_files.decode(picture.data, picture.image_format)
    np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), colours)


@pytest.mark.parametrize("kind", KEPT)
def test_what_training_reads_stays_as_it_is(kind: str) -> None:
    data = KEPT[kind]()
    picture = image_files.read(data)
    assert picture.data == data
    assert_that_all_see_the_same(picture)
    packed = image_files.read(data, keep=False)
    assert packed.image_format == "png"
    np.testing.assert_array_equal(seen_by_training(packed, 3), seen_by_training(picture, 3))


@pytest.mark.parametrize("kind", MADE_PNG)
def test_what_training_would_not_read_becomes_a_png_of_the_same_pixels(kind: str) -> None:
    data, expected = MADE_PNG[kind]()
    picture = image_files.read(data)
    assert (picture.image_format, picture.width, picture.height) == ("png", *expected.size)
    np.testing.assert_array_equal(np.asarray(image_files.decode(picture.data, "png")), np.asarray(expected))
    assert_that_all_see_the_same(picture)
    image_format = "png" if data.startswith(b"\x89PNG") else "gif" if data.startswith(b"GIF") else "jpeg"
    with pytest.raises(ValueError, match="of a kind that training does not read"):
        image_files.decode(data, image_format)


def test_a_gif_in_a_corner_of_its_canvas_becomes_a_png() -> None:
    picture = image_files.read(gif_in_a_corner())
    assert (picture.image_format, picture.height, picture.width) == ("png", 30, 40)
    assert_that_all_see_the_same(picture)


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "grey JPEG", "PNG", "GIF", "interlaced GIF"])
def test_no_part_of_a_file_passes_for_the_whole(kind: str) -> None:
    data = KEPT[kind]()
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"cannot be|not a|empty|before its end"):
            image_files.read(data[:size])


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG with a palette", "GIF", "interlaced GIF"])
def test_what_a_flipped_bit_leaves_readable_is_read_alike_by_all(kind: str) -> None:
    data = KEPT[kind]()
    draw = np.random.default_rng(1)
    for position in draw.integers(0, len(data), 60).tolist():
        spoilt = bytearray(data)
        spoilt[position] ^= 1 << int(draw.integers(0, 8))
        try:
            picture = image_files.read(bytes(spoilt))
        except ValueError:
            continue
        assert kind != "PNG with a palette"  # a checksum is over every byte of it
        assert_that_all_see_the_same(picture)


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "JPEG with restarts", "grey JPEG"])
def test_a_jpeg_with_a_marker_among_its_pixels_is_one_that_all_read_alike_or_a_png(kind: str) -> None:
    """What libjpeg fills up, Pillow takes, and TensorFlow may refuse."""
    data = KEPT[kind]()
    assert headers.jpeg_end(data) == len(data)
    kept: Counter[str] = Counter()
    pixels = data.index(b"\xff\xda")
    for position in (*range(2, pixels), *range(pixels, len(data), 3)):
        try:
            picture = image_files.read(data[:position] + b"\xff" + data[position + 1 :])
        except ValueError:
            continue
        assert_that_all_see_the_same(picture)
        kept[picture.image_format] += 1
    assert set(kept) == {"jpeg", "png"}


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "an empty file"),
        (b"hello", "not a PNG, JPEG or GIF"),
        (file(photograph(), "BMP"), "not a PNG, JPEG or GIF"),
        (handmade_png(ROWS[:-4]), "its pixels end too early"),
        (handmade_png(ROWS[:-1] + b"\0"), "not a readable PNG"),
        (handmade_png(zlib.compress(bytes(20))), "cannot be decoded"),
        (handmade_png(ROWS, chunk(b"ABCD", b"")), "a part that nobody knows"),
        (handmade_png(ROWS, height=60_000, width=60_000), "cannot be decoded: Image size"),
        (handmade_png(ROWS, height=9_000, width=9_000), "found 9000 × 9000 pixels"),
        (handmade_png(ROWS, height=1, width=70_000), "found 70000 × 1 pixels"),
        (handmade_png(ROWS, height=0), "not a"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_fact(data: bytes, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        image_files.read(data)


def test_stored_bytes_of_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match="its bytes are those of a gif"):
        image_files.decode(KEPT["GIF"](), "png")
    with pytest.raises(ValueError, match="found 300000000"):
        image_files.check_size(300_000_000)


def test_headers_tell_what_pillow_does_not() -> None:
    assert headers.jpeg_frame(KEPT["JPEG"]()) == 0xC0
    assert headers.jpeg_frame(KEPT["progressive JPEG"]()) == 0xC2
    assert headers.jpeg_frame(b"\xff\xd8\xff\xff\xff\x01\xff\xc9\0\0") == 0xC9  # a fill byte, then arithmetic coding
    assert headers.jpeg_frame(b"\xff\xd8\xff\xda\0\0") is None
    data = KEPT["GIF"]()
    assert headers.gif(data) == (1, True, 32, len(data))
    assert headers.gif(MADE_PNG["GIF of two"]()[0]).num_frames == 2
    assert not headers.gif(gif_in_a_corner()).fills
    with pytest.raises(ValueError, match="something else than a picture at byte 13"):
        headers.gif(b"GIF89a\1\0\1\0\0\0\0X")
