"""Two checkouts of this project do the same: shards, loss, variables, evaluations, predictions, byte for byte.

    python tests/campaigns/same_training.py OLD_CHECKOUT NEW_CHECKOUT [--old_results FOLDER] [--new_results FOLDER]
    python tests/campaigns/same_training.py NEW_CHECKOUT --old_results FOLDER        with the old runs of another time

A run is the commands of CASES, in a folder of its own: synth, convert, train (again, to resume), evaluate, predict,
inspect. They are started as a user starts them, with the checkout as PYTHONPATH, so that modules may move from one
checkout to the other. The old checkout runs twice (--runs), the new one once. Each value that two runs leave behind
has a distance: the largest absolute difference of numbers, 0 or infinity for all else. The new run must be no further
from the nearest old run than the old runs are from each other. Exit code 1 where a value is, with its name.

One worker, one parameter server and one thread an operation make a training repeatable to the last bit. The number of
threads *between* operations stays: with TF_NUM_INTEROP_THREADS=1 the nodes wait for each other and no step is done.
How many steps one point of the loss curve covers depends on time, so only points of the same steps are compared.

A checkout's runs stay in its results folder where one is named, and what is there is not run again. Some five minutes a
run on two busy cores. One line of JSON for each kind of value, and one for all.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tests.run_values import CURVE, Facts, compare, facts  # noqa: E402

COMMAND_TIMEOUT_S = 900
COMPLETE = "complete.json"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
SHOWN_KEYS = 5
DRAWN_S = 1_700_000_000

# --- the commands ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training on one of the two datasets.

    Attributes:
      name: of the run's folder.
      dataset: `glyphs` or `images`.
      steps: at which each of the train commands ends; those after the first one resume.
      flags: of `train`.
    """

    name: str
    dataset: str
    steps: tuple[int, ...]
    flags: str


CASES = (
    Case(
        name="preloaded",
        dataset="glyphs",
        steps=(60,),
        flags="--input_mode preloaded --image_size 16 --random_rotation 15 --random_zoom 0.1 --elastic_distortion 0.02",
    ),
    Case(
        name="files",
        dataset="glyphs",
        steps=(30, 60),
        flags="--input_mode files --image_size 24 --normalization dataset --random_rotation 15 --stroke_width 0.5 "
        "--random_brightness 0.1 --learning_rate_decay_type cosine --warmup_steps 10 --label_smoothing 0.1",
    ),
    Case(
        name="colour",
        dataset="images",
        steps=(40,),
        flags="--input_mode files --image_size 32 --model_name hanzi_net --normalization per_image "
        "--random_rotation 15 --random_hue 0.1 --random_flip_left_right",
    ),
)
TRAIN = "--batch_size 32 --seed 3 --save_steps 10 --eval_steps 20 --validation_split_name validation"
IMAGES = "--dataset_dir images --num_channels 3 --dataset_split_name"
DATASETS = {
    "glyphs": (
        "synth --gnt_dir gnt/train --charset_size 30 --num_writers 12 --seed 5",
        "synth --gnt_dir gnt/validation --charset_size 30 --num_writers 3 --first_writer 13 --seed 5",
        "convert --gnt_dir gnt/train --dataset_dir glyphs --charset_size 30",
        "convert --gnt_dir gnt/validation --dataset_dir glyphs --dataset_split_name validation --image_format png",
    ),
    "images": (
        f"convert --image_dir pictures/train {IMAGES} train",
        f"convert --image_dir pictures/validation {IMAGES} validation",
    ),
}


def commands(cases: Sequence[Case]) -> dict[str, Sequence[str]]:
    """The command lines of a run in their order, by the dataset or the case that they are of."""
    found: dict[str, Sequence[str]] = {case.dataset: DATASETS[case.dataset] for case in cases}
    for case in cases:
        where = f"--dataset_dir {case.dataset} --train_dir runs/{case.name}"
        found[case.name] = (
            *(f"train {where} {TRAIN} {case.flags} --max_number_of_steps {steps}" for steps in case.steps),
            f"evaluate {where} --dataset_split_name validation",
            f"predict --train_dir runs/{case.name} pictures/validation/0/0.png pictures/validation/1/5.jpg",
            f"inspect {where} --output_dir inspected/{case.name}",
        )
    return found


