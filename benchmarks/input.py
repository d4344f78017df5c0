"""Input speed: images a second of each input pipeline over those of the seed job's, in one run.

The seed's pipeline is what tensorflow-101's chinese_rec.py does to each image: a PNG from a TFRecord is decoded,
converted to float32, resized and batched, here with tf.data's own parallelism and without shuffling. The other peer is
the bare read of the package's TFRecords, nothing decoded. All pipelines live in one process and take turns; those that
wait have full buffers and use no core.

    python benchmarks/input.py

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tfos_job.config import AugmentationConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf
from PIL import Image

from tfos_job.config import DEFAULT_IMAGE_SIZE, FILES, PRELOADED, TrainConfig
from tfos_job.formats.charset import level1
from tfos_job.formats.form import Form
from tfos_job.formats.tf_example import encode_example
from tfos_job.formats.tfrecord import write_record
from tfos_job.input.pipeline import training_dataset

_SEED = 0
_NUM_SHARDS = 16
_NUM_GLYPHS = 2048  # that differ; each is written as often as is needed
_NUM_CLASSES = 100
_AUGMENTED = AugmentationConfig(random_flip_up_down=True, random_brightness=0.3, random_contrast=0.2)
_PREFETCHED_BATCHES = 16  # as in input/pipeline.py
_BLOCK_BATCHES = 256
_SKIPPED_BATCHES = 32  # more than a pipeline has ready when its turn comes


@dataclass(frozen=True)
class Shards:
    """The same records twice: as `convert` stores them, and as PNG like the seed's."""

    raw: list[str]
    png: list[str]
    raw_bytes: float
    png_bytes: float


@dataclass(frozen=True)
class Result:
    """One block of one pipeline. Processor time is of all threads."""

    images_per_second: float
    cpu_us_per_image: float


# --- the records ------------------------------------------------------------------------------------------------------


def draw_glyph(draw: np.random.Generator) -> np.ndarray:
    """Strokes of noise on paper, uint8 [h, w], with the sizes of handwriting, as it is and as PNG."""
    height, width = int(draw.integers(42, 78)), int(draw.integers(38, 74))
    pixels = np.full((height, width), 255, np.uint8)
    for _ in range(9):  # of real glyphs 31 % of the pixels are ink, and a PNG has 40 % of their bytes
        long, thick = int(draw.integers(15, 40)), 5
        rows, columns = (thick, long) if draw.random() < 0.5 else (long, thick)
        y, x = int(draw.integers(0, height - 12)), int(draw.integers(0, width - 12))
        part = pixels[y : y + rows, x : x + columns]
        part[:] = draw.integers(0, 200, part.shape)
    return pixels


def write_shards(folder: Path, num_records: int) -> Shards:
    draw = np.random.default_rng(_SEED)
    glyphs = [draw_glyph(draw) for _ in range(_NUM_GLYPHS)]
    pngs = []
    for pixels in glyphs:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        pngs.append(stream.getvalue())
    paths: dict[str, list[str]] = {"raw": [], "png": []}
    characters = level1(_NUM_CLASSES).characters
    for image_format, encoded in (("raw", [pixels.tobytes() for pixels in glyphs]), ("png", pngs)):
        for number in range(_NUM_SHARDS):
            path = folder / f"{image_format}-{number:05d}.tfrecord"
            with path.open("wb") as file:
                for i in range(number, num_records, _NUM_SHARDS):
                    glyph = i % _NUM_GLYPHS
                    height, width = glyphs[glyph].shape
                    label = i % _NUM_CLASSES
                    features = {
                        "image/encoded": encoded[glyph],
                        "image/format": image_format.encode(),
                        "image/height": height,
                        "image/width": width,
                        "image/class/label": label,
                        "image/class/text": characters[label].encode(),
                        "source/file": b"noise.gnt",
                        "source/offset": 0,
                    }
                    write_record(file, encode_example(features))
            paths[image_format].append(str(path))
    sizes = {name: sum(os.path.getsize(path) for path in paths[name]) / num_records for name in paths}
    return Shards(paths["raw"], paths["png"], sizes["raw"], sizes["png"])


# --- the pipelines ----------------------------------------------------------------------------------------------------


def seed_pipeline(shards: Shards, args: argparse.Namespace) -> tf.data.Dataset:
    """Endless batches of (images float32, labels), written out: what this package does must not speed it up."""
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(serialized, features)
        image = tf.image.convert_image_dtype(tf.io.decode_png(parsed["image/encoded"], channels=1), tf.float32)
        return tf.image.resize(image, [args.image_size, args.image_size]), parsed["image/class/label"]

    records = tf.data.TFRecordDataset(shards.png).repeat()
    return (
        records.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(args.batch_size).prefetch(_PREFETCHED_BATCHES)
    )


def bare_read(shards: Shards, args: argparse.Namespace) -> tf.data.Dataset:
    """Serialized records as they lie in the files; both checksums are looked at."""
    return tf.data.TFRecordDataset(shards.raw).repeat().batch(args.batch_size).prefetch(_PREFETCHED_BATCHES)


