"""Conversion on one core: records/s from a GNT file to TFRecords, over four peers.

    seed     tensorflow-101's way: np.fromfile a field, a PNG file for each character, tf.train.Example, TFRecordWriter
    plain    a careful plain program: struct, tf.train.Example, tf.io.TFRecordWriter, raw pixels
    dfutil   TensorFlowOnSpark: a DataFrame of the same features, dfutil.saveAsTFRecords and tensorflow-hadoop
    limit    read, CRC-32C and write of the same bytes, a megabyte at a time; `limit_by_record` a record at a time

Ours are one task of `convert` (`raw`, `png`: digests included), and the whole command on Spark (`spark_1`, one slot;
`spark_2`, two slots on two cores). Each is a process of its own, bound to one core (`spark_2`: two); they take turns,
in another order each round. The file is in the page cache, and what is written is on the disk (fsync) when the clock
stops.

    python benchmarks/convert.py                    rounds of all
    python benchmarks/convert.py --huge_mib 2048    the memory of a task on a file of that size, and how many share it

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tfos_job import storage
from tfos_job.conversion import gnt_shard
from tfos_job.conversion.shard_plan import Piece, SourceFile, plan_groups
from tfos_job.formats import charset as charsets
from tfos_job.formats import gnt

CHARACTERS = charsets.level1().characters
NUM_SEED_RECORDS = 3_755  # the seed's way takes its time
PEER_JAR = "org.tensorflow:tensorflow-hadoop:1.15.0"
_HEADER = struct.Struct("<I2sHH")


def write_gnt(path: Path, num_records: int) -> None:
    """Glyph-like characters: some strokes on white paper, 40 to 75 pixels a side, 3.2 KB a record on average."""
    draw = np.random.default_rng(0)
    tags = charsets.level1().tags
    with path.open("wb") as stream:
        for index in range(num_records):
            height, width = draw.integers(40, 75, 2).tolist()
            pixels = np.full((height, width), 255, np.uint8)
            for _ in range(6):
                top, left = int(draw.integers(2, height - 6)), int(draw.integers(2, width - 6))
                high, wide = (4, 25) if draw.random() < 0.5 else (25, 4)
                stroke = pixels[top : top + high, left : left + wide]
                stroke[:] = draw.integers(0, 120, stroke.shape)
            gnt.write(stream, tags[index % len(tags)], pixels)


# --- the ways --------------------------------------------------------------------------------------------------------


def run_seed(source: Path, folder: Path) -> int:
    import tensorflow as tf
    from PIL import Image

    class_ids = charsets.level1().class_ids_by_tag
    num_records = 0
    with source.open("rb") as stream, tf.io.TFRecordWriter(str(folder / "seed.tfrecord")) as writer:
        while num_records < NUM_SEED_RECORDS:
            header = np.fromfile(stream, np.uint8, 10).astype(np.uint32)
            if not header.size:
                break
            tag = bytes(header[4:6].astype(np.uint8))
            width, height = (int(header[at] + (header[at + 1] << 8)) for at in (6, 8))
            pixels = np.fromfile(stream, np.uint8, width * height).reshape(height, width)
            path = folder / f"{num_records:07d}.png"
            Image.fromarray(pixels).save(path)
            example = tf.train.Example(
                features=tf.train.Features(
                    feature={
                        "label": _int64(class_ids[tag]),
                        "img_raw": _bytes(path.read_bytes()),
                        "width": _int64(width),
                        "height": _int64(height),
                    }
                )
            )
            writer.write(example.SerializeToString())
            num_records += 1
    _sync(folder / "seed.tfrecord")
    return num_records


def run_plain(source: Path, folder: Path) -> int:
    import tensorflow as tf

    class_ids = charsets.level1().class_ids_by_tag
    offset = num_records = 0
    with source.open("rb") as stream, tf.io.TFRecordWriter(str(folder / "plain.tfrecord")) as writer:
        while header := stream.read(_HEADER.size):
            size, tag, width, height = _HEADER.unpack(header)
            label = class_ids[tag]
            feature = {
                "image/encoded": _bytes(stream.read(size - _HEADER.size)),
                "image/format": _bytes(b"raw"),
                "image/height": _int64(height),
                "image/width": _int64(width),
                "image/class/label": _int64(label),
                "image/class/text": _bytes(CHARACTERS[label].encode()),
                "source/file": _bytes(b"writer.gnt"),
                "source/offset": _int64(offset),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
            offset += size
            num_records += 1
    _sync(folder / "plain.tfrecord")
    return num_records


def _int64(value: int) -> Any:
    import tensorflow as tf

    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _bytes(value: bytes) -> Any:
    import tensorflow as tf

    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def run_limit(source: Path, folder: Path) -> int:
    import google_crc32c

    with source.open("rb", buffering=0) as stream, (folder / "limit").open("wb", buffering=0) as copy:
        while block := stream.read(storage.BUFFER_BYTES):
            google_crc32c.value(block)
            copy.write(block)
        os.fsync(copy.fileno())
    return 0


def run_limit_by_record(source: Path, folder: Path) -> int:
    import google_crc32c

    num_records = 0
    with source.open("rb") as stream, (folder / "limit").open("wb") as copy:
        while header := stream.read(_HEADER.size):
            pixels = stream.read(_HEADER.unpack(header)[0] - _HEADER.size)
            google_crc32c.value(pixels)
            copy.write(header)
            copy.write(pixels)
            num_records += 1
        copy.flush()
        os.fsync(copy.fileno())
    return num_records


def run_task(image_format: str) -> Callable[[Path, Path], int]:
    def run(source: Path, folder: Path) -> int:
        return gnt_shard.convert_group(_task(_source_file(source), folder, image_format)).shard.num_records

    return run


def _source_file(path: Path) -> SourceFile:
    entry = storage.stat(str(path))
    return SourceFile(path.name, str(path), entry.size_bytes, entry.mtime_s)


def _task(source: SourceFile, folder: Path, image_format: str) -> gnt_shard.GroupTask:
    return gnt_shard.GroupTask(
        shard_file="part",
        pieces=(Piece(source, 0, source.size_bytes),),
        building_dir=str(folder),
        characters=CHARACTERS,
        image_format=image_format,
        quarantine=False,
    )


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


WAYS: dict[str, Callable[[Path, Path], int]] = {
    "seed": run_seed,
    "plain": run_plain,
    "limit": run_limit,
    "limit_by_record": run_limit_by_record,
    "raw": run_task("raw"),
    "png": run_task("png"),
}


# --- on Spark --------------------------------------------------------------------------------------------------------


def open_spark(slots: int, settings: dict[str, str]) -> Any:
    from pyspark.sql import SparkSession

    from tfos_job.driver.local_spark import JAVA_OPTIONS

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(f"local[{slots}]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.log.level", "ERROR").config("spark.driver.host", "127.0.0.1")
    builder = builder.config("spark.driver.extraJavaOptions", JAVA_OPTIONS)
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def time_convert_on_spark(source: Path, folder: Path, slots: int) -> tuple[int, float]:
    """The whole of `convert`, from the look at the folder to the manifest; the second time counts."""
    from tfos_job.config import ConvertConfig
    from tfos_job.jobs.convert import convert as convert_split

    spark = open_spark(slots, {})
    for number in range(2):
        config = ConvertConfig(gnt_dir=str(source.parent), dataset_dir=str(folder / f"dataset{number}"))
        began = time.perf_counter()
        result = convert_split(spark, config)
        seconds = time.perf_counter() - began
    return result.num_records, seconds


def time_dfutil(source: Path, folder: Path) -> tuple[int, float]:
    """From the GNT file to the folder of TFRecords, by way of a DataFrame; the second time counts."""
    from pyspark.sql.types import BinaryType, LongType, StringType, StructField, StructType
    from tensorflowonspark import dfutil

    spark = open_spark(
        1, {"spark.jars.packages": PEER_JAR, "spark.jars.excludes": "*:hadoop-*,*:protobuf-java,*:junit"}
    )
    kinds = [
        ("image_encoded", BinaryType()),
        ("image_format", StringType()),
        ("image_height", LongType()),
        ("image_width", LongType()),
        ("label", LongType()),
        ("text", StringType()),
        ("source_file", StringType()),
        ("source_offset", LongType()),
    ]
    schema = StructType([StructField(name, kind, nullable=False) for name, kind in kinds])
    class_ids, characters = charsets.level1().class_ids_by_tag, CHARACTERS

    def rows(paths: Any) -> Any:
        for path in paths:
            offset = 0
            with open(path, "rb") as stream:
                while header := stream.read(10):
                    size, tag, width, height = struct.unpack("<I2sHH", header)
                    label = class_ids[tag]
                    pixels = bytearray(stream.read(size - 10))
                    yield pixels, "raw", height, width, label, characters[label], "writer.gnt", offset
                    offset += size

    for number in range(2):
        target = folder / f"dfutil{number}"
        began = time.perf_counter()
        frame = spark.createDataFrame(spark.sparkContext.parallelize([str(source)], 1).mapPartitions(rows), schema)
        dfutil.saveAsTFRecords(frame, str(target))
        parts = sorted(target.glob("part-*"))
        for part in parts:
            _sync(part)
        seconds = time.perf_counter() - began
    num_records = sum(1 for part in parts for _ in _read(part))
    return num_records, seconds


def _read(path: Path) -> Any:
    from tfos_job.formats import tfrecord

    with path.open("rb") as stream:
        yield from tfrecord.read_records(stream, str(path))


# --- children --------------------------------------------------------------------------------------------------------


def child(way: str, source: Path) -> None:
    """Runs one way in this process, and says on stdout how many records it made in how many seconds."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:2] if way == "spark_2" else cores[-1:])
    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-", dir=source.parent.parent) as name:
        folder = Path(name)
        if way in ("spark_1", "spark_2"):
            num_records, seconds = time_convert_on_spark(source, folder, int(way[-1]))
        elif way == "dfutil":
            num_records, seconds = time_dfutil(source, folder)
        else:
            if way in ("seed", "plain"):
                import tensorflow  # noqa: F401 - its import is not what is measured
            began = time.perf_counter()
            num_records = WAYS[way](source, folder)
            seconds = time.perf_counter() - began
        print(json.dumps({"num_records": num_records, "seconds": seconds, "rss_mib": _peak_mib()}), flush=True)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def run_child(way: str, source: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", way, "--source", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(args: argparse.Namespace, source: Path) -> dict[str, Any]:
    names = [*WAYS, *([] if args.without_spark else ["dfutil", "spark_1", "spark_2"])]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(args.rounds):
        names = names[1:] + names[:1]
        for name in names:
            found = run_child(name, source)
            num_records = found["num_records"] or args.num_records
            rates[name].append(round(num_records / found["seconds"], 1))
        said = ", ".join(f"{name} {values[-1]:,.0f}" for name, values in rates.items())
        print(f"round {number + 1} of {args.rounds}, records/s: {said}", file=sys.stderr)

    def ratio(ours: str, theirs: str) -> float:
        pairs = zip(rates[ours], rates[theirs], strict=True)
        return round(statistics.median(our / their for our, their in pairs), 3)

    found = {f"{name}_records_per_second": statistics.median(values) for name, values in rates.items()}
    for ours in ("raw", "png"):
        for theirs in ("seed", "plain", "limit", "limit_by_record"):
            found[f"{ours}_over_{theirs}"] = ratio(ours, theirs)
    if not args.without_spark:
        found["spark_1_over_dfutil"] = ratio("spark_1", "dfutil")
        found["spark_2_over_spark_1"] = ratio("spark_2", "spark_1")
    return found | {"rounds_records_per_second": rates}


def measure_memory(args: argparse.Namespace, source: Path) -> dict[str, Any]:
    """Peak memory of one task on a small file and on a huge one, made of copies of it."""
    huge = source.with_name("huge.gnt")
    data = source.read_bytes()
    with huge.open("wb") as stream:
        while stream.tell() < args.huge_mib << 20:
            stream.write(data)
    found = {name: run_child("raw", path)["rss_mib"] for name, path in (("small", source), ("huge", huge))}
    sizes = [sum(piece.stop - piece.start for piece in group) for group in plan_groups([_source_file(huge)])]
    return {
        "small_mib": source.stat().st_size >> 20,
        "huge_mib": huge.stat().st_size >> 20,
        "small_peak_rss_mib": found["small"],
        "huge_peak_rss_mib": found["huge"],
        "tasks_that_share_the_huge_file": len(sizes),
        "largest_share_mib": max(sizes) >> 20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="records/s of conversion on one core, over its peers")
    parser.add_argument("--num_records", type=int, default=100_000, help="in the GNT file (default: 100000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--without_spark", action="store_true", help="leave out what needs Spark and a download")
    parser.add_argument("--huge_mib", type=int, help="measure memory instead, on a file of this size")
    parser.add_argument("--dir", help="folder for the files, on the disk to measure (default: the temporary one)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.source)
        return
    load = os.getloadavg()[0]
    parent = Path(tempfile.mkdtemp(prefix="tfos_job-benchmark-", dir=args.dir))
    try:
        (parent / "gnt").mkdir()
        source = parent / "gnt" / "writer.gnt"
        write_gnt(source, args.num_records)
        found = (measure_memory if args.huge_mib else measure)(args, source)
    finally:
        shutil.rmtree(parent)
    settings = {name: value for name, value in vars(args).items() if name not in ("child", "source")}
    print(json.dumps({"benchmark": "convert", **found, **settings, "load_average_at_start": round(load, 2)}))


if __name__ == "__main__":
    main()