def draw_pictures(folder: Path) -> None:
    """Coloured PNG and JPEG files of four classes: a blot on noisy paper, at the class's place and in its colour."""
    for split, number in itertools.product(("train", "validation"), range(160)):
        draw = np.random.default_rng([len(split), number])
        label = number % 4
        pixels = draw.integers(200, 256, (*draw.integers(24, 40, 2), 3), np.uint8)
        top, left = 4 + 8 * (label // 2) + draw.integers(3), 4 + 8 * (label % 2) + draw.integers(3)
        pixels[top : top + 8, left : left + 8] //= np.array([2, 3 + label, 6 - label], np.uint8)
        target = folder / split / str(label) / f"{number}.{'png' if number % 8 < 4 else 'jpg'}"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target, quality=95)
        os.utime(target, (DRAWN_S, DRAWN_S))  # a manifest of images has a digest of their times


def run(checkout: Path, folder: Path, cases: Sequence[Case]) -> None:
    """All commands of a run; what they print is in `answers/`.

    Raises:
      SystemExit: a command failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    draw_pictures(folder / "pictures")
    began_s = time.monotonic()
    for owner, lines in commands(cases).items():
        answers = folder / "answers" / owner
        answers.mkdir(parents=True)
        for number, line in enumerate(lines):
            print(f"{folder.name}: {line}", file=sys.stderr)
            words = line.split()
            out = call(checkout, ["-m", "tfos_job", *words], folder)
            (answers / f"{number}-{words[0]}.txt").write_text(out)
    about = {
        "checkout": str(checkout),
        "cases": [case.name for case in cases],
        "seconds": round(time.monotonic() - began_s),
        "load_average": os.getloadavg(),
    }
    (folder / COMPLETE).write_text(json.dumps(about))


def call(checkout: Path, words: Sequence[str], folder: Path) -> str:
    """Standard output of a Python that finds its modules in the checkout."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | ONE_THREAD | {"PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise SystemExit(f"{checkout}: {' '.join(words)} ended with {process.returncode}:\n{err[-3000:]}")
    return out


def runs(checkout: Path | None, results: Path, num_runs: int, cases: Sequence[Case]) -> list[Facts]:
    """Facts of a checkout's runs; those that the folder lacks are made.

    Args:
      checkout: None where all of them are there.
    """
    found = []
    for number in range(1, num_runs + 1):
        folder = results.resolve() / f"run-{number}"
        if not (folder / COMPLETE).exists():
            if checkout is None:
                raise SystemExit(f"{folder} holds no complete run: name the old checkout as well")
            where = call(checkout, ["-c", "import tfos_job; print(tfos_job.__file__)"], checkout)
            if not Path(where.strip()).is_relative_to(checkout):
                raise SystemExit(f"{checkout} is not what Python imports there: {where.strip()}")
            run(checkout, folder, cases)
        names = [case.name for case in cases]
        if (there := json.loads((folder / COMPLETE).read_text())["cases"]) != names:
            raise SystemExit(f"{folder} is of --cases {','.join(there)}, not {','.join(names)}: name another folder")
        found.append(facts(folder, commands(cases).keys()))
    return found


# --- by hand ---------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="whether two checkouts convert, train, evaluate and predict the same")
    parser.add_argument("checkouts", type=Path, nargs="+", metavar="CHECKOUT", help="the old one and the new one")
    parser.add_argument("--old_results", type=Path, help="folder of the old checkout's runs; what is there is reused")
    parser.add_argument("--new_results", type=Path, help="folder of the new checkout's run, the same")
    parser.add_argument("--runs", type=int, default=2, help="of the old checkout (default: 2)")
    parser.add_argument("--cases", default="", help=f"comma-separated (default: {','.join(c.name for c in CASES)})")
    args = parser.parse_args()
    if len(args.checkouts) > 2 or (len(args.checkouts) == 1 and args.old_results is None) or args.runs < 2:
        parser.error("give two checkouts, or the new one and --old_results; --runs is 2 or more")
    cases = [case for case in CASES if not args.cases or case.name in args.cases.split(",")]
    *old, new = (path.resolve() for path in args.checkouts)
    with tempfile.TemporaryDirectory(prefix="tfos_job-same_training-") as scratch:
        olds = runs(old[0] if old else None, args.old_results or Path(scratch, "old"), args.runs, cases)
        (found,) = runs(new, args.new_results or Path(scratch, "new"), 1, cases)
        compared = compare(olds, found)
    for kind, comparison in compared.items():
        further = comparison.further
        line = {"kind": kind, "values": comparison.num_values, "old": comparison.old, "new": comparison.new}
        print(json.dumps(line | {"further_apart": len(further), "such_as": further[:SHOWN_KEYS]}, ensure_ascii=False))
    failed = [kind for kind, comparison in compared.items() if comparison.further]
    print(json.dumps({"date": time.strftime("%Y-%m-%d"), "kinds": len(compared), "failed": failed}))
    return 1 if failed or CURVE not in compared else 0


if __name__ == "__main__":
    sys.exit(main())
