"""Conversions that are killed, doubled and starved at random moments, and what is in the dataset afterwards.

    python tests/campaigns/exactly_once.py --log exactly_once.jsonl                       on local-cluster, local files
    python tests/campaigns/exactly_once.py --log exactly_once.jsonl --url hdfs:///tmp/x    on HADOOP_CONF_DIR's YARN

A trial takes a dataset in one of three states (nothing yet; a first generation, with new, changed and removed files to
come; two generations to be compacted), brings it to the next one, and disturbs that:

    executor     one of the executors is killed
    worker       one of Spark's Python processes is killed
    driver       the driver is killed
    speculation  a Python process is stopped for some seconds, and goes on. Spark runs its task a second time meanwhile
                 where it has an executor on another host, and never on the same one
    twice        the same command is started twice
    full         (HDFS) the quota of the dataset is used up

Trials go through these kinds in turn, or through those of --kinds, in the order that is given there. The moment is that
of one of the changes that are seen in the dataset's folder: a lock that comes, a shard that gets its name, and so on.

Where it did not succeed all the same the command is run again, until it does. What is there then must be, shard for
shard, what an undisturbed run has made; `verify` must have nothing to say; nothing may be left under a temporary name;
and at no moment may a reader that begins at the manifest have found a shard missing or of another size. Each trial is a
line in the log, and those that are there are not repeated. Exit code 1 where a trial failed. The same --seed and
--kinds give the same trials.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import psutil
from pyspark.sql import SparkSession

from tfos_job import storage
from tfos_job.conversion import generation
from tfos_job.errors import JobError, MissingInputError
from tfos_job.formats import charset as charsets
from tfos_job.formats import gnt
from tfos_job.formats import manifest as manifests
from tfos_job.hadoop_conf import conf_dir, read_settings
from tfos_job.jobs.convert import convert
from tfos_job.jobs.verify import verify
from tfos_job.layout import DatasetLayout, join

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # to be run as a program as well

from tests.flags import parse_config

NUM_CLASSES = 50
KINDS = ("executor", "worker", "driver", "speculation", "twice", "full")
RUN_TIMEOUT_S = 400
POLL_S = 0.02
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


@dataclasses.dataclass(frozen=True)
class Usual:
    """What an undisturbed run of a step came to, and how many changes were seen in the dataset's folder meanwhile."""

    digest: str
    num_changes: int


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

    kinds: tuple[str, ...] = KINDS[:-1]

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
    """On the YARN and HDFS of HADOOP_CONF_DIR, through `tfos-job submit`."""

    kinds = KINDS

    def __init__(self, url: str) -> None:
        self.root = url
        self.master = "yarn"

    def start(self, command: str, *flags: str, conf: dict[str, str] | None = None) -> subprocess.Popen[str]:
        settings = {"spark.dynamicAllocation.enabled": "false", "spark.executor.instances": "2", **(conf or {})}
        extra = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
        words = [command, *flags, "--", *extra]
        return _start([sys.executable, "-m", "tfos_job", "submit", *words], dict(os.environ))

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


# --- who looks at a dataset meanwhile --------------------------------------------------------------------------------


class Watcher:
    """Runs on a thread of its own for the length of a `with`."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError


class Reader(Watcher):
    """Polls a split as any reader would, and records every state that a reader must never see.

    Its last look comes after all else, when the split is there: who had none has not looked.
    """

    def __init__(self, dataset: DatasetLayout) -> None:
        super().__init__()
        self.complaints: list[str] = []
        self.num_looks = 0
        self._split = dataset.split("train")

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(POLL_S)
            try:
                manifest = manifests.load(self._split)
                damage = generation.damage(self._split, manifest)
                # What was replaced meanwhile may be gone by now; only what the manifest still names must be there.
                if damage and manifests.load(self._split) == manifest:
                    self.complaints += damage
            except MissingInputError:
                continue
            except Exception as error:  # noqa: BLE001 - no reader may meet anything else
                self.complaints.append(f"{type(error).__name__}: {error}")
            self.num_looks += 1


class Changes(Watcher):
    """Counts the changes that are seen in a folder: whatever comes, goes or gets another name."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.num = 0
        self._folder = folder
        self._seen = names_in(folder)

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            names = names_in(self._folder)
            self.num += names != self._seen
            self._seen = names


