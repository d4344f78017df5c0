"""Trainings on three hosts whose cables are cut, healed, slow or noisy. As root, with scripts/hadoop.sh's own Hadoop.

    python tests/campaigns/hosts.py --log hosts.jsonl

Each trial trains a small network on YARN, whose driver has a host for itself, and disturbs it in the middle:

    worker             the worker's host is cut off, and with it the DataNode there, until the training has ended
    ps                 the same with the parameter server's host
    brief              the worker's host is cut off for 8 s
    reset_tensorflow   a TCP connection of the worker's TensorFlow is reset
    reset_line         a TCP connection of the worker's supervisor, Spark's Python process, is reset
    slow               nothing, but all cables stay at 100 Mbit/s until the end

The training must end with 0, at the exact step, with its checkpoint, and must have read as many records as these steps
take. After a cut, the cut host must be blamed, and the second attempt go on from a checkpoint on
the two other hosts. When the cables are healed, no process of the training may be left on any host. `next_step_s` is
the time from the cut to the second attempt's first step, as the report tells of it, every five seconds.

Each trial is a line in the log, and those that are there are not repeated. Exit code 1 where a trial failed, and 69
where there can be no hosts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # to be run as a program as well

from tests import command
from tests.hadoop.conftest import upload
from tests.hadoop.hosted import HostedHadoop, obstacle
from tests.hadoop.hosted_training import KINDS, HostedTraining
from tfos_job.config import SynthConfig
from tfos_job.driver.local_spark import JAVA_OPTIONS
from tfos_job.local_jobs.synth import synthesize

PROCESSES_END_S = 180


def write_dataset(hadoop: HostedHadoop, folder: Path) -> str:
    """80 records of 10 classes in 8 shards, on HDFS."""
    gnt_dir, dataset_dir = folder / "gnt", folder / "dataset"
    synthesize(SynthConfig(gnt_dir=str(gnt_dir), charset_size=10, num_writers=8))
    flags = ("--gnt_dir", gnt_dir, "--dataset_dir", dataset_dir, "--charset_size", 10, "--master", "local[2]")
    command.run("convert", *flags)
    return upload(dataset_dir, f"{hadoop.url}/campaign/dataset")


def trial(hadoop: HostedHadoop, dataset: str, number: int, kinds: Sequence[str]) -> dict[str, Any]:
    """One trial's line in the log; `error` is None where all is as it should be."""
    kind = kinds[number % len(kinds)]
    found: dict[str, Any] = {"trial": number, "kind": kind}
    began_s = time.monotonic()
    hadoop.up()
    training = HostedTraining(hadoop, dataset, f"{hadoop.url}/campaign/run-{number}-{int(time.time())}")
    try:
        training.wait_for_checkpoint()
        found |= training.disturb(kind)
    except Exception:  # noqa: BLE001 - it is this trial that failed, whatever of
        found["error"] = traceback.format_exc()
    finally:
        for host in hadoop.hosts:
            hadoop.heal(host)
            hadoop.rate(host, "off")
        training.command.end()
    found["error"] = found["error"] or hadoop.left_behind(PROCESSES_END_S)
    return found | {"seconds": round(time.monotonic() - began_s, 1)}


def run(log: Path, numbers: Sequence[int], kinds: Sequence[str], folder: Path) -> None:
    hadoop = HostedHadoop(folder / "hadoop")
    try:
        hadoop.up()
        os.environ["HADOOP_CONF_DIR"] = str(hadoop.conf_dir)
        os.environ["SPARK_SUBMIT_OPTS"] = JAVA_OPTIONS
        dataset = write_dataset(hadoop, folder)
        for number in numbers:
            line = json.dumps(trial(hadoop, dataset, number, kinds))
            with log.open("a") as stream:
                print(line, file=stream)
            print(line, file=sys.stderr, flush=True)
    finally:
        hadoop.run("down")


def summary(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Number of trials and failures by kind, and the seconds to the next step."""
    by_kind: dict[str, Any] = {}
    for kind in dict.fromkeys(found["kind"] for found in done):
        trials = [found for found in done if found["kind"] == kind]
        by_kind[kind] = {"trials": len(trials), "failed": [it["trial"] for it in trials if it["error"]]}
        if times := [it["next_step_s"] for it in trials if it.get("next_step_s")]:
            by_kind[kind] |= {"next_step_median_s": statistics.median(times), "next_step_max_s": max(times)}
    return by_kind


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="trainings on three hosts whose cables are cut, healed, slow or noisy")
    parser.add_argument("--log", type=Path, required=True, help="a JSON line for each trial; those there are done")
    parser.add_argument("--trials", type=int, default=3 * len(KINDS), help="number of trials in the log (default: 18)")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=KINDS, help="of the trials (default: all, in turn)"
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the hosts are removed
    if missing := obstacle():
        print(f"no hosts of their own on this machine: {missing}", file=sys.stderr)
        return 69
    done = [json.loads(text) for text in args.log.read_text().splitlines()] if args.log.exists() else []
    todo = sorted(set(range(args.trials)) - {found["trial"] for found in done})
    if todo:
        with tempfile.TemporaryDirectory(prefix="tfos_job-campaign-") as folder:
            run(args.log, todo, args.kinds, Path(folder))
        done = [json.loads(text) for text in args.log.read_text().splitlines()]
    print(json.dumps(summary(done)))
    return 1 if any(found["error"] for found in done) else 0


if __name__ == "__main__":
    sys.exit(main())