def our_pipeline(
    paths: list[str], args: argparse.Namespace, mode: str, augmentation: AugmentationConfig
) -> tf.data.Dataset:
    return training_dataset(
        paths,
        mode=mode,
        num_records=args.num_records,
        batch_size=args.batch_size,
        form=Form(image_size=args.image_size),
        seed=_SEED,
        shuffle_buffer=args.shuffle_buffer,
        augmentation=augmentation,
    )


def steady(dataset: tf.data.Dataset, args: argparse.Namespace) -> Callable[[], Result]:
    """Blocks of one pipeline that goes on and on."""
    batches: Iterator[object] = iter(dataset)

    def block() -> Result:
        for _ in range(_SKIPPED_BATCHES):
            next(batches)
        return timed(lambda: [next(batches) for _ in range(_BLOCK_BATCHES)] and None, _BLOCK_BATCHES * args.batch_size)

    return block


def first_epoch(paths: list[str], args: argparse.Namespace, augmentation: AugmentationConfig) -> Callable[[], Result]:
    """Blocks that begin with nothing: loading and one epoch. The graph is made before, on a coordinator, as it were."""

    @tf.function
    def epoch() -> tf.Tensor:
        batches = our_pipeline(paths, args, PRELOADED, augmentation).take(args.num_records // args.batch_size)
        return batches.reduce(0.0, lambda total, batch: total + batch[0][0, 0, 0, 0])

    epoch.get_concrete_function()
    num_images = args.num_records // args.batch_size * args.batch_size
    return lambda: timed(lambda: epoch().numpy() and None, num_images)


def timed(run: Callable[[], None], num_images: int) -> Result:
    began, cpu_began = time.perf_counter(), time.process_time()
    run()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return Result(num_images / seconds, cpu_seconds / num_images * 1e6)


# --- the benchmark ----------------------------------------------------------------------------------------------------


def measure(pipelines: dict[str, Callable[[], Result]], args: argparse.Namespace) -> dict[str, object]:
    """Blocks in turn; the order is turned round with every round."""
    results: dict[str, list[Result]] = {name: [] for name in pipelines}
    for block in pipelines.values():
        block()
    for number in range(args.rounds):
        for name in list(pipelines)[:: -1 if number % 2 else 1]:
            results[name].append(pipelines[name]())
        rates = ", ".join(f"{name} {results[name][-1].images_per_second / 1000:.1f}" for name in pipelines)
        print(f"round {number + 1} of {args.rounds}, thousand images/s: {rates}", file=sys.stderr)
    rates = {name: [r.images_per_second for r in blocks] for name, blocks in results.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    cpu = {name: statistics.median(r.cpu_us_per_image for r in blocks) for name, blocks in results.items()}
    return {
        "ratio_to_seed": {name: round(rate / medians["seed"], 2) for name, rate in medians.items()},
        "ratio_to_bare_read": {name: round(rate / medians["bare_read"], 3) for name, rate in medians.items()},
        "images_per_second": {name: round(rate) for name, rate in medians.items()},
        "cpu_us_per_image": {name: round(value, 2) for name, value in cpu.items()},
        "rounds": {name: [round(rate) for rate in values] for name, values in rates.items()},
    }


def versions() -> dict[str, str]:
    packages = ("tensorflow", "tensorflow-cpu", "numpy", "pillow")
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version()} | {name: installed[name] for name in packages if name in installed}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="images/s of the input pipelines over the seed's",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fields = TrainConfig.__dataclass_fields__
    for name in ("batch_size", "shuffle_buffer"):
        parser.add_argument(f"--{name}", type=int, default=fields[name].default, help=fields[name].metadata["help"])
    parser.add_argument("--image_size", type=int, default=DEFAULT_IMAGE_SIZE, help="in pixels")
    parser.add_argument("--num_records", type=int, default=131_072, help="records, half a gigabyte of them")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each pipeline")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-") as folder:
        shards = write_shards(Path(folder), args.num_records)
        plain = AugmentationConfig()
        measured = measure(
            {
                "seed": steady(seed_pipeline(shards, args), args),
                "bare_read": steady(bare_read(shards, args), args),
                "files": steady(our_pipeline(shards.raw, args, FILES, plain), args),
                "files_png": steady(our_pipeline(shards.png, args, FILES, plain), args),
                "files_augmented": steady(our_pipeline(shards.raw, args, FILES, _AUGMENTED), args),
                "preloaded_first_epoch": first_epoch(shards.raw, args, plain),
                "preloaded_first_epoch_png": first_epoch(shards.png, args, plain),
                "preloaded_first_epoch_augmented": first_epoch(shards.raw, args, _AUGMENTED),
                "preloaded": steady(our_pipeline(shards.raw, args, PRELOADED, plain), args),
                "preloaded_augmented": steady(our_pipeline(shards.raw, args, PRELOADED, _AUGMENTED), args),
            },
            args,
        )
    report = {
        "benchmark": "input",
        **measured,
        "bytes_per_record": {"raw": round(shards.raw_bytes), "png": round(shards.png_bytes)},
        **vars(args),
        "cores": os.cpu_count(),
        "load_average_at_start": round(load, 2),
        "versions": versions(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
