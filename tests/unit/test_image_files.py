from __future__ import annotations

import functools
import io
import itertools
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import PIL
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tests.campaigns import odd_pictures
from tests.campaigns.odd_pictures import Odd
from tfos_job.formats import image_files
from tfos_job.input.decoder_process import training_view
from tfos_job.input.decoding import decode_file

# As conversion and verify do, but for TensorFlow, which is here already: they ask another process (test_decoder.py).
read = functools.partial(image_files.read, training_view=training_view)
decode = functools.partial(image_files.decode, training_view=training_view)

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


def handmade_png(
    packed: bytes, *more: bytes, height: int = 3, width: int = 2, colour: int = 2, depth: int = 8
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
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
    "blank JPEG": lambda: file(Image.new("RGB", (96, 80), "white"), "JPEG", optimize=True),
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
    "PNG with junk behind it": lambda: file(photograph(), "PNG") + b"junk",
    "GIF with junk behind it": lambda: file(photograph().quantize(30), "GIF") + b"junk",
    "GIF with a comment": lambda: gif(comment=b"\2ab\0"),
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


def gif(*, code_bits: int = 4, comment: bytes | None = None) -> bytes:
    extension = b"" if comment is None else b"!\xfe" + comment
    return odd_pictures.gif(code_bits, extension)


def beside_the_pixels(kind: bytes, part: bytes) -> tuple[bytes, Image_]:
    """Whole pixels, and something that Pillow does not read beside them."""
    rows = odd_pictures.png_rows(2, 8, interlaced=False)
    packed = zlib.compress(b"".join(rows))
    plain = Image.open(io.BytesIO(odd_pictures.png(2, 8, packed)))
    return odd_pictures.png(2, 8, packed, chunk(kind, part)), plain


def ink(colour: str) -> Image_:
    """A stroke on nothing."""
    image = Image.new("RGBA", (33, 27), colour)
    alpha = Image.new("L", (33, 27), 0)
    alpha.paste(255, (5, 5, 9, 20))
    image.putalpha(alpha)
    return image


def grey_with_key(depth: int) -> tuple[bytes, Image_]:
    """The first row is of the one grey that is transparent, the other two of another one."""
    key, other = {1: (1, 0), 2: (1, 2), 4: (3, 9), 8: (30, 90), 16: (3000, 3001)}[depth]
    rows = b"".join(b"\0" + (value << -depth % 8).to_bytes(-(-depth // 8), "big") for value in (key, other, other))
    data = handmade_png(zlib.compress(rows), chunk(b"tRNS", struct.pack(">H", key)), width=1, colour=0, depth=depth)
    level = round(other * 255 / (2**depth - 1))
    return data, Image.fromarray(np.array([[255], [level], [level]], np.uint8))


def deep_with_key() -> tuple[bytes, Image_]:
    """Colours that differ in their last bits alone."""
    key, other = struct.pack(">HHH", 1000, 2000, 3000), struct.pack(">HHH", 1000, 2000, 3001)
    data = handmade_png(
        zlib.compress(b"".join(b"\0" + value for value in (key, other, other))), chunk(b"tRNS", key), width=1, depth=16
    )
    return data, Image.fromarray(np.array([[[255] * 3], [[3, 7, 11]], [[3, 7, 11]]], np.uint8))


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
    "APNG": lambda: (file(photograph(), "PNG", save_all=True, append_images=[photograph().rotate(90)]), photograph()),
    "GIF of two": lambda: (
        file(photograph().quantize(30), "GIF", save_all=True, append_images=[photograph().quantize(9)]),
        photograph().quantize(30).convert("RGB"),
    ),
    "GIF without colours": lambda: (gif_without_colours(), Image.open(io.BytesIO(gif_without_colours()))),
    "GIF with an empty comment": lambda: (gif(comment=b"\0"), Image.open(io.BytesIO(gif())).convert("RGB")),
    "GIF of wide codes": lambda: (gif(code_bits=9), Image.open(io.BytesIO(gif())).convert("RGB")),
    "GIF with an extension that has no name": lambda: (
        gif(comment=b"\0").replace(b"!\xfe", b"!\xff"),
        Image.open(io.BytesIO(gif())).convert("RGB"),
    ),
    **{
        f"PNG with {name}": functools.partial(beside_the_pixels, kind, part)
        for name, kind, part in (
            ("a profile of an unknown method", b"iCCP", b"x\0\1abc"),
            ("an empty profile", b"iCCP", b""),
            ("a text of an unknown method", b"zTXt", b"k\0\5abc"),
            ("a gamma of two bytes", b"gAMA", b"\0\0"),
            ("no chromaticities", b"cHRM", b""),
        )
        if kind != b"cHRM" or int(PIL.__version__.partition(".")[0]) >= 13  # Pillow 12 reads it as TensorFlow does
    },
    "white ink on nothing": lambda: (
        file(ink("white"), "PNG"),
        Image.composite(
            Image.new("RGB", (33, 27), "black"), Image.new("RGB", (33, 27), "white"), ink("white").getchannel("A")
        ),
    ),
    "yellow ink on nothing": lambda: (
        file(ink("yellow"), "PNG"),
        Image.composite(
            Image.new("RGB", (33, 27), "yellow"), Image.new("RGB", (33, 27), "white"), ink("white").getchannel("A")
        ),
    ),
    **{
        f"grey PNG of {depth} bits with a transparent one": functools.partial(grey_with_key, depth)
        for depth in (1, 2, 4, 8, 16)
    },
    "PNG of 16 bits with a transparent colour": lambda: deep_with_key(),
}


@functools.cache
def decoder(num_channels: int) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Training's, as a graph."""
    string = tf.TensorSpec([], tf.string)
    return tf.function(lambda data, image_format: decode_file(data, image_format, num_channels), [string, string])


def seen_by_training(picture: image_files.StoredPicture, num_channels: int) -> np.ndarray:
    return decoder(num_channels)(tf.constant(picture.data), tf.constant(picture.image_format)).numpy()


def assert_that_all_see_the_same(picture: image_files.StoredPicture) -> None:
    with image_files.opened(picture.data) as image:
        assert (picture.height, picture.width) == (image.height, image.width)
        colours, grey = np.asarray(image.convert("RGB")), np.asarray(image_files.flat(image).convert("L"))
    np.testing.assert_array_equal(seen_by_training(picture, 3), colours)
    np.testing.assert_array_equal(seen_by_training(picture, 1)[:, :, 0], grey)
    stored = decode(picture.data, picture.image_format)
    np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), colours)


@pytest.mark.parametrize("kind", KEPT)
def test_what_training_reads_stays_as_it_is(kind: str) -> None:
    data = KEPT[kind]()
    picture = read(data)
    assert picture.data == data
    assert_that_all_see_the_same(picture)
    packed = read(data, keep=False)
    assert packed.image_format == "png"
    np.testing.assert_array_equal(seen_by_training(packed, 3), seen_by_training(picture, 3))


@pytest.mark.parametrize("kind", MADE_PNG)
def test_what_training_would_not_read_becomes_a_png_of_the_same_pixels(kind: str) -> None:
    data, expected = MADE_PNG[kind]()
    picture = read(data)
    assert (picture.image_format, picture.width, picture.height) == ("png", *expected.size)
    np.testing.assert_array_equal(np.asarray(decode(picture.data, "png")), np.asarray(expected))
    assert_that_all_see_the_same(picture)
    image_format = "png" if data.startswith(b"\x89PNG") else "gif" if data.startswith(b"GIF") else "jpeg"
    with pytest.raises(
        ValueError, match=f"^a {image_format} (of a kind that conversion makes a PNG of|that training cannot read)"
    ):
        decode(data, image_format)


def test_a_gif_in_a_corner_of_its_canvas_becomes_a_png() -> None:
    picture = read(gif_in_a_corner())
    assert (picture.image_format, picture.height, picture.width) == ("png", 30, 40)
    assert_that_all_see_the_same(picture)


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "grey JPEG", "PNG", "GIF", "interlaced GIF"])
def test_no_part_of_a_file_passes_for_the_whole(kind: str) -> None:
    data = KEPT[kind]()
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"cannot be|not a|empty|before its end|end too early"):
            read(data[:size])


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "PNG with a palette", "GIF", "interlaced GIF"])
def test_what_a_flipped_bit_leaves_readable_is_read_alike_by_all(kind: str) -> None:
    data = KEPT[kind]()
    draw = np.random.default_rng(1)
    for position in draw.integers(0, len(data), 60).tolist():
        spoilt = bytearray(data)
        spoilt[position] ^= 1 << int(draw.integers(0, 8))
        try:
            picture = read(bytes(spoilt))
        except ValueError:
            continue
        assert kind != "PNG with a palette"  # a checksum is over every byte of it
        assert_that_all_see_the_same(picture)


