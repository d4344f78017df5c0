"""What finding the ink is worth: a network's accuracy on pictures that are no tight crops, over that on the crops.

Each glyph of GNT files that the network was not trained on becomes a picture of each kind of `tests/papers.py`: on a
large page, on ruled paper, on a photograph, and so on. A picture goes to the network as it is (`raw`), and as
`inference/ink.py` finds it (`found`). `ratio` is the accuracy of `found` over that of the tight crops as they are.
Pages without ink are counted by the share that is marked doubtful.

    python benchmarks/ink.py --train_dir RUN --gnt_dir FOLDER [--picture FILE.png]
    python benchmarks/ink.py --picture benchmarks/ink.png       what is found of synthetic glyphs, without a network

The table goes to stderr; the last line of stdout is one JSON object. benchmarks/README.md has dated results, and the
commands that make RUN and FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.papers

from tests import papers  # noqa: E402
from tfos_job.formats import gnt, gnt_reader  # noqa: E402
from tfos_job.formats.charset import level1  # noqa: E402
from tfos_job.inference.ink import Finding, find  # noqa: E402
from tfos_job.layout import RunLayout  # noqa: E402
from tfos_job.local_jobs import synth  # noqa: E402
from tfos_job.reports import lettering  # noqa: E402

GreyArray = np.ndarray
Classify = Callable[[Sequence[GreyArray]], np.ndarray]

_BATCH = 256
_TILE, _GAP, _COLUMNS = 72, 4, 8


@dataclass(frozen=True)
class Glyph:
    """A tight crop, uint8 [h, w], and its character."""

    pixels: GreyArray
    character: str


def read_glyphs(folder: Path, most: int, seed: int) -> list[Glyph]:
    """The glyphs of a folder's GNT files; `most` of them, drawn at random, if there are more and it is not 0."""
    glyphs = []
    for path in sorted(folder.glob("*.gnt")):
        with open(path, "rb") as stream:
            for record in gnt_reader.read_records(stream, path.name):
                pixels = np.frombuffer(record.pixels, np.uint8).reshape(record.height, record.width)
                glyphs.append(Glyph(pixels, str(gnt.decode_tag(record.tag))))
    if not glyphs:
        sys.exit(f"ink.py: no GNT file in {folder}")
    if most and most < len(glyphs):
        chosen = np.sort(np.random.default_rng(seed).choice(len(glyphs), most, replace=False))
        return [glyphs[i] for i in chosen]
    return glyphs


def synthetic_glyphs(num: int, seed: int) -> list[Glyph]:
    """Glyphs of `synth`, each by another writer."""
    charset = level1(3755).characters
    chosen = np.random.default_rng(seed).choice(len(charset), num, replace=False)
    characters = [charset[i] for i in chosen]
    drawings = synth.draw_characters(characters)
    hands = [synth.Hand.of(seed, writer) for writer in range(num)]
    return [
        Glyph(synth.render_glyph(drawing, hand, np.random.default_rng([seed, number])), character)
        for number, (drawing, hand, character) in enumerate(zip(drawings, hands, characters, strict=True))
    ]


def picture_of(kind: str, number: int, glyph: Glyph, seed: int) -> tuple[GreyArray, papers.Box]:
    """The picture of a kind of a glyph: the same in each run with the seed."""
    draw = np.random.default_rng([seed, list(papers.KINDS).index(kind), number])
    return papers.KINDS[kind](glyph.pixels, draw)


def overlap(one: papers.Box, other: papers.Box) -> float:
    """Intersection over union."""
    width, height = (max(min(one[i + 2], other[i + 2]) - max(one[i], other[i]), 0) for i in (0, 1))
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (first + second - width * height)


def network(train_dir: str, checkpoint: str) -> tuple[Classify, Sequence[str]]:
    """Returns a function from pictures to predicted classes, and the characters of the classes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    from tfos_job.input.decoding import preprocess, to_float
    from tfos_job.networks.variables import form_of, restore_model
    from tfos_job.run import checkpoints

    info, arrays = checkpoints.read(RunLayout(train_dir), checkpoint)
    model, form = restore_model(info, arrays), form_of(info)

    def classify(pictures: Sequence[GreyArray]) -> np.ndarray:
        found = []
        for at in range(0, len(pictures), _BATCH):
            batch = [preprocess(tf.constant(p[np.newaxis, :, :, np.newaxis]), form) for p in pictures[at : at + _BATCH]]
            found.append(np.argmax(model(to_float(tf.concat(batch, axis=0)), training=False), axis=1))
        return np.concatenate(found)

    return classify, info.characters


def measure(kind: str, glyphs: Sequence[Glyph], labels: np.ndarray, classify: Classify, seed: int) -> dict[str, Any]:
    """One kind's row."""
    raw, found, overlaps = [], [], []
    doubts: Counter[str] = Counter()
    seconds = []
    for number, glyph in enumerate(glyphs):
        picture, box = picture_of(kind, number, glyph, seed)
        began = time.process_time()
        finding = find(picture)
        seconds.append(time.process_time() - began)
        raw.append(picture)
        found.append(finding.pixels)
        overlaps.append(overlap(finding.box, box))
        if finding.doubtful:
            doubts[finding.doubtful] += 1
    return {
        "raw": round(float(np.mean(classify(raw) == labels)), 4),
        "found": round(float(np.mean(classify(found) == labels)), 4),
        "box_overlap": round(float(np.mean(overlaps)), 3),
        "doubtful": round(doubts.total() / len(glyphs), 4),
        "reasons": dict(doubts),
        "ms": round(1000 * float(np.median(seconds)), 1),
    }


