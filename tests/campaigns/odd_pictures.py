"""Odd picture files by the hundred: what is stored of each, and what TensorFlow and Pillow then see in it.

    python tests/campaigns/odd_pictures.py [FOLDER ...]

Those that are generated here, and all files in the folders: test pictures of other projects, say. Each goes through
`image_files.read` with a `decoder.Decoder` as `convert` has it. What is stored must be the same to Pillow and, decoded
as training does, in grey and in colour; `image_files.decode`, which `verify` has, must agree. Where a file is one that
was cut short, it is refused, or what is stored is the whole picture; where it is sound, it is stored. The last line on
stdout is one JSON object; exit code 1 where there is a disagreement.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tfos_job.formats import image_files  # noqa: E402
from tfos_job.formats.decoder import Decoder  # noqa: E402
from tfos_job.formats.image_files import TrainingView  # noqa: E402
from tfos_job.input.decoding import decode_file  # noqa: E402

HEIGHT, WIDTH = 19, 23
BLOCK_BYTES = 512  # of a disk: of what is written in part the rest is zeros


class Odd(NamedTuple):
    """A file, and what it must come to.

    Attributes:
      whole: the file that it was before something was cut off; it is the same one, or refused. None: not known.
      is_sound: whether it must be stored.
      paper: bool [h, w], where white paper must show.
    """

    name: str
    data: bytes
    whole: bytes | None = None
    is_sound: bool = False
    paper: np.ndarray | None = None


def photograph(height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Colours that change smoothly."""
    few = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)


def file(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


# --- PNG -------------------------------------------------------------------------------------------------------------

DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
BESIDE_THE_PIXELS = {
    "gamma": (b"gAMA", struct.pack(">I", 45_455)),
    "gamma_of_0": (b"gAMA", bytes(4)),
    "gamma_of_2_bytes": (b"gAMA", b"\0\0"),
    "srgb": (b"sRGB", b"\0"),
    "srgb_of_9": (b"sRGB", b"\x09"),
    "chroma_empty": (b"cHRM", b""),
    "profile": (b"iCCP", b"x\0\0" + zlib.compress(bytes(200))),
    "profile_method_1": (b"iCCP", b"x\0\1abc"),
    "profile_empty": (b"iCCP", b""),
    "profile_cut": (b"iCCP", b"x\0\0" + zlib.compress(bytes(200))[:-5]),
    "text": (b"tEXt", b"Title\0ab"),
    "text_empty": (b"tEXt", b""),
    "text_method_5": (b"zTXt", b"k\0\5abc"),
    "text_huge": (b"zTXt", b"k\0\0" + zlib.compress(bytes(3 << 20))),
    "international_text": (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(b"abc")),
    "time": (b"tIME", struct.pack(">HBBBBB", 2026, 1, 2, 3, 4, 5)),
    "density": (b"pHYs", struct.pack(">IIB", 10, 20, 1)),
    "density_of_2": (b"pHYs", b"\0\0"),
    "background": (b"bKGD", bytes(6)),
    "significant": (b"sBIT", b"\5\5\5"),
    "exif_junk": (b"eXIf", b"junk"),
    "animation_of_one": (b"acTL", struct.pack(">II", 1, 0)),
    "coding": (b"cICP", b"\x09\x10\x00\x01"),
    "private": (b"prVt", b"abc"),
    "private_large": (b"prVt", bytes(100_000)),
}


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    colour: int, depth: int, packed: bytes, *before: bytes, interlaced: bool = False, after: Sequence[bytes] = ()
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced))
    palette = chunk(b"PLTE", np.random.default_rng(1).bytes(3 * 2 ** min(depth, 8))) if colour == 3 else b""
    parts = (b"\x89PNG\r\n\x1a\n", header, palette, *before, chunk(b"IDAT", packed), *after, chunk(b"IEND"))
    return b"".join(parts)


