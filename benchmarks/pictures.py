"""What it costs to store a picture file: files a second of a task's `image_files.read`, beside bare decoding.

    python benchmarks/pictures.py

For each kind of file: `pillow` decodes it, which is the least there is to do; `unasked` is `read` but for TensorFlow's
word, which is known beforehand; `asked` is `read` with TensorFlow in its process (`decoder.Decoder`), as in `convert`;
`packed` makes each a PNG (`--image_format png`). All take turns in this process. `start_s` is the first question's.

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tfos_job.formats import image_files
from tfos_job.formats.decoder import Decoder

_SECONDS = 1.0  # of a turn


def photograph(height: int, width: int) -> Image.Image:
    """Smooth colours with some noise, so that a JPEG has about as many bytes as one of a camera."""
    draw = np.random.default_rng(0)
    few = Image.fromarray(draw.integers(0, 256, (height // 16, width // 16, 3), np.uint8))
    smooth = np.asarray(few.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(smooth + draw.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8))


def file(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def kinds() -> dict[str, bytes]:
    picture = photograph(480, 640)
    return {
        "jpeg_0.3_megapixels": file(picture, "JPEG", quality=90),
        "progressive_jpeg_0.3_megapixels": file(picture, "JPEG", quality=90, progressive=True),
        "jpeg_12_megapixels": file(photograph(3008, 4000), "JPEG", quality=90),
        "png_0.3_megapixels": file(picture, "PNG"),
        "gif_0.3_megapixels": file(picture.quantize(200), "GIF"),
        "png_64_by_64": file(photograph(64, 64), "PNG"),
    }


def decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def rate(work: Callable[[], object]) -> float:
    """How often a second."""
    began_s, num = time.perf_counter(), 0
    while time.perf_counter() - began_s < _SECONDS:
        work()
        num += 1
    return num / (time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    decoder = Decoder()
    began_s = time.perf_counter()
    decoder.digest(file(photograph(64, 64), "PNG"), "png")
    found: dict[str, Any] = {"start_s": round(time.perf_counter() - began_s, 1)}
    for kind, data in kinds().items():
        known = decoder.digest(data, kind.replace("progressive_", "").partition("_")[0])
        assert image_files.read(data, training_view=decoder.digest).data == data
        sides: dict[str, Callable[[], object]] = {
            "pillow": lambda data=data: decode(data),
            "unasked": lambda data=data, known=known: image_files.read(data, training_view=lambda *_: known),
            "asked": lambda data=data: image_files.read(data, training_view=decoder.digest),
            "packed": lambda data=data: image_files.read(data, keep=False),
        }
        rates = [{side: rate(work) for side, work in sides.items()} for _ in range(args.rounds)]
        medians = {side: round(statistics.median(turn[side] for turn in rates), 1) for side in sides}
        over = {f"{side}_over_pillow": round(statistics.median(turn[side] / turn["pillow"] for turn in rates), 3)
                for side in sides if side != "pillow"}  # fmt: skip
        found[kind] = {"bytes": len(data), **medians, **over}
        print(kind, found[kind], file=sys.stderr)
    decoder.close()
    print(json.dumps(found | {"load_average": os.getloadavg()[0], "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