def measure_blank(paper: papers.Paper, num: int, seed: int) -> float:
    """The share of pages without ink that are marked."""
    pages = (papers.blank(paper, np.random.default_rng([seed, number])) for number in range(num))
    return float(np.mean([bool(find(page).doubtful) for page in pages]))


def draw_sheet(glyphs: Sequence[Glyph], seed: int) -> Image.Image:
    """A row a kind: pictures above what was found in them."""
    glyphs = glyphs[:_COLUMNS]
    names = [*papers.KINDS, "blank"]
    label = 80
    width, row = label + len(glyphs) * (_TILE + _GAP), 2 * _TILE + 3 * _GAP
    sheet = Image.new("RGB", (width, row * len(names)), (150, 175, 205))
    pen = ImageDraw.Draw(sheet)
    for at, name in enumerate(names):
        lettering.write(pen, 6, at * row + _TILE, name, size=12, fill="black")
        for column, (picture, finding) in enumerate(_pairs(name, glyphs, seed)):
            x, y = label + column * (_TILE + _GAP), at * row + _GAP
            sheet.paste(_tile(picture), (x, y))
            if name != "blank":
                sheet.paste(_tile(finding.pixels), (x, y + _TILE + _GAP))
            if finding.doubtful:
                lettering.write(pen, x, y + _TILE + 20, finding.doubtful, size=10, fill="#a00000")
    return sheet


def _pairs(name: str, glyphs: Sequence[Glyph], seed: int) -> Iterator[tuple[GreyArray, Finding]]:
    if name in papers.KINDS:
        pictures = [picture_of(name, number, glyph, seed)[0] for number, glyph in enumerate(glyphs)]
    else:
        kinds = list(papers.PAPERS.values())
        pictures = [papers.blank(kinds[i % len(kinds)], np.random.default_rng([seed, i])) for i in range(len(glyphs))]
    return ((picture, find(picture)) for picture in pictures)


def _tile(pixels: GreyArray) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
    return image


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--train_dir", help="a run")
    add("--checkpoint", default="last", help="as of `predict` (default: last)")
    add("--gnt_dir", type=Path, help="GNT files of writers whom the run was not trained on")
    add("--num_glyphs", type=int, default=0, help="of them, drawn at random (default: all)")
    add("--kinds", default=",".join(papers.KINDS), help="comma-separated; the first is what ratios are over")
    add("--num_blank", type=int, default=100, help="pages without ink for each paper (default: 100)")
    add("--seed", type=int, default=0)
    add("--picture", type=Path, help="draw pictures and what was found to this PNG")
    return parser


def main() -> None:
    args = make_parser().parse_args()
    glyphs = read_glyphs(args.gnt_dir, args.num_glyphs, args.seed) if args.gnt_dir else synthetic_glyphs(_COLUMNS, 0)
    if args.picture:
        shuffled = np.random.default_rng(args.seed).permutation(len(glyphs))
        sheet = draw_sheet([glyphs[i] for i in shuffled], args.seed)
        sheet.quantize(32, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(args.picture, optimize=True)
    if not args.train_dir:
        return
    if not args.gnt_dir:
        sys.exit("ink.py: give --gnt_dir")
    classify, characters = network(args.train_dir, args.checkpoint)
    glyphs = [glyph for glyph in glyphs if glyph.character in characters]
    labels = np.array([characters.index(glyph.character) for glyph in glyphs])
    rows: dict[str, dict[str, Any]] = {}
    for kind in args.kinds.split(","):
        row = measure(kind, glyphs, labels, classify, args.seed)
        tight = next(iter(rows.values()), row)["raw"]
        rows[kind] = row | {"ratio": round(row["found"] / tight, 4)}
        print(f"{kind:<12} {json.dumps(rows[kind])}", file=sys.stderr)
    blank = {name: round(measure_blank(paper, args.num_blank, args.seed), 3) for name, paper in papers.PAPERS.items()}
    print(f"{'blank':<12} {json.dumps(blank)}", file=sys.stderr)
    print(json.dumps({"num_glyphs": len(glyphs), "kinds": rows, "blank_marked": blank}))


if __name__ == "__main__":
    main()