def names_in(folder: str) -> set[str]:
    """Paths of all that is in a folder, which others may be changing."""
    found = set()
    with contextlib.suppress(MissingInputError):
        for entry in storage.list_dir(folder):
            found |= {entry.path, *(names_in(entry.path) if entry.is_dir else ())}
    return found


# --- trials ----------------------------------------------------------------------------------------------------------


class Campaign:
    """The sources, what undisturbed runs make of them, and the trials.

    Args:
      spark: does what is not disturbed; None where commands do.
    """

    def __init__(
        self, place: Place, kinds: Sequence[str], num_records: int, seed: int, spark: SparkSession | None
    ) -> None:
        self._place = place
        self._kinds = kinds
        self._seed = seed
        self._spark = spark
        with tempfile.TemporaryDirectory() as folder:
            self._gnt_dirs = []
            for source in write_sources(Path(folder), num_records):
                self._gnt_dirs.append(join(place.root, source.name))
                upload(source, self._gnt_dirs[-1])
        self._usual: list[Usual] = []

    def _state(self, number: int) -> str:
        return join(self._place.root, f"state-{number}")

    def _flags(self, step: int, dataset_dir: str) -> list[str]:
        return [
            *("--gnt_dir", self._gnt_dirs[STEPS[step].gnt], "--dataset_dir", dataset_dir),
            *("--charset_size", str(NUM_CLASSES), "--image_format", "png", "--target_shard_mb", "1"),
            *STEPS[step].flags,
        ]

    def _usually(self, step: int) -> Usual:
        """Runs the step, and those before it, where that has not been done."""
        for number in range(len(self._usual), step + 1):
            target = self._state(number + 1)
            storage.make_dirs(target)
            if number:
                copy_tree(self._state(number), target)
            with Changes(target) as changes:
                code, err = self._convert(number, target)
            if code:
                raise SystemExit(f"the undisturbed run failed with {code}:\n{err[-3000:]}")
            digest = manifests.load(DatasetLayout(target).split("train")).digest
            self._usual.append(Usual(digest, changes.num))
            print(f"undisturbed step {number}: {self._usual[-1]}", file=sys.stderr)
        return self._usual[step]

    def _convert(self, step: int, dataset_dir: str) -> tuple[int, str]:
        """Undisturbed; an exit code, and what there is to say of it."""
        flags = self._flags(step, dataset_dir)
        if self._spark is None:
            code, _, err = finish(self._place.start("convert", *flags))
            return code, err
        try:
            convert(self._spark, parse_config("convert", flags))
        except JobError as error:
            return error.exit_code, str(error)
        return 0, ""

    def _verify(self, dataset_dir: str) -> str | None:
        """What `verify` has to say. Here on either place: it would say the same, and it is not what is tried."""
        flags = ["--dataset_dir", dataset_dir]
        if self._spark is not None:
            return "; ".join(verify(self._spark, parse_config("verify", flags)).lines()) or None
        run = _start(
            [sys.executable, "-m", "tfos_job", "verify", *flags, "--master", "local[2]"],
            env=os.environ | {"PYSPARK_PYTHON": sys.executable},
        )
        code, out, err = finish(run)
        return None if code == 0 else f"verify ended with {code}: {err[-1000:]} {out[-1000:]}"

    def trial(self, number: int) -> dict[str, Any]:
        """One trial's line in the log; `error` is None where all is as it should be."""
        # Each kind meets each step; what is left to chance is the moment, and whom it hits.
        turn, place = divmod(number, len(self._kinds))
        kind, step = self._kinds[place], (turn + place) % len(STEPS)
        draw = random.Random(f"{self._seed}/{number}")
        moment = draw.randrange(1, self._usually(step).num_changes)
        dataset_dir = join(self._place.root, f"trial-{number:04d}")
        found: dict[str, Any] = {"trial": number, "kind": kind, "step": step}
        began = time.monotonic()
        try:
            while True:
                storage.remove(dataset_dir)
                storage.make_dirs(dataset_dir)
                if step:
                    copy_tree(self._state(step), dataset_dir)
                found["moment"] = moment
                with Reader(DatasetLayout(dataset_dir)) as reader:
                    found["codes"], found["hit"] = self._disturbed(kind, step, dataset_dir, moment, draw)
                    found["final_codes"] = self._run_until_good(step, dataset_dir) if any(found["codes"]) else [0]
                found["num_looks"] = reader.num_looks
                error = self._fault(kind, step, dataset_dir, found, reader.complaints)
                if error or found["hit"] or kind in ("twice", "full") or moment == 1:
                    break
                moment //= 2  # fewer changes were seen this time, and the command was over
        except Exception:  # noqa: BLE001 - it is this trial that failed, whatever of
            error = traceback.format_exc()
        found |= {"seconds": round(time.monotonic() - began, 1), "error": error}
        if error is None:
            storage.remove(dataset_dir)
        return found

    def _disturbed(
        self, kind: str, step: int, dataset_dir: str, moment: int, draw: random.Random
    ) -> tuple[list[int], str]:
        """Exit codes of what was started, and what was done to it."""
        place, flags = self._place, self._flags(step, dataset_dir)
        if kind == "full":
            place.fill(dataset_dir)
        hit = ""
        with Changes(dataset_dir) as changes:
            runs = [place.start("convert", *flags, conf=SPECULATION if kind == "speculation" else {})]
            if kind == "twice":
                time.sleep(draw.uniform(0, 2))
                runs.append(place.start("convert", *flags))
            elif kind != "full":
                while runs[0].poll() is None and changes.num < moment:
                    time.sleep(POLL_S)
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
            time.sleep(POLL_S)  # Spark starts its Python processes when it has a task for them
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
            codes.append(self._convert(step, dataset_dir)[0])
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
        expected = self._usually(step).digest
        if manifest.digest != expected:
            return f"the dataset is {manifest.digest[:12]}, undisturbed it is {expected[:12]}"
        left = leftovers(dataset_dir)
        if left:
            return f"left behind: {', '.join(left)}"
        return self._verify(dataset_dir)


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


