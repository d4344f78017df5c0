"""Conversions that are killed, doubled and starved at random moments, and what is in the dataset afterwards.

    python tests/campaigns/exactly_once.py --log exactly_once.jsonl                       on local-cluster, local files
    python tests/campaigns/exactly_once.py --log exactly_once.jsonl --url hdfs:///tmp/x    on HADOOP_CONF_DIR's YARN

A trial takes a dataset in one of three states (nothing yet; a first generation, with new, changed and removed files to
come; two generations to be compacted), brings it to the next one, and disturbs that:

    executor     one of the executors is killed
    worker       one of Spark's Python processes is killed
    driver       the driver is killed
    speculation  a Python process is stopped for some seconds, so that Spark runs its task a second time, and goes on
    twice        the same command is started twice
    full         (HDFS) the quota of the dataset is used up

Where it did not succeed all the same the command is run again, until it does. What is there then must be, shard for
shard, what an undisturbed run has made; `verify` must have nothing to say; nothing may be left under a temporary name;
and at no moment may a reader that begins at the manifest have found a shard missing or of another size. Each trial is a
line in the log, and those that are there are not repeated. Exit code 1 where a trial failed. The same --seed gives the
same trials.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import getpass
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from tfos_job import storage
from tfos_job.data import charset as charsets
from tfos_job.data import gnt
from tfos_job.data import manifest as manifests
from tfos_job.errors import JobError, MissingInputError
from tfos_job.hadoop_conf import conf_dir, read_settings
from tfos_job.layout import DatasetLayout, join

ROOT = Path(__file__).resolve().parents[2]
NUM_CLASSES = 50
KINDS = ("executor", "worker", "driver", "speculation", "twice")
RUN_TIMEOUT_S = 400
FINAL_RUNS = 3
TEMPORARY = ("_building-", ".tmp", ".stale")
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "50ms",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.2",
    "spark.speculation.minTaskRuntime": "100ms",
}


# --- the data --------------------------------------------------------------------------------------------------------


def write_gnt(path: Path, num_records: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    tags = charsets.level1(NUM_CLASSES + 2).tags  # two classes too many: some records are left out
    with path.open("wb") as stream:
        for _ in range(num_records):
            pixels = draw.integers(0, 256, draw.integers(12, 28, 2), np.uint8)
            gnt.write(stream, tags[int(draw.integers(len(tags)))], pixels)


def write_sources(folder: Path, num_records: int) -> list[Path]:
    """Two folders of GNT files: what there is at first, and later with a file changed, one gone and three new ones."""
    first, later = folder / "gnt-0", folder / "gnt-1"
    first.mkdir(parents=True)
    for number in range(8):
        write_gnt(first / f"{number:03d}.gnt", num_records * (2 if number else 6), seed=number)  # the first one is cut
    shutil.copytree(first, later)
    write_gnt(later / "003.gnt", num_records, seed=100)
    (later / "005.gnt").unlink()
    for number in range(8, 11):
        write_gnt(later / f"{number:03d}.gnt", num_records * 2, seed=number)
    return [first, later]


@dataclasses.dataclass(frozen=True)
class Step:
    """What a command makes of the dataset in the state before: the files it finds, and its flags."""

    gnt: int
    flags: tuple[str, ...]


STEPS = (Step(0, ()), Step(1, ("--prune",)), Step(1, ("--prune", "--compact")))


# --- commands --------------------------------------------------------------------------------------------------------


_running: list[subprocess.Popen[str]] = []


def _start(command: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
    """In a session of its own, so that all of it can be ended."""
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    _running.append(run)
    return run


def end_all() -> None:
    """What still runs when the campaign ends before its time."""
    for run in _running:
        if run.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGTERM)


class Place:
    """Where commands run: here on local-cluster."""

    kinds: tuple[str, ...] = KINDS

    def __init__(self, folder: Path, master: str) -> None:
        self.root = str(folder)
        self.master = master

    def start(self, command: str, *flags: str, conf: dict[str, str] | None = None) -> subprocess.Popen[str]:
        conf = {"spark.ui.enabled": "false", "spark.log.level": "ERROR", **(conf or {})}
        submit = " ".join(f"--conf {key}={value}" for key, value in conf.items())
        environment = os.environ | {"PYSPARK_SUBMIT_ARGS": f"{submit} pyspark-shell", "PYSPARK_PYTHON": sys.executable}
        return _start(
            [sys.executable, "-m", "tfos_job", command, *flags, "--master", self.master],
            env=environment,
        )

    def start_verify(self, dataset_dir: str) -> subprocess.Popen[str]:
        """Here on either place: what it says is the same, and it is not what is tried."""
        return _start(
            [sys.executable, "-m", "tfos_job", "verify", "--dataset_dir", dataset_dir, "--master", "local[2]"],
            env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        )

    def processes(self, run: subprocess.Popen[str]) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(run.pid).children(recursive=True)
        return []

    def drivers(self, run: subprocess.Popen[str]) -> list[psutil.Process]:
        """The processes of which each is the driver's death."""
        found = [process for process in self.processes(run) if "org.apache.spark.deploy.SparkSubmit" in line(process)]
        return [psutil.Process(run.pid), *found]

    def executors(self, run: subprocess.Popen[str]) -> list[psutil.Process]:
        return [process for process in self.processes(run) if _is_executor(process)]

    def workers(self, run: subprocess.Popen[str]) -> list[psutil.Process]:
        """Python processes that run tasks: children of executors' daemons."""
        return [process for process in self.processes(run) if _is_python_worker(process)]

    def fill(self, dataset_dir: str) -> None:
        raise NotImplementedError

    def empty(self, dataset_dir: str) -> None:
        raise NotImplementedError


