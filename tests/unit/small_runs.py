"""A run with one checkpoint and the dataset that it would have been trained on, made without a training."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.unit.small_checkpoints import model_arrays
from tfos_job import storage
from tfos_job.formats import tf_example, tfrecord
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Shard
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.networks import registry
from tfos_job.run import checkpoints

CHARSET = Charset(tuple("一丁七万丈三上"))
STEP = 20
SPLIT = "train"


@dataclass(frozen=True)
class SmallRun:
    """Folders, and the records of the split `train` in their order, each uint8 [h, w]."""

    train_dir: str
    dataset_dir: str
    glyphs: list[np.ndarray]
    shard: str


def glyph(draw: np.random.Generator) -> np.ndarray:
    """Some grey strokes on white paper, of any size, cropped as they are in GNT files."""
    height, width = (int(side) for side in draw.integers(20, 60, 2))
    image = Image.new("L", (width, height), 255)
    pen = ImageDraw.Draw(image)
    for _ in range(int(draw.integers(2, 6))):
        ends = draw.random(4) * [width, height, width, height]
        pen.line([int(end) for end in ends], fill=int(draw.integers(0, 120)), width=int(draw.integers(2, 5)))
    return np.asarray(image)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def make(root: Path, num_records: int = 300, **changes: Any) -> SmallRun:
    """A run of one checkpoint below `root`; `changes` are those of the checkpoint's document."""
    draw = np.random.default_rng(1)
    glyphs = [glyph(draw) for _ in range(num_records)]
    labels = [int(label) for label in draw.integers(0, len(CHARSET), num_records)]
    dataset_dir, train_dir = str(root / "dataset"), str(root / "run")
    shard, dataset_digest = _write_shard(Path(dataset_dir), glyphs, labels)
    run = RunLayout(train_dir)
    model = {"model_name": "chinese_rec", "num_classes": len(CHARSET), "image_size": 16, "keep_prob": 0.8}
    document = {"model": model, "characters": "".join(CHARSET.characters), "charset_digest": CHARSET.digest}
    document |= {"dataset_digest": dataset_digest, "input_position": {}, "metrics": {"loss": 1.5, "top_1": 0.5}}
    document |= changes
    built = registry.build(**document["model"], seed=1)
    checkpoints.publish(run, STEP, model_arrays(built), document)
    storage.write_json(run.config, {"dataset_dir": dataset_dir, "dataset_split_name": SPLIT})
    return SmallRun(train_dir, dataset_dir, glyphs, shard)


def _write_shard(root: Path, glyphs: Sequence[np.ndarray], labels: Sequence[int]) -> tuple[str, str]:
    """Returns the shard's path and the digest of its dataset."""
    split = DatasetLayout(str(root)).split(SPLIT)
    path = Path(split.generation(0)) / "part-0.tfrecord"
    path.parent.mkdir(parents=True)
    with path.open("wb") as stream:
        for pixels, label in zip(glyphs, labels, strict=True):
            example = {
                "image/encoded": pixels.tobytes(),
                "image/format": b"raw",
                "image/height": pixels.shape[0],
                "image/width": pixels.shape[1],
                "image/class/label": label,
            }
            tfrecord.write_record(stream, tf_example.encode_example(example))
    size_bytes = path.stat().st_size
    name = f"{path.parent.name}/{path.name}"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    shard = Shard(file=name, size_bytes=size_bytes, sha256=sha256, num_records=len(glyphs), sources=())
    contents = Manifest(
        split_name=SPLIT,
        generation=0,
        image_format="raw",
        charset_digest=CHARSET.digest,
        shards=(shard,),
        sources=(),
        class_counts=tuple(np.bincount(labels, minlength=len(CHARSET)).tolist()),
        settings={},
        history=(),
        created="",
        package_version="0",
    )
    storage.write_json(split.manifest, contents.to_json())
    return str(path), contents.digest
