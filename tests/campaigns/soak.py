"""A long training with a forced restart every few minutes: what its processes hold must not grow.

    python tests/campaigns/soak.py --log soak.jsonl --plot soak.png [--minutes 30] [--every 180]

The worker's TensorFlow process is killed again and again, and the job restarts by itself. Before each kill, and at the
end, a line of JSON says what each process holds: threads, descriptors, and memory that is its own (USS). After the
third restart the driver may have no more threads and no more descriptors than before, and no process may have grown by
2 MiB a restart (the slope of a straight line through its memory). The driver's JVM is recorded and not judged: its heap
is as large as it is allowed to be. Exit code 1 where something has grown. benchmarks/README.md has the last run.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tests.fault_places import Job, Place, convert_data, role_of  # noqa: E402
from tfos_job.layout import RunLayout  # noqa: E402
from tfos_job.run import checkpoints  # noqa: E402

ROLES = ("driver", "jvm", "coordinator", "supervisor", "worker", "ps")
JUDGED = ("driver", "coordinator", "supervisor", "worker", "ps")
MIB = 1 << 20
LIMIT_MIB = 2.0
SETTLED = 3
"""Restarts after which nothing may grow: caches and thread pools are filled by then."""
STOP_S = 120.0
POLL_S = 0.5


def held(processes: Sequence[psutil.Process]) -> dict[str, int]:
    """What the processes of one role hold together."""
    return {
        "processes": len(processes),
        "threads": sum(process.num_threads() for process in processes),
        "descriptors": sum(process.num_fds() for process in processes),
        "memory_bytes": sum(process.memory_full_info().uss for process in processes),
    }


def sample(job: Job) -> dict[str, dict[str, int]]:
    found: dict[str, list[psutil.Process]] = {role: [] for role in ROLES}
    for process in job.processes():
        if (role := role_of(process)) in found:
            found[role].append(process)
    return {role: held(processes) for role, processes in found.items()}


def wait_for_checkpoint(job: Job, run: RunLayout, since: Sequence[str]) -> None:
    """Until there is one that was not there: the job trains, and a restart counts as one after progress."""
    while set(checkpoints.candidates(run)) <= set(since):
        if job.poll() is not None:
            raise SystemExit(f"ended with {job.poll()}:\n{job.tail()}")
        time.sleep(POLL_S)


def kill_worker(job: Job) -> None:
    (worker,) = (process for process in job.processes() if role_of(process) == "worker")
    worker.kill()


def growth_mib(samples: Sequence[Mapping[str, Any]], role: str) -> float:
    """MiB a restart, by a straight line through the samples after the third restart."""
    settled = [line["held"][role]["memory_bytes"] / MIB for line in samples if line["restarts"] >= SETTLED]
    return float(np.polyfit(range(len(settled)), settled, 1)[0]) if len(settled) > 1 else 0.0


def complaints(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """What has grown, in words."""
    settled = [line["held"]["driver"] for line in samples if line["restarts"] >= SETTLED]
    if len(settled) < 2:
        return [f"{len(samples) - 1} restarts are too few to judge: at least {SETTLED + 1}"]
    found = [
        f"the driver's {name}: {settled[0][name]}, then {max(line[name] for line in settled[1:])}"
        for name in ("threads", "descriptors")
        if max(line[name] for line in settled[1:]) > settled[0][name]
    ]
    grown = {role: growth_mib(samples, role) for role in JUDGED}
    return found + [f"{role} grows by {mib:.1f} MiB a restart" for role, mib in grown.items() if mib >= LIMIT_MIB]


def plot(samples: Sequence[Mapping[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, driver) = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    restarts = [line["restarts"] for line in samples]
    for role in ROLES:
        memory.plot(restarts, [line["held"][role]["memory_bytes"] / MIB for line in samples], "o-", label=role)
    memory.set(xlabel="restarts", ylabel="MiB of its own", title="memory", ylim=(0, None))
    for name, mark in (("threads", "o-"), ("descriptors", "x--")):
        driver.plot(restarts, [line["held"]["driver"][name] for line in samples], mark, label=name)
    driver.set(xlabel="restarts", title="the driver's threads and descriptors", ylim=(0, None))
    for axes in (memory, driver):
        axes.legend(fontsize="small", loc="center", ncols=3)
    figure.savefig(path, dpi=100)


def soak(folder: Path, minutes: float, every_s: float, log: Path) -> list[dict[str, Any]]:
    place = Place.named("local", convert_data(folder), None)
    run = RunLayout(str(folder / "run"))
    flags = ["--train_dir", run.root, "--max_number_of_steps", "100000000", "--save_seconds", "20"]
    job = place.start(flags, {}, folder)
    samples: list[dict[str, Any]] = []
    ends_s = time.monotonic() + 60 * minutes
    try:
        wait_for_checkpoint(job, run, ())
        while True:
            time.sleep(max(0.0, min(every_s, ends_s - time.monotonic())))
            samples.append({"restarts": len(samples), "time": time.strftime("%H:%M:%S"), "held": sample(job)})
            with log.open("a") as stream:
                print(json.dumps(samples[-1]), file=stream)
            print(json.dumps(samples[-1]), file=sys.stderr)
            if time.monotonic() >= ends_s:
                break
            before = checkpoints.candidates(run)
            kill_worker(job)
            wait_for_checkpoint(job, run, before)
        psutil.Process(job.pid).send_signal(signal.SIGTERM)
        if (code := job.wait(STOP_S)) != 143:
            raise SystemExit(f"SIGTERM ended it with {code}:\n{job.tail()}")
        if left := job.left():
            raise SystemExit(f"left behind: {'; '.join(left)}")
    finally:
        job.close()
    return samples


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="a long training with forced restarts: nothing may grow")
    parser.add_argument("--log", type=Path, required=True, help="a JSON line for each sample is added to it")
    parser.add_argument("--plot", type=Path, help="a PNG of the samples")
    parser.add_argument("--minutes", type=float, default=30, help="how long (default: 30)")
    parser.add_argument("--every", type=float, default=180, help="seconds between restarts (default: 180)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tfos_job-soak-") as folder:
        samples = soak(Path(folder), args.minutes, args.every, args.log)
    if args.plot:
        plot(samples, args.plot)
    found = complaints(samples)
    growth = {role: round(growth_mib(samples, role), 2) for role in ROLES}
    print(json.dumps({"restarts": len(samples) - 1, "growth_mib": growth, "complaints": found}))
    return 1 if found else 0


if __name__ == "__main__":
    # As Ctrl-C: what was started so far is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