def main(argv: Sequence[str] | None = None, spark: SparkSession | None = None) -> int:
    parser = argparse.ArgumentParser(description="conversions that are killed, doubled and starved at random moments")
    parser.add_argument("--log", type=Path, required=True, help="a JSON line for each trial; those there are done")
    parser.add_argument("--trials", type=int, default=30, help="number of trials in the log (default: 30)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="of the trials (default: all that the place has)")
    parser.add_argument("--seed", type=int, default=0, help="of the data, the moments and the victims (default: 0)")
    parser.add_argument("--num_records", type=int, default=4_000, help="in the smallest GNT file (default: 4000)")
    parser.add_argument("--master", default="local-cluster[2,1,1024]", help="Spark's master, with separate executors")
    parser.add_argument("--url", help="a folder on HDFS, which must not be there: run on YARN")
    args = parser.parse_args(argv)
    kinds = args.kinds or (Yarn if args.url else Place).kinds
    if "full" in kinds and not args.url:
        parser.error("--kinds full needs --url")
    done = [json.loads(text) for text in args.log.read_text().splitlines()] if args.log.exists() else []
    todo = sorted(set(range(args.trials)) - {found["trial"] for found in done})
    folder = args.url or tempfile.mkdtemp(prefix="tfos_job-campaign-")
    try:
        if todo:
            place = Yarn(folder) if args.url else Place(Path(folder), args.master)
            campaign = Campaign(place, kinds, args.num_records, args.seed, spark)
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