def png_rows(colour: int, depth: int, *, interlaced: bool, num_values: int = 256) -> list[bytes]:
    """Packed rows of few values, by random filters: any bytes are a picture."""
    draw = np.random.default_rng(colour * 100 + depth)
    rows = []
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        width, height = -(-(WIDTH - left) // across), -(-(HEIGHT - top) // down)
        size = -(-width * depth * SAMPLES[colour] // 8)
        for _ in range(height if width > 0 else 0):
            method = int(draw.integers(0, 5)) if num_values == 256 else 0
            rows.append(bytes([method]) + draw.integers(0, num_values, size, np.uint8).tobytes())
    return rows


def pngs() -> Iterator[Odd]:
    for (colour, depths), interlaced in itertools.product(DEPTHS.items(), (False, True)):
        for depth in depths:
            name = f"png_colour_{colour}_depth_{depth}{'_interlaced' * interlaced}"
            rows = png_rows(colour, depth, interlaced=interlaced)
            whole = png(colour, depth, zlib.compress(b"".join(rows)), interlaced=interlaced)
            yield Odd(name, whole, whole, is_sound=True)
            for left in (0, 1, len(rows) // 2, len(rows) - 1):
                short = zlib.compress(b"".join(rows[:left]))
                yield Odd(f"{name}_{left}_rows", png(colour, depth, short, interlaced=interlaced), whole)
            longer = zlib.compress(b"".join(rows) + bytes(100))
            yield Odd(f"{name}_longer", png(colour, depth, longer, interlaced=interlaced), whole)
            yield from _with_key(name, colour, depth, interlaced=interlaced)
    for kind, part in BESIDE_THE_PIXELS.items():
        for colour, depth in ((0, 8), (2, 8), (3, 8), (6, 8), (2, 16)):
            packed = zlib.compress(b"".join(png_rows(colour, depth, interlaced=False)))
            name = f"png_{kind}_colour_{colour}_depth_{depth}"
            plain = png(colour, depth, packed)
            yield Odd(name, png(colour, depth, packed, chunk(*part)), plain, is_sound=True)
            yield Odd(f"{name}_behind", png(colour, depth, packed, after=(chunk(*part),)), plain, is_sound=True)
            spoilt = chunk(*part)[:-1] + b"!"
            yield Odd(f"{name}_checksum", png(colour, depth, packed, spoilt), plain)
    yield from _cut("png", file(photograph(), "PNG"), b"")
    yield from _flipped("png_of_pillow", file(photograph(), "PNG"), 40)
    yield from _flipped("png_with_a_palette", png(3, 4, zlib.compress(b"".join(png_rows(3, 4, interlaced=False)))), 20)


def _with_key(name: str, colour: int, depth: int, *, interlaced: bool) -> Iterator[Odd]:
    """With one value that is transparent, and pixels of it; libpng says where they are."""
    if colour not in (0, 2, 3):
        return
    rows = png_rows(colour, depth, interlaced=interlaced, num_values=2 if depth == 16 else 5)
    for value in (0, 1, 2, 257):
        part = bytes([255, 0, 128, 0]) if colour == 3 else struct.pack(">H", value) * SAMPLES[colour]
        packed = zlib.compress(b"".join(rows))
        data = png(colour, depth, packed, chunk(b"tRNS", part[: 2 ** min(depth, 2)] if colour == 3 else part),
                   interlaced=interlaced)  # fmt: skip
        alpha = tf.io.decode_png(data, channels=4, dtype=tf.uint16).numpy()[:, :, 3]
        yield Odd(f"{name}_key_{value}", data, is_sound=True, paper=None if (alpha == 65535).all() else alpha == 0)


# --- JPEG ------------------------------------------------------------------------------------------------------------


def jpegs() -> Iterator[Odd]:
    shapes = ((HEIGHT, WIDTH), (1, 1), (8, 8), (16, 33), (64, 50))
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "fine": {"quality": 98},
        "coarse": {"quality": 5},
        "optimized": {"optimize": True},
        "restarts": {"restart_marker_blocks": 2},
        "restart_rows": {"restart_marker_rows": 1},
        "progressive": {"progressive": True},
        "progressive_restarts": {"progressive": True, "restart_marker_blocks": 3},
    }
    for (kind, options), subsampling, shape in itertools.product(kinds.items(), (0, 1, 2), shapes):
        name = f"jpeg_{kind}_{subsampling}_{shape[0]}x{shape[1]}"
        data = file(photograph(*shape), "JPEG", subsampling=subsampling, **options)
        yield Odd(name, data, data, is_sound=True)
    for kind, options in kinds.items():
        for mode in ("L", "CMYK"):
            data = file(photograph().convert(mode), "JPEG", **options)
            yield Odd(f"jpeg_{kind}_{mode}", data, data, is_sound=True)
            yield from _cut(f"jpeg_{kind}_{mode}", data, b"\xff\xd9", step=37)
        data = file(photograph(96, 128), "JPEG", **{"quality": 90} | options)
        yield from _cut(f"jpeg_{kind}", data, b"\xff\xd9", step=13)
        yield from _flipped(f"jpeg_{kind}", data, 60)
        yield from _without_scans(f"jpeg_{kind}", data)
        yield from _with_markers(f"jpeg_{kind}", data)
    blank = file(Image.new("RGB", (64, 48), "white"), "JPEG", optimize=True)
    yield Odd("jpeg_blank", blank, blank, is_sound=True)
    yield Odd("jpeg_junk_behind", blank + b"junk", blank, is_sound=True)
    yield Odd("jpeg_zeros_before_its_end", blank[:-2] + bytes(50) + blank[-2:], blank)
    yield Odd("mpo", file(photograph(), "MPO", save_all=True, append_images=[photograph().rotate(90)]), is_sound=True)


def _cut(name: str, data: bytes, end: bytes, step: int = 5) -> Iterator[Odd]:
    """Cut off; with an end mark; and with zeros, as a file has that was written in part."""
    for size in range(1, len(data), step):
        yield Odd(f"{name}_cut_{size}", data[:size], data)
        if end:
            yield Odd(f"{name}_cut_{size}_end", data[:size] + end, data)
        if end and len(data) - size >= BLOCK_BYTES:
            yield Odd(f"{name}_cut_{size}_zeros", data[:size] + bytes(len(data) - size), data)
            yield Odd(f"{name}_cut_{size}_zeros_end", data[:size] + bytes(len(data) - size - len(end)) + end, data)


def _flipped(name: str, data: bytes, num: int) -> Iterator[Odd]:
    draw = np.random.default_rng(len(data))
    for position, bit in zip(draw.integers(0, len(data), num).tolist(), draw.integers(0, 8, num).tolist(), strict=True):
        yield Odd(
            f"{name}_flipped_{position}_{bit}",
            b"".join((data[:position], bytes([data[position] ^ 1 << bit]), data[position + 1 :])),
        )


def _without_scans(name: str, data: bytes) -> Iterator[Odd]:
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    for number, at in enumerate(scans[1:], start=1):
        yield Odd(f"{name}_{number}_scans", data[:at] + b"\xff\xd9", data)


def _with_markers(name: str, data: bytes) -> Iterator[Odd]:
    """A byte FF where there was another one: what libjpeg fills up, Pillow takes, and TensorFlow may refuse."""
    for position in range(2, len(data), 17):
        yield Odd(f"{name}_marker_{position}", data[:position] + b"\xff" + data[position + 1 :])
    restarts = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    for number, (first, second) in enumerate(itertools.pairwise(restarts)):
        yield Odd(f"{name}_without_part_{number}", data[:first] + data[second:], data)


# --- GIF -------------------------------------------------------------------------------------------------------------

EXTENSIONS = {
    "none": b"",
    "comment": b"!\xfe\x02ab\0",
    "empty_comment": b"!\xfe\0",
    "loop": b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0",
    "empty_application": b"!\xff\0",
    "plain_text": b"!\x01\x0c" + bytes(12) + b"\0",
    "unknown": b"!\x42\x01a\0",
    **{f"disposal_{n}": b"!\xf9\x04" + bytes([n << 2, 0, 0, 0]) + b"\0" for n in range(8)},
    **{f"transparent_{n}": b"!\xf9\x04" + bytes([1, 0, 0, n]) + b"\0" for n in (0, 3, 200)},
}


def gif(
    bits: int = 2,
    before: bytes = b"",
    *,
    table_bits: int = 2,
    interlaced: bool = False,
    num_pixels: int = HEIGHT * WIDTH,
) -> bytes:
    palette = np.random.default_rng(2).bytes(3 << table_bits)
    pixels = [i % 4 for i in range(num_pixels)]
    frame = b"," + struct.pack("<HHHHB", 0, 0, WIDTH, HEIGHT, 0x40 * interlaced)
    screen = struct.pack("<HHBBB", WIDTH, HEIGHT, 0xF0 | table_bits - 1, 0, 0)
    return b"".join((b"GIF89a", screen, palette, before, frame, bytes([bits]), _blocks(_lzw(pixels, bits)), b";"))


def _lzw(pixels: Sequence[int], bits: int) -> bytes:
    """Literals alone, with a clear code before the table grows."""
    clear, width, since = 1 << bits, bits + 1, 0
    codes = [clear]
    for pixel in pixels:
        if since >= clear - 2:
            codes.append(clear)
            since = 0
        codes.append(pixel)
        since += 1
    codes.append(clear + 1)
    packed = sum(code << (place * width) for place, code in enumerate(codes))
    return packed.to_bytes(-(-len(codes) * width // 8), "little")


def _blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)) + b"\0"


def gifs() -> Iterator[Odd]:
    for bits, interlaced in itertools.product(range(2, 13), (False, True)):
        data = gif(bits, interlaced=interlaced)
        yield Odd(f"gif_{bits}_bits{'_interlaced' * interlaced}", data, data, is_sound=True)
    for (kind, extension), table_bits in itertools.product(EXTENSIONS.items(), (2, 5, 8)):
        yield Odd(f"gif_{kind}_{table_bits}", gif(4, extension, table_bits=table_bits), is_sound=True)
    yield Odd("gif_colours_that_are_not_there", gif(2, table_bits=1))
    whole = gif(3)
    for num_pixels in (0, 1, WIDTH, HEIGHT * WIDTH // 2, HEIGHT * WIDTH - 1):
        yield Odd(f"gif_{num_pixels}_pixels", gif(3, num_pixels=num_pixels), whole)
    yield Odd("gif_more_pixels", gif(3, num_pixels=HEIGHT * WIDTH + 50), whole)
    yield from _cut("gif", whole, b"")
    for options in ({"interlace": True}, {"interlace": False}):
        for colours in (2, 3, 17, 128, 256):
            data = file(photograph().quantize(colours), "GIF", **options)
            yield Odd(f"gif_of_pillow_{colours}_{options['interlace']}", data, data, is_sound=True)
            yield from _flipped(f"gif_of_pillow_{colours}_{options['interlace']}", data, 30)
    frames = [photograph().rotate(90 * turn).quantize(30) for turn in range(3)]
    for disposal in range(4):
        data = file(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=disposal)
        yield Odd(f"gif_of_three_{disposal}", data, is_sound=True)
        yield from _flipped(f"gif_of_three_{disposal}", data, 30)
    corner = bytearray(file(photograph().quantize(30), "GIF"))
    corner[6:10] = struct.pack("<HH", WIDTH + 7, HEIGHT + 5)
    yield Odd("gif_in_a_corner", bytes(corner), is_sound=True)


# --- what comes of them ----------------------------------------------------------------------------------------------


def generated() -> Iterator[Odd]:
    yield from pngs()
    yield from jpegs()
    yield from gifs()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield Odd(f"png_mode_{mode}", file(_in_mode(mode), "PNG"), is_sound=True)


def _in_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(3).integers(0, 65536, (HEIGHT, WIDTH), np.uint16))
    return photograph().convert(mode)


def disagreements(odd: Odd, training_view: TrainingView) -> tuple[str, list[str]]:
    """What became of a file (`kept`, `made a PNG`, or why it was refused), and what is wrong with that."""
    try:
        picture = image_files.read(odd.data, training_view=training_view)
    except ValueError as error:
        return f"refused: {error}", ["a sound picture is refused"] if odd.is_sound else []
    became = "kept" if picture.data == odd.data else "made a PNG"
    with Image.open(io.BytesIO(picture.data)) as image:
        pillows = image.convert("RGB") if image.mode not in ("L", "RGB") else image.copy()
    wrong = []
    for num_channels, mode in ((1, "L"), (3, "RGB")):
        expected = np.asarray(pillows.convert(mode)).reshape(picture.height, picture.width, num_channels)
        try:
            theirs = decode_file(tf.constant(picture.data), picture.image_format, num_channels).numpy()
        except tf.errors.OpError as error:
            wrong.append(f"training cannot read it: {error.message[:100]}")
        else:
            if not np.array_equal(theirs, expected):
                wrong.append(f"training sees other pixels in {num_channels} channels")
    try:
        again = image_files.decode(picture.data, picture.image_format, training_view=training_view)
        if again.size != (picture.width, picture.height):
            wrong.append("verify sees another size")
    except ValueError as error:
        wrong.append(f"verify refuses it: {error}")
    colours = np.asarray(pillows.convert("RGB"))
    if odd.whole is not None and odd.whole != odd.data:
        whole = image_files.read(odd.whole, keep=False).data
        if not np.array_equal(np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")), colours):
            wrong.append("what was cut off is made up")
    if odd.paper is not None and not (colours[odd.paper] == 255).all():
        wrong.append("what is transparent is no paper")
    return became, wrong


def files_of(folders: Sequence[Path]) -> Iterator[Odd]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name.lower().endswith(
                (".png", ".apng", ".jpg", ".jpeg", ".jfif", ".mpo", ".gif")
            ):
                yield Odd(str(path.relative_to(folder)), path.read_bytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--refused", action="store_true", help="name what is refused, and why")
    args = parser.parse_args()
    decoder = Decoder()
    total: Counter[str] = Counter()
    for source, odds in (("generated", generated()), ("found", files_of(args.folders))):
        for odd in odds:
            became, wrong = disagreements(odd, decoder.digest)
            total[f"{source}: {became.partition(':')[0]}"] += 1
            total["disagreements"] += len(wrong)
            for fact in wrong:
                print(f"{odd.name} ({became}): {fact}", file=sys.stderr)
            if args.refused and became.startswith("refused"):
                print(f"{odd.name}: {became}", file=sys.stderr)
    decoder.close()
    print(json.dumps(dict(sorted(total.items())) | {"disagreements": total["disagreements"]}))
    return 1 if total["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