class Yarn(Place):
    """On the YARN and HDFS of HADOOP_CONF_DIR, through submit.sh."""

    kinds = (*KINDS, "full")

    def __init__(self, url: str) -> None:
        self.root = url
        self.master = "yarn"

    def start(self, command: str, *flags: str, conf: dict[str, str] | None = None) -> subprocess.Popen[str]:
        settings = {"spark.dynamicAllocation.enabled": "false", "spark.executor.instances": "2", **(conf or {})}
        extra = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
        return _start(
            [sys.executable, "-m", "tfos_job.submit.main", command, *flags, "--", *extra],
            env=os.environ | {"TFOS_JOB_HOME": str(ROOT)},
        )

    def processes(self, run: subprocess.Popen[str]) -> list[psutil.Process]:
        """Processes of containers, whoever started them: all trials' applications are over but this one's."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "CONTAINER_ID" in process.environ():
                    found.append(process)
        return found

    def drivers(self, run: subprocess.Popen[str]) -> list[psutil.Process]:
        return [process for process in self.processes(run) if "ApplicationMaster" in line(process)]

    def fill(self, dataset_dir: str) -> None:
        storage.make_dirs(dataset_dir)
        self._quota(dataset_dir, "storagespacequota=1000")

    def empty(self, dataset_dir: str) -> None:
        self._quota(dataset_dir, "storagespacequota=-1")

    def _quota(self, path: str, quota: str) -> None:
        """As an administrator: the user of these tests owns their HDFS."""
        address = read_settings(conf_dir() / "hdfs-site.xml")["dfs.namenode.http-address"]
        name = f"/webhdfs/v1{urlsplit(path).path}?op=SETQUOTA&{quota}&user.name={getpass.getuser()}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(f"http://{address}{name}", method="PUT"), timeout=10).close()


def line(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _is_executor(process: psutil.Process) -> bool:
    return "CoarseGrainedExecutorBackend" in line(process) and line(process).split()[0].endswith("java")


def _is_python_worker(process: psutil.Process) -> bool:
    """A child of the daemon that Spark forks its Python processes from."""
    with contextlib.suppress(psutil.Error):
        parent = process.parent()
        return "pyspark.daemon" in line(process) and parent is not None and "pyspark.daemon" in line(parent)
    return False


# --- a reader --------------------------------------------------------------------------------------------------------


class Reader:
    """Looks at a split all the time as any reader would, and keeps what it should never have seen."""

    def __init__(self, dataset: DatasetLayout) -> None:
        self.complaints: list[str] = []
        self.num_looks = 0
        self._split = dataset.split("train")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            try:
                manifest = manifests.load(self._split)
                damage = manifests.damage(self._split, manifest)
                # What was replaced meanwhile may be gone by now; only what the manifest still names must be there.
                if damage and manifests.load(self._split) == manifest:
                    self.complaints += damage
            except MissingInputError:
                continue
            except JobError as error:
                self.complaints.append(str(error))
            self.num_looks += 1


# --- trials ----------------------------------------------------------------------------------------------------------


class Campaign:
    """The sources, what undisturbed runs make of them, and the trials."""

    def __init__(self, place: Place, num_records: int, seed: int) -> None:
        self._place = place
        self._seed = seed
        with tempfile.TemporaryDirectory() as folder:
            self._gnt_dirs = []
            for source in write_sources(Path(folder), num_records):
                self._gnt_dirs.append(join(place.root, source.name))
                upload(source, self._gnt_dirs[-1])
        self._digests: list[str] = []
        self._usual_s: list[float] = []
        for number in range(len(STEPS)):
            target = self._state(number + 1)
            if number:
                copy_tree(self._state(number), target)
            run = place.start("convert", *self._flags(number, target))
            seconds = time_of_work(run, target)
            code, out, err = finish(run)
            if code:
                raise SystemExit(f"the undisturbed run failed with {code}:\n{err[-3000:]}")
            self._digests.append(json.loads(out.splitlines()[-1])["dataset_digest"])
            self._usual_s.append(seconds())
            print(f"undisturbed step {number}: {self._usual_s[-1]:.1f} s, {self._digests[-1][:12]}", file=sys.stderr)

    def _state(self, number: int) -> str:
        return join(self._place.root, f"state-{number}")

    def _flags(self, step: int, dataset_dir: str) -> list[str]:
        return [
            *("--gnt_dir", self._gnt_dirs[STEPS[step].gnt], "--dataset_dir", dataset_dir),
            *("--charset_size", str(NUM_CLASSES), "--image_format", "png", "--target_shard_mb", "1"),
            *STEPS[step].flags,
        ]

    def trial(self, number: int) -> dict[str, Any]:
        """One trial's line in the log; `error` is None where all is as it should be."""
        # Each kind meets each step; what is left to chance is the moment, and whom it hits.
        kinds = self._place.kinds
        turn, place = divmod(number, len(kinds))
        kind, step = kinds[place], (turn + place) % len(STEPS)
        draw = random.Random(f"{self._seed}/{number}")
        moment_s = draw.uniform(0, self._usual_s[step] * (0.95 if kind == "driver" else 0.8))
        dataset_dir = join(self._place.root, f"trial-{number:04d}")
        found: dict[str, Any] = {"trial": number, "kind": kind, "step": step, "moment_s": round(moment_s, 3)}
        began = time.monotonic()
        try:
            if step:
                copy_tree(self._state(step), dataset_dir)
            else:
                storage.make_dirs(dataset_dir)
            with Reader(DatasetLayout(dataset_dir)) as reader:
                found["codes"], found["hit"] = self._disturbed(kind, step, dataset_dir, moment_s, draw)
                found["final_codes"] = self._run_until_good(step, dataset_dir) if any(found["codes"]) else [0]
            found["num_looks"] = reader.num_looks
            error = self._fault(kind, step, dataset_dir, found, reader.complaints)
        except Exception:  # noqa: BLE001 - it is this trial that failed, whatever of
            error = traceback.format_exc()
        found |= {"seconds": round(time.monotonic() - began, 1), "error": error}
        if error is None:
            storage.remove(dataset_dir)
        return found

    def _disturbed(
        self, kind: str, step: int, dataset_dir: str, moment_s: float, draw: random.Random
    ) -> tuple[list[int], str]:
        """Exit codes of what was started, and what was done to it."""
        place, flags = self._place, self._flags(step, dataset_dir)
        if kind == "full":
            place.fill(dataset_dir)
        runs = [place.start("convert", *flags, conf=SPECULATION if kind == "speculation" else {})]
        hit = ""
        if kind == "twice":
            time.sleep(draw.uniform(0, 2))
            runs.append(place.start("convert", *flags))
        elif kind != "full":
            wait_for_work(runs[0], dataset_dir)
            time.sleep(moment_s)
            hit = self._hit(kind, runs[0], draw)
        codes = [finish(run)[0] for run in runs]
        if kind == "full":
            place.empty(dataset_dir)
        return codes, hit

    def _hit(self, kind: str, run: subprocess.Popen[str], draw: random.Random) -> str:
        """Kills or stops one of the processes; says which, and nothing where there was none any more."""
        find: dict[str, Callable[[subprocess.Popen[str]], list[psutil.Process]]] = {
            "executor": self._place.executors,
            "worker": self._place.workers,
            "driver": self._place.drivers,
            "speculation": self._place.workers,
        }
        while not (victims := find[kind](run)):
            if run.poll() is not None:
                return ""
            time.sleep(0.02)  # Spark starts its Python processes when it has a task for them
        victim = draw.choice(victims)
        with contextlib.suppress(psutil.NoSuchProcess):
            if kind == "speculation":
                victim.suspend()
                time.sleep(4)
                victim.resume()
            else:
                victim.send_signal(signal.SIGKILL)
            return f"process {victim.pid}"
        return ""

    def _run_until_good(self, step: int, dataset_dir: str) -> list[int]:
        codes = []
        while len(codes) < FINAL_RUNS and (not codes or codes[-1]):
            codes.append(finish(self._place.start("convert", *self._flags(step, dataset_dir)))[0])
        return codes

    def _fault(
        self, kind: str, step: int, dataset_dir: str, found: dict[str, Any], complaints: list[str]
    ) -> str | None:
        """What is not as it should be, in words."""
        if complaints:
            return f"a reader found: {'; '.join(complaints[:3])}"
        if kind in ("executor", "worker", "speculation") and found["codes"] != [0]:
            return f"Spark should have gone on, and the command ended with {found['codes']}"
        if kind == "twice" and sorted(found["codes"]) not in ([0, 0], [0, 75]):
            return f"two at once ended with {found['codes']}"
        if kind == "full" and found["codes"] != [77]:
            return f"without room the command ended with {found['codes']}, not with 77"
        if found["final_codes"][-1:] != [0]:
            return f"the runs afterwards ended with {found['final_codes']}"
        manifest = manifests.load(DatasetLayout(dataset_dir).split("train"))
        if manifest.digest != self._digests[step]:
            return f"the dataset is {manifest.digest[:12]}, undisturbed it is {self._digests[step][:12]}"
        left = leftovers(dataset_dir)
        if left:
            return f"left behind: {', '.join(left)}"
        code, out, err = finish(self._place.start_verify(dataset_dir))
        return None if code == 0 else f"verify ended with {code}: {err[-1000:]} {out[-1000:]}"