@pytest.mark.parametrize("kind", ["JPEG", "progressive JPEG", "JPEG with restarts", "grey JPEG", "blank JPEG"])
def test_no_part_of_a_jpeg_with_an_end_mark_passes_for_the_whole(kind: str) -> None:
    """libjpeg fills up with grey, or smooths over, what is missing."""
    data = KEPT[kind]()
    whole = np.asarray(decode(data, "jpeg"))
    for size in range(2, len(data)):
        try:
            picture = read(data[:size] + b"\xff\xd9")
        except ValueError:
            continue
        # A few bits that nobody can see.
        np.testing.assert_array_equal(np.asarray(decode(picture.data, picture.image_format)), whole)
        assert size > 0.9 * len(data)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"quality": 100}, r"its pixels end too early: from row \d+ of 96 on there are zeros"),
        ({"restart_marker_rows": 1}, "its pixels end too early: . parts between restarts are missing"),
        ({"progressive": True}, "its last scans are missing: 192 of 192 coefficients are not there in full"),
    ],
)
def test_zeros_do_not_pass_for_pixels(options: dict[str, Any], fact: str) -> None:
    """A file that was written in part has them where the rest should be."""
    data = file(photograph(96, 128), "JPEG", **options)
    for left in (1200, len(data) - 1 - data.index(b"\xff\0", len(data) - 1200)):  # and behind an FF of the pixels' own
        with pytest.raises(ValueError, match=fact):
            read(data[:-left] + bytes(left - 2) + b"\xff\xd9")


