"""What strokes are worth as pictures: a network's accuracy on drawn characters, by how they are drawn.

Strokes come from medians of characters, a folder of files `安.json` with `{"medians": [[[x, y], ...], ...]}` in a
square of 1024 whose y grows upwards from -124 (npm `hanzi-writer-data` has them; it is no part of this project). They
are drawn as they are, and by hands: slanted and stretched, each stroke shifted and bent, mildly and strongly.

    python benchmarks/strokes.py --train_dir RUN --medians FOLDER --gnt "FILES"

FILES, a pattern, are GNT files that RUN was trained on: their ink is measured, as `export` does. The table goes to
stderr; the last line of stdout is one JSON object. benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tfos_job import Predictor
from tfos_job.formats import gnt_reader
from tfos_job.inference.ink_statistics import TYPICAL, InkStatistics, measure
from tfos_job.inference.pictures import Request
from tfos_job.inference.strokes import draw

Strokes = list[list[list[float]]]

SIDE = 1024
NUM_MEASURED = 1000
NUM_DRAWN = 10  # of each character by each hand
HANDS = {"medians": 0, "mild hands": 1, "strong hands": 2}


def read_glyphs(paths: list[str]) -> Iterator[np.ndarray]:
    for path in paths:
        with open(path, "rb") as stream:
            for record in gnt_reader.read_records(stream, path):
                yield np.frombuffer(record.pixels, np.uint8).reshape(record.height, record.width)


def medians_of(folder: Path, character: str) -> Strokes:
    values = json.loads((folder / f"{character}.json").read_text("utf-8"))["medians"]
    return [[[x, 900 - y] for x, y in stroke] for stroke in values]


def by_hand(strokes: Strokes, strength: float, random: np.random.Generator) -> Strokes:
    """The strokes as somebody may write them."""
    slant = np.eye(2) + strength * random.normal(0, 0.12, (2, 2))
    written = []
    for stroke in strokes:
        points = np.array(stroke, float)
        parts = [np.linspace(*ends, 12, endpoint=False) for ends in itertools.pairwise(points)]
        points = np.concatenate([*parts, points[-1:]]) @ slant.T + strength * random.normal(0, 22, 2)
        bend = np.sin(np.linspace(0, np.pi, len(points)))[:, np.newaxis]
        written.append((points + strength * bend * random.normal(0, 18, 2)).tolist())
    return written


def on_a_canvas(strokes: Strokes, pen: int) -> np.ndarray:
    """What a page would send that draws in a field of 280 pixels: uint8 [280, 280]."""
    image = Image.new("L", (280, 280), 255)
    painter = ImageDraw.Draw(image)
    for stroke in strokes:
        painter.line([(56 + x * 140 / SIDE, 56 + y * 140 / SIDE) for x, y in stroke], fill=0, width=pen, joint="curve")
    return np.asarray(image)


def ways(like: InkStatistics) -> dict[str, Callable[[Strokes], np.ndarray]]:
    def drawn(changed: InkStatistics) -> Callable[[Strokes], np.ndarray]:
        return lambda strokes: draw(strokes, [SIDE, SIDE], changed)

    found: dict[str, Callable[[Strokes], np.ndarray]] = {
        "as training's ink": drawn(like),
        "as typical ink": drawn(TYPICAL),
        "black": drawn(dataclasses.replace(like, ink_level=0)),
    }
    for factor in (0.6, 4 / 3, 2):
        changed = dataclasses.replace(like, stroke_width=factor * like.stroke_width)
        found[f"{factor:.2f} times as wide"] = drawn(changed)
    return found | {f"a canvas as it is, pen {pen}": lambda s, pen=pen: on_a_canvas(s, pen) for pen in (3, 12)}


def accuracy(predictor: Predictor, pictures: list[np.ndarray], labels: list[int]) -> float:
    seen = [predictor.see(Request("", picture), raw_image=True) for picture in pictures]
    images = predictor.images([one.pixels for one in seen])  # type: ignore[union-attr]
    parts = np.array_split(images, -(-len(images) // 128))
    answers = np.concatenate([predictor.probabilities(part).argmax(axis=1) for part in parts])
    return float((answers == np.array(labels)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train_dir", "--medians", "--gnt"):
        parser.add_argument(name, required=True)
    flags = parser.parse_args()
    predictor = Predictor(flags.train_dir)
    glyphs = list(read_glyphs(sorted(glob.glob(flags.gnt))))
    like = measure(glyphs[:: max(1, len(glyphs) // NUM_MEASURED)])
    assert like is not None
    print(f"training's ink: {like}", file=sys.stderr)
    folder, random = Path(flags.medians), np.random.default_rng(0)
    known = [(label, medians_of(folder, one)) for label, one in enumerate(predictor.classes)]
    results: dict[str, Any] = {"ink": like.to_json(), "top_1": {}}
    sets = {}
    for name, strength in HANDS.items():
        repeated = [pair for pair in known for _ in range(NUM_DRAWN if strength else 1)]
        sets[name] = [(label, by_hand(one, strength, random) if strength else one) for label, one in repeated]
    for way, picture in ways(like).items():
        row = {
            name: round(accuracy(predictor, [picture(one) for _, one in drawn], [label for label, _ in drawn]), 3)
            for name, drawn in sets.items()
        }
        results["top_1"][way] = row
        print(f"{way:28}" + "".join(f"{name}: {value:.3f}   " for name, value in row.items()), file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
