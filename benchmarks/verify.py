"""`verify` on one core: MB/s (10⁶ bytes of shards), over what reading and checksums alone take.

    limit      read and CRC-32C of the same bytes, 4 MiB at a time
    by_record  `tfrecord.read_records`: the same, a record at a time

Ours are the tasks of `verify` one after the other (`raw`; `png`, whose bytes are packed, so that more pixels come with
each), and the whole command on Spark (`spark_1`, one slot; `spark_2`, two slots on two cores), raw and without source
files; `spark_2_c2` is `spark_2` in a JVM with all its compilers, of which the package's own leaves out the second. Each
is a process of its own, bound to one core (`spark_2`: two); they take turns, in another order each round. The shards
are in the page cache.

    python benchmarks/verify.py

The last line of stdout is one JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from convert import open_spark, write_gnt  # benchmarks/convert.py

from tfos_job.config import ConvertConfig, VerifyConfig
from tfos_job.formats import manifest as manifests
from tfos_job.formats import tfrecord
from tfos_job.layout import DatasetLayout
from tfos_job.verification.record_scan import BLOCK_BYTES
from tfos_job.verification.shard_proof import verify_shard
from tfos_job.verification.task_plan import shard_tasks

WAYS = ("limit", "by_record", "raw", "png", "spark_1", "spark_2", "spark_2_c2")


def make_datasets(folder: Path, num_records: int) -> None:
    """The same glyphs as `raw` and as `png`."""
    from tfos_job.jobs.convert import convert

    (folder / "gnt").mkdir()
    write_gnt(folder / "gnt" / "writer.gnt", num_records)
    spark = open_spark(2, {})
    for image_format in ("raw", "png"):
        config = ConvertConfig(
            gnt_dir=str(folder / "gnt"), dataset_dir=str(folder / image_format), image_format=image_format
        )
        convert(spark, config)
    spark.stop()


def shard_files(dataset_dir: Path) -> list[Path]:
    return sorted(dataset_dir.glob("train/gen-*/part-*"))


def run_limit(dataset_dir: Path) -> None:
    import google_crc32c

    for path in shard_files(dataset_dir):
        with path.open("rb", buffering=0) as stream:
            while block := stream.read(BLOCK_BYTES):
                google_crc32c.value(block)


def run_by_record(dataset_dir: Path) -> None:
    for path in shard_files(dataset_dir):
        with path.open("rb", buffering=BLOCK_BYTES) as stream:
            for _ in tfrecord.read_records(stream, str(path)):
                pass


def run_tasks(dataset_dir: Path) -> None:
    dataset = DatasetLayout(str(dataset_dir))
    chosen = {"train": manifests.load(dataset.split("train"))}
    for task in shard_tasks(dataset, chosen, manifests.load_charset(dataset)):
        if verify_shard(task).report.findings.counts:
            raise SystemExit("the dataset is damaged")


def run_on_spark(dataset_dir: Path, way: str) -> float:
    """Seconds of the whole of `verify`; the second time counts."""
    from tfos_job.jobs.verify import verify

    settings = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4"} if way.endswith("_c2") else {}
    spark = open_spark(1 if way == "spark_1" else 2, settings)
    for _ in range(2):
        began = time.perf_counter()
        result = verify(spark, VerifyConfig(dataset_dir=str(dataset_dir)))
        seconds = time.perf_counter() - began
        result.raise_for_findings()
    return seconds


def child(way: str, folder: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:2] if way.startswith("spark_2") else cores[-1:])
    dataset_dir = folder / ("png" if way == "png" else "raw")
    if way.startswith("spark"):
        seconds = run_on_spark(dataset_dir, way)
    else:
        run = {"limit": run_limit, "by_record": run_by_record}.get(way, run_tasks)
        began = time.perf_counter()
        run(dataset_dir)
        seconds = time.perf_counter() - began
    size_bytes = sum(path.stat().st_size for path in shard_files(dataset_dir))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    found = {
        "mb_per_s": round(size_bytes / seconds / 1e6, 1),
        "mb": round(size_bytes / 1e6, 1),
        "peak_rss_mib": peak_mib,
    }
    print(json.dumps(found), flush=True)


def run_child(way: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", way, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    last: dict[str, dict[str, Any]] = {}
    ways = list(WAYS)
    for number in range(rounds):
        ways = ways[1:] + ways[:1]
        for way in ways:
            found = run_child(way, folder)
            rates[way].append(found["mb_per_s"])
            last[way] = found
        said = ", ".join(f"{way} {values[-1]:,.0f}" for way, values in rates.items())
        print(f"round {number + 1} of {rounds}, MB/s: {said}", file=sys.stderr)

    def ratio(ours: str, theirs: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True)), 3)

    return {
        **{f"{way}_mb_per_s": statistics.median(values) for way, values in rates.items()},
        **{f"{ours}_over_{theirs}": ratio(ours, theirs) for ours in ("raw", "spark_1") for theirs in WAYS[:2]},
        "spark_2_over_spark_1": ratio("spark_2", "spark_1"),
        "spark_2_over_spark_2_c2": ratio("spark_2", "spark_2_c2"),
        "raw_mb": last["raw"]["mb"],
        "png_mb": last["png"]["mb"],
        "raw_peak_rss_mib": last["raw"]["peak_rss_mib"],
        "rounds_mb_per_s": rates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="MB/s of verify on one core, over reading and checksums alone")
    parser.add_argument("--num_records", type=int, default=100_000, help="in the dataset (default: 100000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.folder)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="tfos_job-benchmark-") as name:
        make_datasets(Path(name), args.num_records)
        found = measure(Path(name), args.rounds)
    settings = {"num_records": args.num_records, "rounds": args.rounds, "load_average_at_start": round(load, 2)}
    print(json.dumps({"benchmark": "verify", **found, **settings}))


if __name__ == "__main__":
    main()