def wait_for_work(run: subprocess.Popen[str], dataset_dir: str) -> None:
    """Until the command has the dataset's lock: what it did before can leave nothing."""
    while run.poll() is None and not storage.exists(DatasetLayout(dataset_dir).lock):
        time.sleep(0.02)


def time_of_work(run: subprocess.Popen[str], dataset_dir: str) -> Callable[[], float]:
    """Seconds from the lock to the end of the lock, once the command is over."""
    wait_for_work(run, dataset_dir)
    began = time.monotonic()
    ended: list[float] = []

    def watch() -> None:
        while storage.exists(DatasetLayout(dataset_dir).lock):
            time.sleep(0.02)
        ended.append(time.monotonic())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()

    def seconds() -> float:
        thread.join(60)
        return ended[0] - began

    return seconds


def finish(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr. A command that hangs is killed, and its code says so (-9)."""
    try:
        out, err = run.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        out, err = run.communicate()
    return run.returncode, out, err


def leftovers(folder: str) -> list[str]:
    found = []
    for entry in storage.list_dir(folder):
        if entry.name == "_lock" or entry.name.startswith(TEMPORARY) or entry.name.endswith(TEMPORARY):
            found.append(entry.path)
        elif entry.is_dir:
            found += leftovers(entry.path)
    return found


def walk(folder: str) -> Iterator[storage.Entry]:
    for entry in storage.list_dir(folder):
        if entry.is_dir:
            yield from walk(entry.path)
        else:
            yield entry


def upload(source: Path, target: str) -> None:
    """Copies a local folder; files on a local disk keep their times."""
    storage.make_dirs(target)
    for path in sorted(source.iterdir()):
        storage.write_bytes(join(target, path.name), path.read_bytes())


def copy_tree(source: str, target: str) -> None:
    for entry in walk(source):
        path = join(target, entry.path[len(source) + 1 :])
        storage.make_dirs(path.rpartition("/")[0])
        storage.write_bytes(path, storage.read_bytes(entry.path))


def main() -> int:
    parser = argparse.ArgumentParser(description="conversions that are killed, doubled and starved at random moments")
    parser.add_argument("--log", type=Path, required=True, help="a JSON line for each trial; those there are done")
    parser.add_argument("--trials", type=int, default=30, help="how many there are to be in the log (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the moments and the victims (default: 0)")
    parser.add_argument("--num_records", type=int, default=4_000, help="in the smallest GNT file (default: 4000)")
    parser.add_argument("--master", default="local-cluster[2,1,1024]", help="Spark's master, with separate executors")
    parser.add_argument("--url", help="a folder on HDFS, which must not be there: run on YARN through submit.sh")
    args = parser.parse_args()
    done = [json.loads(text) for text in args.log.read_text().splitlines()] if args.log.exists() else []
    todo = sorted(set(range(args.trials)) - {found["trial"] for found in done})
    folder = args.url or tempfile.mkdtemp(prefix="tfos_job-campaign-")
    try:
        if todo:
            place = Yarn(folder) if args.url else Place(Path(folder), args.master)
            campaign = Campaign(place, args.num_records, args.seed)
            for number in todo:
                found = campaign.trial(number)
                done.append(found)
                with args.log.open("a") as log:
                    print(json.dumps(found), file=log)
                print(json.dumps(found), file=sys.stderr)
    finally:
        end_all()
        if not any(found["error"] for found in done):
            storage.remove(folder)
    failed = [found["trial"] for found in done if found["error"]]
    hit = sum(bool(found.get("hit")) for found in done)
    print(json.dumps({"trials": len(done), "failed": failed, "hit": hit, "folder": folder if failed else None}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
