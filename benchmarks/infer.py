"""Inference on Spark: images a second of `infer` over those of a bare loop, and of `predict_udf` over Spark's own.

All sides have the same network, untrained, and the same glyphs of noise, and as many processes as `--processes`:

- `infer`: the command's job on `local[N]`, from its plan to `_SUCCESS`, to Parquet.
- bare: N processes, each of which runs a tf.data pipeline over its shards into the network and keeps the three most
  probable classes. It is written out, so that what this package does cannot speed it up.
- `predict_udf` and Spark's own `predict_batch_udf`, over a column of PNG files; the latter's function decodes with
  Pillow, resizes with TensorFlow and calls the network, in Spark's Python worker.

Each side is called once before it is measured: processes have started then, graphs are traced, and the network is
loaded. The sides take turns, in the other order every second round; a ratio is that of two medians.

    python benchmarks/infer.py

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
from PIL import Image

_SEED = 0
_NUM_GLYPHS = 512  # that differ
_NUM_FILES = 16
_TOP_K = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name", default="hanzi_net", help="a registered network (default: hanzi_net)")
    parser.add_argument("--num_classes", type=int, default=3755)
    parser.add_argument("--num_records", type=int, default=16_384, help="glyphs of a round (default: 16384)")
    parser.add_argument("--num_pictures", type=int, default=4096, help="PNG files of a round (default: 4096)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(default: as there are cores)")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", nargs=2, metavar=("TRAIN_DIR", "SHARDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        serve_bare(args.bare[0], args.bare[1].split(","), args.batch_size)
        return
    with tempfile.TemporaryDirectory(prefix="infer-") as folder:
        print(json.dumps(measure(args, Path(folder))))


# --- what is answered about -------------------------------------------------------------------------------------------


def glyphs() -> list[np.ndarray]:
    """Noise with the sizes of handwriting, uint8 [h, w]."""
    draw = np.random.default_rng(_SEED)
    return [draw.integers(0, 256, draw.integers(40, 78, 2), np.uint8) for _ in range(_NUM_GLYPHS)]


def write_gnt(folder: Path, num_records: int, num_classes: int) -> None:
    from tfos_job.formats import gnt
    from tfos_job.formats.charset import level1

    tags, found = [gnt.encode_tag(character) for character in level1(num_classes).characters], glyphs()
    folder.mkdir()
    for number in range(_NUM_FILES):
        with (folder / f"{number:02d}.gnt").open("wb") as stream:
            for i in range(number, num_records, _NUM_FILES):
                gnt.write(stream, tags[i % len(tags)], found[i % len(found)])


def publish(train_dir: str, dataset_dir: str, args: argparse.Namespace) -> None:
    """A run's checkpoint of a network that has learnt nothing; in a process of its own, without Spark."""
    program = f"""
from tfos_job.formats import manifest as manifests
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.networks import registry, variables
from tfos_job.run import checkpoints
dataset = DatasetLayout({dataset_dir!r})
charset = manifests.load_charset(dataset)
model = dict(model_name={args.model_name!r}, num_classes=len(charset), image_size=64, keep_prob=0.8)
arrays = {{name: v.numpy() for name, v in variables.model_variables(registry.build(**model, seed=1)).items()}}
checkpoints.publish(RunLayout({train_dir!r}), 1, arrays, dict(model=model, characters="".join(charset.characters),
    charset_digest=charset.digest, dataset_digest=manifests.load(dataset.split("test")).digest, input_position={{}},
    metrics={{}}))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# --- the sides --------------------------------------------------------------------------------------------------------


def serve_bare(train_dir: str, shards: list[str], batch_size: int) -> None:
    """A process of the bare loop: goes over its shards for each line that it reads, and says how many records."""
    import tensorflow as tf

    from tfos_job.layout import RunLayout
    from tfos_job.networks.variables import restore_model
    from tfos_job.run import checkpoints

    model = restore_model(*checkpoints.read_network(RunLayout(train_dir), "last"))
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/height": tf.io.FixedLenFeature([], tf.int64),
        "image/width": tf.io.FixedLenFeature([], tf.int64),
    }

    def image(serialized: tf.Tensor) -> tf.Tensor:
        parsed = tf.io.parse_single_example(serialized, features)
        shape = tf.stack([parsed["image/height"], parsed["image/width"], 1])
        pixels = tf.reshape(tf.io.decode_raw(parsed["image/encoded"], tf.uint8), shape)
        return tf.image.resize(pixels, [64, 64]) * (1 / 255)

    @tf.function(input_signature=[tf.TensorSpec([None, 64, 64, 1], tf.float32)])
    def predict(images: tf.Tensor) -> Any:
        return tf.math.top_k(tf.nn.softmax(model(images, training=False)), k=_TOP_K)

    batches = tf.data.TFRecordDataset(shards).map(image, num_parallel_calls=tf.data.AUTOTUNE)
    batches = batches.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    print("ready", flush=True)
    for _ in sys.stdin:
        found = [predict(images) for images in batches]
        print(sum(len(top.indices.numpy()) for top in found), flush=True)


class Bare:
    """The processes of the bare loop."""

    def __init__(self, train_dir: str, shards: list[str], args: argparse.Namespace) -> None:
        parts = [shards[number :: args.processes] for number in range(args.processes)]
        command = [sys.executable, __file__, "--batch_size", str(args.batch_size), "--bare", train_dir]
        self._processes = [
            subprocess.Popen([*command, ",".join(part)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for part in parts
            if part
        ]
        self._hear()

    def _hear(self) -> list[str]:
        return [process.stdout.readline().strip() for process in self._processes if process.stdout is not None]

    def __call__(self) -> int:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return sum(map(int, self._hear()))

    def close(self) -> None:
        for process in self._processes:
            process.communicate()


def batch_udf(train_dir: str, batch_size: int) -> Any:
    """Spark's own way: the network in Spark's Python worker."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql.types import ArrayType, FloatType

    def make_predict() -> Callable[[np.ndarray], np.ndarray]:
        import tensorflow as tf

        from tfos_job.layout import RunLayout
        from tfos_job.networks.variables import restore_model
        from tfos_job.run import checkpoints

        model = restore_model(*checkpoints.read_network(RunLayout(train_dir), "last"))

        @tf.function(input_signature=[tf.TensorSpec([None, 64, 64, 1], tf.float32)])
        def top(images: tf.Tensor) -> tf.Tensor:
            found = tf.math.top_k(tf.nn.softmax(model(images, training=False)), k=_TOP_K)
            return tf.concat([found.values, tf.cast(found.indices, tf.float32)], axis=1)

        def pixels(data: bytes) -> tf.Tensor:
            with Image.open(io.BytesIO(data)) as picture:
                return tf.image.resize(np.array(picture.convert("L"))[:, :, np.newaxis], [64, 64]) * (1 / 255)

        return lambda contents: top(tf.stack([pixels(data) for data in contents])).numpy()

    return predict_batch_udf(make_predict, return_type=ArrayType(FloatType()), batch_size=batch_size)


