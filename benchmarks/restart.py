"""From the kill of a process to the next trained step, over the same run's time from SparkContext to first step.

    python benchmarks/restart.py [--repeats 3] [--kill worker ps coordinator]
    python benchmarks/restart.py --kill worker coordinator -- --num_ps_tasks 0

One training on `local[2]` of a small network, in which each of these processes is killed in turn, behind a checkpoint.
Both times end with the driver's word of a first step, which has then been applied. The limit that they should stay
within is 1.5 times the start + 8 s. What follows `--` are flags of `tfos-job train`. The last line of stdout is one
JSON object; benchmarks/README.md has dated results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.command

from tests.command import role_of

COMMAND = (sys.executable, "-m", "tfos_job")
ROLES = ("worker", "ps", "coordinator")
_STEP = re.compile(r"step \d+ of \d+: loss")
_START = ("containers", "statistics", "registration", "build", "first_step")
"""The phases between the SparkContext and the first step."""


class Training:
    """A run that is killed at; remembers when its lines came."""

    def __init__(self, dataset: Path, train_dir: Path, flags: Sequence[str]) -> None:
        words = ["--dataset_dir", dataset, "--train_dir", train_dir, "--image_size", 16, "--batch_size", 32]
        words += ["--max_number_of_steps", 1_000_000, "--save_seconds", 5, "--master", "local[2]", *flags]
        self._train_dir = train_dir
        self._process = psutil.Popen(
            [*COMMAND, "train", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stderr:
            self._lines.append((time.monotonic(), line))

    def wait_for(self, pattern: str | re.Pattern[str], since: int = 0) -> tuple[int, float]:
        """The number and time of the first line from `since` on that has the pattern."""
        while True:
            for number, (at_s, line) in enumerate(self._lines[since:], start=since):
                if re.search(pattern, line):
                    return number, at_s
            if self._process.poll() is not None:
                raise SystemExit(f"ended with {self._process.returncode}:\n{''.join(line for _, line in self._lines)}")
            time.sleep(0.02)

    def kill(self, role: str) -> float:
        """Kills a process; returns the seconds from then to the next step."""
        since = len(self._lines)
        self.wait_for("checkpoint .*step-", since)  # behind one: this restart counts for itself
        since = len(self._lines)
        killed_s = time.monotonic()
        self._find(role).kill()
        number, _ = self.wait_for("Starting attempt", since)
        return self.wait_for(_STEP, number)[1] - killed_s

    def _find(self, role: str) -> psutil.Process:
        for process in self._process.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                if role_of(process) == role:
                    return process
        raise SystemExit(f"no {role}")

    def start_s(self) -> float:
        """From the SparkContext to the first step, by the first attempt's phases."""
        report: dict[str, Any] = json.loads((self._train_dir / "report.json").read_text())
        return float(sum(report["attempts"][0]["phases"].get(name, 0.0) for name in _START))

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def measure(folder: Path, roles: Sequence[str], number: int, flags: Sequence[str]) -> tuple[float, dict[str, float]]:
    training = Training(folder / "dataset", folder / f"run-{number}", flags)
    try:
        training.wait_for(_STEP)
        seconds = {role: training.kill(role) for role in roles}
        return training.start_s(), seconds
    finally:
        training.end()


def main() -> None:
    parser = argparse.ArgumentParser(description="from the kill of a process to the next trained step")
    parser.add_argument("--repeats", type=int, default=3, help="runs (default: 3)")
    parser.add_argument("--kill", nargs="+", choices=ROLES, default=list(ROLES), help="in each run (default: all)")
    parser.add_argument("flags", nargs="*", help="behind --: flags of tfos-job train")
    args = parser.parse_args()
    starts_s: list[float] = []
    restarts_s: dict[str, list[float]] = {role: [] for role in args.kill}
    with tempfile.TemporaryDirectory(prefix="tfos_job-restart-") as scratch:
        folder = Path(scratch)
        words = ["synth", "--gnt_dir", folder / "gnt", "--charset_size", 10, "--num_writers", 10]
        subprocess.run([*COMMAND, *map(str, words)], check=True, capture_output=True)
        words = ["convert", "--gnt_dir", folder / "gnt", "--dataset_dir", folder / "dataset", "--charset_size", 10]
        subprocess.run([*COMMAND, *map(str, words)], check=True, capture_output=True)
        for number in range(args.repeats):
            start_s, seconds = measure(folder, args.kill, number, args.flags)
            starts_s.append(start_s)
            for role, took_s in seconds.items():
                restarts_s[role].append(took_s)
            print(f"start {start_s:.1f} s, {seconds}", file=sys.stderr)
    start_s = statistics.median(starts_s)
    medians = {role: round(statistics.median(seconds), 2) for role, seconds in restarts_s.items()}
    limit_s = 1.5 * start_s + 8
    result = {"start_s": round(start_s, 2), "restart_s": medians, "limit_s": round(limit_s, 2), "cores": os.cpu_count()}
    result["of_limit"] = {role: round(seconds / limit_s, 2) for role, seconds in medians.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    # As Ctrl-C: what was started so far is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