def test_zeros_that_are_pixels_or_mean_nothing_do_no_harm() -> None:
    blank = KEPT["blank JPEG"]()
    assert blank[-20:-2] == bytes(18)
    data = KEPT["JPEG"]()
    for sound in (blank, blank + bytes(600), data[:-2] + bytes(3) + data[-2:], data[:-2] + bytes(600) + data[-2:]):
        assert read(sound).data == sound


def test_a_scan_that_is_left_out_is_missed() -> None:
    data = file(photograph(), "JPEG", progressive=True)
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    for number, start in enumerate(scans):
        end = scans[number + 1] if number + 1 < len(scans) else len(data) - 2
        with pytest.raises(ValueError, match=r"scans? (is|are) missing|end too early"):
            read(data[:start] + data[end:])


def test_a_jpeg_of_scans_and_restarts_without_end_is_refused() -> None:
    """Thirty bytes of a scan would take as long as the whole picture, two of a restart the memory of 128."""
    data = file(photograph().convert("L"), "JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    scan = data[starts[1] : data.index(b"\xff", starts[1] + 2)]
    assert read(data[: starts[1]] + scan * 50 + data[starts[1] :])
    for more in (scan * 100, b"\xff\xd0" * 200_000):
        with pytest.raises(ValueError, match="more parts than any picture needs"):
            read(data[: starts[1]] + more + data[starts[1] :])


@pytest.mark.parametrize("make", [odd_pictures.pngs, odd_pictures.jpegs, odd_pictures.gifs])
def test_odd_pictures_are_stored_as_all_see_them_or_refused(make: Callable[[], Iterator[Odd]]) -> None:
    """A few of those of tests/campaigns/odd_pictures.py."""
    became: Counter[str] = Counter()
    for odd in itertools.islice(make(), 0, None, 13):
        kind, wrong = odd_pictures.disagreements(odd, training_view)
        assert not wrong, odd.name
        became[kind.partition(":")[0]] += 1
    assert {"kept", "refused"} <= set(became)


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b"", "an empty file"),
        (b"hello", "not a PNG, JPEG or GIF"),
        (file(photograph(), "BMP"), "not a PNG, JPEG or GIF"),
        (handmade_png(ROWS[:-4]), "its pixels end too early"),
        (handmade_png(ROWS[:-1] + b"\0"), "not a readable PNG"),
        (handmade_png(zlib.compress(bytes(20))), "end too early, 2 of 3 rows are there"),
        (handmade_png(zlib.compress(bytes(3 << 20))), "holds more pixels than its header says"),
        (handmade_png(ROWS, chunk(b"ABCD", b"")), "a part that nobody knows"),
        (handmade_png(ROWS, height=60_000, width=60_000), "found 60000 × 60000 pixels"),
        (handmade_png(ROWS, height=9_000, width=9_000), "found 9000 × 9000 pixels"),
        (handmade_png(ROWS, height=1, width=70_000), "found 70000 × 1 pixels"),
        (handmade_png(ROWS, height=0), "not a"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_fact(data: bytes, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        read(data)


def test_stored_bytes_of_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match="its bytes are those of a gif"):
        decode(KEPT["GIF"](), "png")
    with pytest.raises(ValueError, match="found 300000000"):
        image_files.check_size(300_000_000)