# --- the measurement --------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from pyspark.sql import SparkSession

    from tfos_job import ConvertConfig, convert, predict_udf
    from tfos_job.driver.local_spark import JAVA_OPTIONS

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master(f"local[{args.processes}]").config("spark.driver.memory", "2g")
    builder = builder.config("spark.ui.enabled", False).config("spark.ui.showConsoleProgress", False)
    spark = builder.config("spark.driver.extraJavaOptions", JAVA_OPTIONS).getOrCreate()
    dataset, train_dir = folder / "dataset", str(folder / "run")
    write_gnt(folder / "gnt", args.num_records, args.num_classes)
    split = {"gnt_dir": str(folder / "gnt"), "dataset_dir": str(dataset), "dataset_split_name": "test"}
    convert(spark, ConvertConfig(**split, charset_size=args.num_classes, target_shard_mb=4))
    publish(train_dir, str(dataset), args)
    frame = pictures(spark, folder / "pictures", args.num_pictures, args.processes)
    bare = Bare(train_dir, sorted(map(str, (dataset / "test").rglob("*.tfrecord"))), args)
    own, sparks = predict_udf(train_dir, raw_image=True, top_k=_TOP_K), batch_udf(train_dir, args.batch_size)
    sides = {
        "infer": lambda: run_infer(spark, train_dir, dataset / "test", folder / "out", args.batch_size),
        "bare": bare,
        "predict_udf": lambda: take(frame.select(own("content").alias("answer")), "answer.error IS NULL"),
        "predict_batch_udf": lambda: take(frame.select(sparks("content").alias("answer")), "answer IS NOT NULL"),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    try:
        for number in range(args.rounds):
            in_order = dict(reversed(sides.items())) if number % 2 else sides
            for name, seconds, num_images in turns(in_order):
                rates[name].append(num_images / seconds)
                print(f"round {number + 1}: {name} {rates[name][-1]:,.0f} images/s", file=sys.stderr)
    finally:
        bare.close()
        spark.stop()
    medians = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "images_per_second": {name: round(rate, 1) for name, rate in medians.items()},
        "infer_over_bare": round(medians["infer"] / medians["bare"], 3),
        "predict_udf_over_predict_batch_udf": round(medians["predict_udf"] / medians["predict_batch_udf"], 3),
        "rounds": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        **{name: getattr(args, name) for name in ("model_name", "num_records", "num_pictures", "processes")},
    }


def turns(sides: dict[str, Callable[[], int]]) -> Iterator[tuple[str, float, int]]:
    """Each side once: what it does, after a call that warms it up, and how long it takes."""
    for name, side in sides.items():
        side()  # an idle process may have ended meanwhile
        began_s = time.perf_counter()
        num_images = side()
        yield name, time.perf_counter() - began_s, num_images


def pictures(spark: Any, folder: Path, num_pictures: int, num_partitions: int) -> Any:
    """A DataFrame of PNG files, from Parquet."""
    files = []
    for pixels in glyphs():
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        files.append((bytearray(stream.getvalue()),))
    rows = (files * (-(-num_pictures // len(files))))[:num_pictures]
    spark.createDataFrame(rows, "content binary").repartition(4 * num_partitions).write.parquet(str(folder))
    return spark.read.parquet(str(folder))


def run_infer(spark: Any, train_dir: str, split: Path, output: Path, batch_size: int) -> int:
    from tfos_job import InferConfig, infer

    shutil.rmtree(output, ignore_errors=True)
    config = InferConfig(train_dir=train_dir, input=str(split), output_dir=str(output), batch_size=batch_size)
    found = infer(spark, config).counts
    assert found["num_errors"] == 0
    return int(found["num_rows"])


def take(frame: Any, is_answered: str) -> int:
    """Computes all answers; returns the number of them."""
    return int(frame.where(is_answered).count())


if __name__ == "__main__":
    main()
