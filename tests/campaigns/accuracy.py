"""The main job on all of the real handwriting, in bands around the figures of benchmarks/README.md.

    python tests/campaigns/accuracy.py FOLDER [--log accuracy.jsonl]

FOLDER holds cmnist.tar.xz and casia-small.tar.xz, or both unpacked. Each data set is converted, trained on local Spark
and evaluated by the commands of benchmarks/README.md. A line of JSON a data set, on stdout and in the log; exit code 1
where one is outside of its band. Some ten minutes on fast cores, an hour on slow ones: run it before a release, and
where a network, the input or an optimizer has changed. benchmarks/README.md has date and figures of the last run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tests.command import run  # noqa: E402

Flags = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A training of benchmarks/README.md's table. The band is of top-1; σ between seeds is about 0.005."""

    name: str
    split: Callable[[Path, Path], tuple[Path, Path]]
    num_test: int
    epochs: int
    top_1: tuple[float, float]
    least_top_3: float
    flags: Flags = field(default_factory=dict)


def _by_writer(data: Path, scratch: Path) -> tuple[Path, Path]:
    """cmnist: 15 characters by 90 people."""
    folders = (scratch / "train", scratch / "test")
    for folder, writers in zip(folders, (range(1, 71), range(71, 91)), strict=True):
        folder.mkdir()
        for writer in writers:
            name = f"{writer:03d}-m.gnt"
            (folder / name).symlink_to(data / "cmnist" / name)
    return folders


def _as_it_is(data: Path, _: Path) -> tuple[Path, Path]:
    """casia-small: 53 classes of real CASIA pixels, re-packed."""
    return data / "casia-small" / "train", data / "casia-small" / "test"


CASES = (
    Case("cmnist", _by_writer, num_test=3000, epochs=5, top_1=(0.86, 0.92), least_top_3=0.96),
    Case("casia-small", _as_it_is, num_test=795, epochs=12, top_1=(0.80, 0.86), least_top_3=0.90),
    Case(
        "casia-small hanzi",
        _as_it_is,
        num_test=795,
        epochs=40,
        top_1=(0.94, 0.98),
        least_top_3=0.97,
        flags={"recipe": "hanzi"},
    ),
)


def main_job(train_gnt: Path, test_gnt: Path, folder: Path, *, epochs: int, flags: Flags) -> dict[str, Any]:
    """convert × 2, train, evaluate; returns what evaluate says."""
    dataset = ("--dataset_dir", folder / "dataset")
    run("convert", "--gnt_dir", train_gnt, *dataset, "--charset", "auto")
    run("convert", "--gnt_dir", test_gnt, *dataset, "--dataset_split_name", "test")
    options = [word for name, value in flags.items() for word in (f"--{name}", value)]
    run("train", *dataset, "--train_dir", folder / "run", "--epoch", epochs, "--batch_size", 64, *options)
    evaluation: dict[str, Any] = run("evaluate", *dataset, "--train_dir", folder / "run").result()
    return evaluation


def trial(case: Case, data: Path) -> dict[str, Any]:
    """A case's line; `error` is None where it is in its band."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tfos_job-accuracy-") as scratch:
        train_gnt, test_gnt = case.split(data, Path(scratch))
        found = main_job(train_gnt, test_gnt, Path(scratch), epochs=case.epochs, flags=case.flags)
    low, high = case.top_1
    in_band = low <= found["top_1"] <= high and found["top_3"] >= case.least_top_3
    return {
        "case": case.name,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - began_s),
        **{key: found[key] for key in ("num_examples", "step", "top_1", "top_3")},
        "error": None if in_band and found["num_examples"] == case.num_test else f"expected {case}",
    }


@contextlib.contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """A folder with what the archives of `folder` hold; that folder itself where it has none."""
    archives = sorted(folder.glob("*.tar.xz"))
    if not archives:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="tfos_job-real-") as target:
        for path in archives:
            with tarfile.open(path) as archive:
                # Python 3.11.3 and before know no filters.
                archive.extractall(target, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        yield Path(target)


def main() -> int:
    parser = argparse.ArgumentParser(description="the main job on real handwriting, in bands around known figures")
    parser.add_argument("data", type=Path, help="folder with cmnist and casia-small")
    parser.add_argument("--log", type=Path, help="a file to which each result is added")
    parser.add_argument("--cases", default="", help=f"comma-separated (default: {','.join(c.name for c in CASES)})")
    args = parser.parse_args()
    chosen = [case for case in CASES if not args.cases or case.name in args.cases.split(",")]
    failed = False
    with unpacked(args.data) as data:
        for case in chosen:
            print(f"{case.name}: {case.epochs} epochs …", file=sys.stderr)
            line = json.dumps(found := trial(case, data), ensure_ascii=False)
            print(line, flush=True)
            if args.log:
                with args.log.open("a") as log:
                    print(line, file=log)
            failed |= found["error"] is not None
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
