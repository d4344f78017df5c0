"""What each augmentation and each normalization costs: processor time an image, on one core, beside doing nothing.

A batch of uint8 images in memory becomes float32, is augmented and normalized, as at the end of the input pipeline; all
variants take turns in one process. `none` is what is done anyway. `handwriting` has the strengths that docs/training.md
suggests. The second part is the whole input pipeline with images kept in memory (`preloaded`), without and with them.

    python benchmarks/augment.py

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tfos_job.config import AugmentationConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf

from tfos_job.config import DATASET, DEFAULT_IMAGE_SIZE, MAX_WHITENED_VALUES, PER_IMAGE, PRELOADED, ZCA, TrainConfig
from tfos_job.formats.form import Form
from tfos_job.formats.tf_example import encode_example
from tfos_job.formats.tfrecord import write_record
from tfos_job.input.augmentation import augment
from tfos_job.input.decoding import to_float
from tfos_job.input.normalization import Normalization
from tfos_job.input.pipeline import training_dataset

_SEED = 0
_AFFINE = {
    "random_rotation": 8.0,
    "random_zoom": 0.1,
    "random_crop": 0.1,
    "random_width_shift": 0.04,
    "random_height_shift": 0.04,
    "random_shear": 10.0,
}
_TURNS = ("random_flip_up_down", "random_flip_left_right", "random_transpose", "random_rotation_90")
_LIGHT = {"random_brightness": 0.1, "random_contrast": 0.2, "random_gamma": 0.3}
_HANDWRITING = {**_AFFINE, "elastic_distortion": 0.02, "stroke_width": 1.0, **_LIGHT}
_COLOUR = ("random_hue", "random_saturation")
_BLOCK_BATCHES = 20
_PIPELINE_BATCHES = 256
_SKIPPED_BATCHES = 32


def augmentations(num_channels: int) -> dict[str, AugmentationConfig]:
    single: dict[str, float] = {**_HANDWRITING, "random_channel_shift": 0.1, "random_erasing": 0.3}
    single |= dict.fromkeys(_TURNS, True)
    if num_channels == 3:
        single |= dict.fromkeys(_COLOUR, 0.1)
    found = {"none": AugmentationConfig()}
    found |= {name: AugmentationConfig(**{name: strength}) for name, strength in single.items()}
    found["all_turns"] = AugmentationConfig(**dict.fromkeys(_TURNS, True))
    found["all_affine"] = AugmentationConfig(**_AFFINE)
    found["all_affine_and_elastic"] = AugmentationConfig(**_AFFINE, elastic_distortion=0.02)
    found["handwriting"] = AugmentationConfig(**_HANDWRITING)
    return found


def normalizations(image_size: int, num_channels: int) -> dict[str, Normalization]:
    draw = np.random.default_rng(_SEED)
    channels = {"mean": draw.random(num_channels, np.float32), "stddev": draw.random(num_channels, np.float32) + 1}
    found = {PER_IMAGE: Normalization(kind=PER_IMAGE), DATASET: Normalization(kind=DATASET, arrays=channels)}
    size = image_size**2 * num_channels
    if size <= MAX_WHITENED_VALUES:
        arrays = {"mean": draw.random(size, np.float32), "matrix": draw.random((size, size), np.float32)}
        found[ZCA] = Normalization(kind=ZCA, arrays=arrays)
    return found


def steps(args: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """Each does a block of batches and says what an image took, in µs of processor time."""
    shape = (args.batch_size, args.image_size, args.image_size, args.num_channels)
    images = tf.constant(np.random.default_rng(_SEED).integers(0, 256, shape, np.uint8))
    seed, indices = tf.constant(_SEED, tf.int64), tf.range(args.batch_size, dtype=tf.int64)
    variants = {name: (options, Normalization()) for name, options in augmentations(args.num_channels).items()}
    for name, normalization in normalizations(args.image_size, args.num_channels).items():
        variants[f"normalization_{name}"] = (AugmentationConfig(), normalization)

    def block(function: Callable[[tf.Tensor], tf.Tensor]) -> float:
        began = time.process_time()
        for _ in range(_BLOCK_BATCHES):
            function(images)
        return (time.process_time() - began) / (_BLOCK_BATCHES * args.batch_size) * 1e6

    def graph(options: AugmentationConfig, normalization: Normalization) -> Callable[[tf.Tensor], tf.Tensor]:
        return tf.function(lambda batch: normalization(augment(to_float(batch), seed, indices, options)))

    return {name: functools.partial(block, graph(*variant)) for name, variant in variants.items()}


def write_shard(path: Path, args: argparse.Namespace) -> None:
    draw = np.random.default_rng(_SEED)
    with path.open("wb") as file:
        for label in range(args.num_records):
            features = {
                "image/encoded": draw.integers(0, 256, (args.image_size, args.image_size), np.uint8).tobytes(),
                "image/format": b"raw",
                "image/height": args.image_size,
                "image/width": args.image_size,
                "image/class/label": label,
            }
            write_record(file, encode_example(features))


def pipelines(path: Path, args: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """Each takes a block of batches and says how many images a second there were."""

    def block(batches: tf.data.Iterator) -> float:
        for _ in range(_SKIPPED_BATCHES):
            next(batches)
        began = time.perf_counter()
        for _ in range(_PIPELINE_BATCHES):
            next(batches)
        return _PIPELINE_BATCHES * args.batch_size / (time.perf_counter() - began)

    variants = {
        "none": AugmentationConfig(),
        "affine": AugmentationConfig(**_AFFINE),
        "handwriting": AugmentationConfig(**_HANDWRITING),
    }
    return {
        name: functools.partial(
            block,
            iter(
                training_dataset(
                    [str(path)],
                    mode=PRELOADED,
                    num_records=args.num_records,
                    batch_size=args.batch_size,
                    form=Form(image_size=args.image_size),
                    seed=_SEED,
                    shuffle_buffer=1,
                    augmentation=options,
                )
            ),
        )
        for name, options in variants.items()
    }


def measure(blocks: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Medians of blocks in turn; the order is turned round with every round."""
    results: dict[str, list[float]] = {name: [] for name in blocks}
    for block in blocks.values():
        block()
    for number in range(rounds):
        for name in list(blocks)[:: -1 if number % 2 else 1]:
            results[name].append(blocks[name]())
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {name: statistics.median(values) for name, values in results.items()}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="µs an image of each augmentation and normalization",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    batch_size = TrainConfig.__dataclass_fields__["batch_size"]
    parser.add_argument("--batch_size", type=int, default=batch_size.default, help=batch_size.metadata["help"])
    parser.add_argument("--image_size", type=int, default=DEFAULT_IMAGE_SIZE, help="in pixels")
    parser.add_argument("--num_channels", type=int, default=1, choices=(1, 3), help="grey or colour")
    parser.add_argument("--num_records", type=int, default=4096, help="of the pipeline, which is of grey images")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each variant")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    load = os.getloadavg()[0]
    tf.config.threading.set_intra_op_parallelism_threads(1)
    us = measure(steps(args), args.rounds)
    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-") as folder:
        path = Path(folder) / "part.tfrecord"
        write_shard(path, args)
        rates = measure(pipelines(path, args), args.rounds)
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    report = {
        "benchmark": "augment",
        "us_per_image": {name: round(value, 2) for name, value in us.items()},
        "us_over_none": {name: round(value - us["none"], 2) for name, value in us.items()},
        "pipeline_images_per_second": {name: round(rate) for name, rate in rates.items()},
        "pipeline_ratio_to_none": {name: round(rate / rates["none"], 3) for name, rate in rates.items()},
        **vars(args),
        "cores": os.cpu_count(),
        "load_average_at_start": round(load, 2),
        "versions": {"python": platform.python_version()}
        | {name: installed[name] for name in ("tensorflow", "tensorflow-cpu", "numpy") if name in installed},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
