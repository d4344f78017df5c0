"""Folders of TFRecords as TF-Slim's programs write them, by TensorFlow's own writer."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

FLOWERS = ("daisy", "dandelion", "roses")


def picture(number: int, image_format: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture that differs for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    image = Image.fromarray(pixels).resize((24 + number % 5, 18), Image.Resampling.BICUBIC).convert(mode)
    stream = io.BytesIO()
    image.save(stream, image_format)
    return stream.getvalue()


def turned(number: int) -> bytes:
    """A JPEG that EXIF turns by a quarter."""
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(picture(number))) as image:
        image.save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def feature(value: Any) -> tf.train.Feature:
    values = value if isinstance(value, list) else [value]
    if values and isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values and isinstance(values[0], float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def example(values: dict[str, Any]) -> bytes:
    features = {key: feature(value) for key, value in values.items() if value is not None}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def of_flowers(number: int, label: int, **changes: Any) -> bytes:
    """As `dataset_utils.image_to_tfexample` makes it."""
    return example(
        {
            "image/encoded": picture(number),
            "image/format": b"jpg",
            "image/class/label": label,
            "image/height": 18,
            "image/width": 24 + number % 5,
            **changes,
        }
    )


def of_imagenet(number: int, label: int, text: str, **changes: Any) -> bytes:
    """As `build_imagenet_data.py` makes it, with some boxes, or none."""
    boxes = [0.25] * (number % 3)
    return example(
        {
            "image/height": 18,
            "image/width": 24 + number % 5,
            "image/colorspace": b"RGB",
            "image/channels": 3,
            "image/class/label": label,
            "image/class/synset": b"n%08d" % label,
            "image/class/text": text.encode(),
            "image/object/bbox/xmin": boxes,
            "image/object/bbox/label": [label] * len(boxes),
            "image/format": b"JPEG",
            "image/filename": b"n%08d_%d.JPEG" % (label, number),
            "image/encoded": picture(number),
            **changes,
        }
    )


def write(path: Path, records: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def write_labels(folder: Path, names: Sequence[str], first: int = 0) -> None:
    lines = [f"{label}:{name}\n" for label, name in enumerate(names, first)]
    (folder / "labels.txt").write_text("".join(lines), "utf-8")


def flowers(folder: Path, split: str = "train", *, num_shards: int = 3, num_records: int = 30, first: int = 0) -> Path:
    """A folder such as `download_and_convert_data.py --dataset_name flowers` leaves; returns it."""
    for shard in range(num_shards):
        numbers = range(first + shard, first + num_records, num_shards)
        records = [of_flowers(number, number % len(FLOWERS)) for number in numbers]
        write(folder / f"flowers_{split}_{shard:05d}-of-{num_shards:05d}.tfrecord", records)
    write_labels(folder, FLOWERS)
    return folder
