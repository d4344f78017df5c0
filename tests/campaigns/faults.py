"""Trainings whose processes, disks, hosts and clocks fail at random moments, and how they end.

    python tests/campaigns/faults.py --log faults.jsonl                         what needs no Hadoop
    python tests/campaigns/faults.py --log faults.jsonl --hadoop FOLDER          and what does, in a Hadoop of its own
    python tests/campaigns/faults.py --log faults.jsonl --hadoop FOLDER --trials 2100      a hundred of each kind

A trial trains a small network for a fixed number of steps, and does one thing to it at a random moment: `KINDS` has
them all; hosts that are cut off are in hosts.py. Afterwards these must hold: the command has ended within its deadline,
with the exit code of its kind; the run is at its last step, exactly, after the same command again where the kind ends
it; top-1 on the validation split is that of undisturbed runs; and no process, lock or YARN application is left.

Each trial is a line in the log, and those that are there are not repeated. Exit code 1 where a trial failed. Kinds that
this machine cannot do are named and left out. The same --seed gives the same trials. benchmarks/README.md has date and
figures of the last run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # to be run as a program as well

from tests.fault_places import Job, Place, convert_data, role_of  # noqa: E402
from tfos_job import storage  # noqa: E402
from tfos_job.layout import RunLayout, checkpoint_step  # noqa: E402
from tfos_job.run import checkpoints  # noqa: E402

STEPS = 400
NUM_SAVES = 10
"""Checkpoints of a training, at equal intervals."""
BAND = 0.06
"""Of top-1, below the undisturbed runs' worst: one of 20 records, or four standard deviations with 300 records."""
POLL_S = 0.1
HOG_QUEUE = "default"
"""Of YARN: not that of trainings."""
UNDISTURBED = 2


@dataclass
class Trial:
    """A training that is being disturbed.

    Attributes:
      place: where it runs.
      folder: of this trial, on this machine.
      run: its run's folder.
      draw: of all that is left to chance.
      job: its command; None before the start.
    """

    place: Place
    folder: Path
    run: RunLayout
    draw: random.Random
    job: Job = field(init=False)
    undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def switch(self) -> Path:
        """What the network of `exception` and `nan` multiplies its logits by."""
        return self.folder / "switch"

    def process(self, role: str) -> psutil.Process:
        """One of that role, which must come: after a restart it may be on its way."""
        while True:
            found = [process for process in self.job.processes() if role_of(process) == role]
            if found:
                return self.draw.choice(found)
            if self.job.poll() is not None:
                raise RuntimeError(f"no {role}: the command has ended with {self.job.poll()}:\n{self.job.tail()}")
            time.sleep(POLL_S)


Hit = Callable[[Trial], str]


def signalled(role: str, signum: int) -> Hit:
    """Sends a signal to a process of this role."""

    def hit(trial: Trial) -> str:
        process = trial.process(role)
        process.send_signal(signum)
        return f"{role} {process.pid}"

    return hit


def stopped_for(daemon: str, seconds: float) -> Hit:
    """Stops a daemon of Hadoop for that long."""

    def hit(trial: Trial) -> str:
        trial.place.hadoop.freeze(daemon)
        trial.undo.append(lambda: trial.place.hadoop.thaw(daemon))
        time.sleep(seconds)
        trial.undo.pop()()
        return f"{daemon} for {seconds:g} s"

    return hit


def daemon_killed(trial: Trial) -> str:
    daemon = trial.draw.choice(["datanode1", "datanode2"])
    trial.place.hadoop.kill(daemon)
    trial.undo.append(trial.place.hadoop.up)
    return daemon


def switched(word: str) -> Hit:
    def hit(trial: Trial) -> str:
        trial.switch.write_text(word)
        trial.undo.append(lambda: trial.switch.write_text("1"))
        return f"the network multiplies by {word!r}"

    return hit


def disk_filled(trial: Trial) -> str:
    """The run is on a disk of its own, which is full until the command has ended."""
    ballast = trial.folder / "disk" / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 20))
    trial.undo.append(ballast.unlink)
    return f"{ballast.stat().st_size >> 20} MiB of ballast"


def newest_damaged(trial: Trial) -> str:
    """The newest checkpoint loses a bit, and a process dies before there is a newer one."""
    coordinator = trial.process("coordinator")
    coordinator.suspend()  # it publishes none meanwhile
    path = Path(checkpoints.candidates(trial.run)[0]) / "variables.npz"
    data = bytearray(path.read_bytes())
    data[trial.draw.randrange(len(data))] ^= 1 << trial.draw.randrange(8)
    path.write_bytes(data)
    coordinator.kill()
    return f"{path.parent.name}, and the coordinator {coordinator.pid}"


def clock_jumped(trial: Trial) -> str:
    hours = trial.draw.choice([-2, 2])
    (trial.folder / "jump").write_text(str(3600 * hours))
    return f"{hours:+d} h"


def hog_started(trial: Trial) -> None:
    """An application of the other queue is there, and holds nothing but its master yet."""
    claim = trial.folder / "claim"
    hog = trial.place.hadoop.hog(HOG_QUEUE, claim, seconds=30)

    def end() -> None:
        claim.touch()
        hog.wait(600)

    trial.undo.append(end)


def preempted(trial: Trial) -> str:
    """It asks for what is its own, of which the training's containers hold a part."""
    before = trial.place.hadoop.containers_of(HOG_QUEUE)
    (trial.folder / "claim").touch()
    while trial.place.hadoop.containers_of(HOG_QUEUE) <= before:
        time.sleep(POLL_S)
    return f"queue {HOG_QUEUE} has claimed its half"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A fault.

    Attributes:
      place: `local`, `executors` (local-cluster) or `yarn`.
      hit: does it; returns to whom.
      prepare: what must be there before the training begins.
      codes: with which the command may end.
      again: the same command follows, and goes on to the end.
      attempts: that the report must have at least, in the end.
      after: checkpoints that must be there before.
      flags, settings: more of `train`'s and of Spark's.
      needs: what this machine must allow: `root`, or nothing.
    """

    place: str
    hit: Hit
    prepare: Callable[[Trial], None] = lambda trial: None
    codes: tuple[int, ...] = (0,)
    again: bool = False
    attempts: int = 1
    after: int = 0
    flags: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""


OWN_NETWORK = ("--model_name", "switched:build")
LARGE = {"spark.executor.memoryOverhead": "4g"}
KINDS = {
    "worker": Kind(place="local", hit=signalled("worker", signal.SIGKILL), attempts=2),
    "ps": Kind(place="local", hit=signalled("ps", signal.SIGKILL), attempts=2),
    "coordinator": Kind(place="local", hit=signalled("coordinator", signal.SIGKILL), attempts=2),
    "supervisor": Kind(place="local", hit=signalled("supervisor", signal.SIGKILL), attempts=2),
    "executor": Kind(place="executors", hit=signalled("executor", signal.SIGKILL), attempts=2),
    "driver": Kind(place="local", hit=signalled("driver", signal.SIGKILL), codes=(-9,), again=True, attempts=2),
    # Training needs Spark's JVM at its start and at its end, which waits for it only so long.
    "jvm_stopped": Kind(place="local", hit=signalled("jvm", signal.SIGSTOP)),
    "node_stopped": Kind(place="local", hit=signalled("worker", signal.SIGSTOP), attempts=2),
    # Its server takes steps meanwhile: a run may be done before its silence is noticed.
    "supervisor_stopped": Kind(place="local", hit=signalled("supervisor", signal.SIGSTOP)),
    "coordinator_stopped": Kind(place="local", hit=signalled("coordinator", signal.SIGSTOP), attempts=2),
    "exception": Kind(place="local", hit=switched("no number"), codes=(70,), again=True, attempts=2, flags=OWN_NETWORK),
    "nan": Kind(place="local", hit=switched("nan"), codes=(76,), again=True, attempts=2, flags=OWN_NETWORK),
    "disk_full": Kind(place="local", hit=disk_filled, codes=(74,), again=True, attempts=2, needs="root"),
    "damaged": Kind(place="local", hit=newest_damaged, attempts=2, after=2),
    "clock": Kind(place="local", hit=clock_jumped),
    "container": Kind(place="yarn", hit=signalled("executor", signal.SIGKILL), attempts=2),
    "application_master": Kind(place="yarn", hit=signalled("driver", signal.SIGKILL), attempts=2),
    "namenode_30s": Kind(place="yarn", hit=stopped_for("namenode", 30)),
    "namenode_90s": Kind(place="yarn", hit=stopped_for("namenode", 90)),
    "datanode": Kind(place="yarn", hit=daemon_killed),
    "preempted": Kind(place="yarn", hit=preempted, prepare=hog_started, attempts=2, settings=LARGE),
}


@dataclass(frozen=True)
class Usual:
    """Undisturbed runs at a place.

    Attributes:
      seconds: of the slowest one.
      top_1: the lowest.
    """

    seconds: float
    top_1: float


class Campaign:
    """The data, what undisturbed runs make of them, and the trials."""

    def __init__(self, folder: Path, dataset: Path | None, args: argparse.Namespace) -> None:
        self._folder = folder
        self._seed = args.seed
        self._num_undisturbed = args.undisturbed
        self._steps = args.steps
        self._save_steps = args.steps // NUM_SAVES
        self._dataset = dataset or convert_data(folder)
        self._hadoop_folder = args.hadoop
        self._places: dict[str, Place] = {}
        self._usual: dict[str, Usual] = {}

    def close(self) -> None:
        for place in self._places.values():
            place.close()

    def _place(self, name: str) -> Place:
        if name not in self._places:
            self._places[name] = Place.named(name, self._dataset, self._hadoop_folder)
        return self._places[name]

    def _trial(self, place: Place, name: str, draw: random.Random) -> Trial:
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "switched.py").write_text(NETWORK.format(path=str(folder / "switch")))
        (folder / "switch").write_text("1")
        (folder / "sitecustomize.py").write_text(CLOCK.format(path=str(folder / "jump")))
        return Trial(place, folder, RunLayout(place.train_dir(folder)), draw)

    def _start(self, trial: Trial, more: Sequence[str], settings: Mapping[str, str]) -> None:
        flags = ["--train_dir", trial.run.root, "--max_number_of_steps", str(self._steps)]
        flags += ["--save_steps", str(self._save_steps), "--validation_split_name", "test", "--eval_steps", "0", *more]
        trial.job = trial.place.start(flags, dict(settings), trial.folder)

    def _usually(self, kind: Kind) -> Usual:
        """Of the same network at the same place."""
        name = "-".join([kind.place, *kind.flags]).replace(":", "-")
        if name not in self._usual:
            place = self._place(kind.place)
            seconds, top_1 = [], []
            for number in range(self._num_undisturbed):
                trial = self._trial(place, f"undisturbed-{name}-{number}", random.Random(0))
                began_s = time.monotonic()
                self._start(trial, kind.flags, {})
                code = trial.job.wait(None)
                if code:
                    raise SystemExit(f"the undisturbed run ended with {code}:\n{trial.job.tail()}")
                seconds.append(time.monotonic() - began_s)
                top_1.append(storage.read_json(trial.run.report)["metrics"]["top_1"])
                trial.job.close()
            self._usual[name] = Usual(max(seconds), min(top_1))
            print(f"undisturbed on {name}: {self._usual[name]}", file=sys.stderr)
        return self._usual[name]

    def trial(self, number: int, name: str) -> dict[str, Any]:
        """One trial's line in the log; `error` is None where all is as it should be."""
        kind = KINDS[name]
        usual = self._usually(kind)
        draw = random.Random(f"{self._seed}/{number}")
        found: dict[str, Any] = {"trial": number, "kind": name, "date": time.strftime("%Y-%m-%d")}
        # Between nothing and all but one of the checkpoints, and then somewhere before the next one.
        found["moment"] = draw.randrange(kind.after, NUM_SAVES - 1)
        trial = self._trial(self._place(kind.place), f"trial-{number:04d}", draw)
        began_s = time.monotonic()
        try:
            with disk(trial) if name == "disk_full" else contextlib.nullcontext():
                error = self._disturbed(trial, kind, usual, found)
        except Exception:  # noqa: BLE001 - it is this trial that failed, whatever of
            error = traceback.format_exc()
        found |= {"seconds": round(time.monotonic() - began_s, 1), "error": error}
        if error is None:
            shutil.rmtree(trial.folder)
        return found

    def _disturbed(self, trial: Trial, kind: Kind, usual: Usual, found: dict[str, Any]) -> str | None:
        kind.prepare(trial)
        try:
            self._start(trial, kind.flags, kind.settings)
            self._wait_for_moment(trial, found["moment"])
            hit_s = time.monotonic()
            found["hit"] = kind.hit(trial)
            try:
                found["code"] = trial.job.wait(deadline_s(usual))
            except subprocess.TimeoutExpired:
                return f"still running {deadline_s(usual):.0f} s after the fault:\n{trial.job.tail()}"
            found["seconds_after"] = round(time.monotonic() - hit_s, 1)
            found["last_line"] = trial.job.tail(1) if found["code"] else ""
            left = trial.job.left()
            for undo in reversed(trial.undo):
                undo()
            trial.undo.clear()
            if found["code"] not in kind.codes:
                return f"ended with {found['code']}, not with {kind.codes}:\n{trial.job.tail()}"
            if kind.again:
                self._start(trial, kind.flags, kind.settings)
                found["code_again"] = trial.job.wait(None)
                if found["code_again"]:
                    return f"the run afterwards ended with {found['code_again']}:\n{trial.job.tail()}"
            return self._fault(trial, kind, usual, found, left)
        finally:
            for undo in reversed(trial.undo):
                with contextlib.suppress(OSError):
                    undo()
            trial.job.close()

    def _wait_for_moment(self, trial: Trial, moment: int) -> None:
        """Until so many checkpoints are there, or for 0 all nodes; and then a part of the time to the next one."""
        seen_s = [time.monotonic()]
        newest = 0
        while not (newest >= moment * self._save_steps if moment else self._has_nodes(trial)):
            if trial.job.poll() is not None:
                raise RuntimeError(f"ended with {trial.job.poll()} before the fault:\n{trial.job.tail()}")
            time.sleep(POLL_S)
            before, newest = newest, self._newest(trial)
            seen_s += [time.monotonic()] if newest > before else []
        time.sleep(trial.draw.uniform(0, seen_s[-1] - seen_s[-2] if len(seen_s) > 2 else 1.0))

    def _newest(self, trial: Trial) -> int:
        paths = checkpoints.candidates(trial.run)
        return checkpoint_step(paths[0].rpartition("/")[2]) or 0 if paths else 0

    def _has_nodes(self, trial: Trial) -> bool:
        return {"worker", "ps", "coordinator"} <= set(map(role_of, trial.job.processes()))

    def _fault(self, trial: Trial, kind: Kind, usual: Usual, found: dict[str, Any], left: Sequence[str]) -> str | None:
        """What is not as it should be, in words."""
        report = storage.read_json(trial.run.report)
        found |= {"attempts": len(report["attempts"]), "step": report["step"], "top_1": report["metrics"]["top_1"]}
        found["goodput"] = report.get("goodput")
        if (report["state"], report["exit_code"], report["step"]) != ("finished", 0, self._steps):
            return f"the report says {report['state']}, exit code {report['exit_code']}, step {report['step']}"
        if found["attempts"] < kind.attempts:
            return f"{found['attempts']} attempts: the fault was not noticed"
        if found["top_1"] < usual.top_1 - BAND:
            return f"top-1 {found['top_1']:.3f}, undisturbed {usual.top_1:.3f}"
        if left or (left := trial.job.left()):
            return f"left behind: {'; '.join(left)}"
        if storage.exists(trial.run.lock):
            return "the lock is left behind"
        newest = checkpoints.latest(trial.run)
        return None if newest and newest.step == self._steps else f"the newest checkpoint is {newest}"


def deadline_s(usual: Usual) -> float:
    """For the end after a fault: silence, patience with HDFS, the backoff, and three runs from their beginning."""
    return 300 + 3 * usual.seconds


@contextlib.contextmanager
def disk(trial: Trial) -> Iterator[None]:
    """A disk of its own for the trial's run."""
    folder = trial.folder / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "none", folder], check=True)
    trial.run = RunLayout(str(folder / "run"))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


NETWORK = """
import keras
import tensorflow as tf

class Switch(keras.layers.Layer):
    def call(self, x):
        # The name depends on the images, else TensorFlow would read the file once and for all.
        path = tf.strings.join([{path!r}, tf.strings.substr(tf.strings.as_string(x[0, 0]), 0, 0)])
        return x * tf.strings.to_number(tf.io.read_file(path))

def build(*, num_classes, image_size, num_channels, keep_prob, seed):
    images = keras.Input((image_size, image_size, num_channels), name="images")
    x = keras.layers.Flatten(name="flat")(images)
    x = keras.layers.Dense(256, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed), name="fc1")(x)
    x = keras.layers.Dense(num_classes, kernel_initializer=keras.initializers.GlorotUniform(seed + 1), name="fc2")(x)
    return keras.Model(images, Switch(name="switch")(x), name="switched")
"""
CLOCK = """
import os, time
_time = time.time

def _jumped():
    try:
        with open({path!r}) as jump:
            return _time() + float(jump.read() or 0)
    except FileNotFoundError:
        return _time()

time.time = _jumped
"""


def possible(names: Sequence[str], hadoop: Path | None) -> list[str]:
    """The kinds that this machine can do; says why it cannot do the others."""
    found = []
    for name in names:
        kind = KINDS[name]
        if kind.place == "yarn" and hadoop is None:
            print(f"left out: {name}: no --hadoop", file=sys.stderr)
        elif kind.needs == "root" and os.geteuid():
            print(f"left out: {name}: not root", file=sys.stderr)
        else:
            found.append(name)
    return found


def main(argv: Sequence[str] | None = None, dataset: Path | None = None) -> int:
    """The campaign; `dataset` has the splits train and test (default: one that is made for it)."""
    parser = argparse.ArgumentParser(description="trainings that fail at random moments, and how they end")
    parser.add_argument("--log", type=Path, required=True, help="a JSON line for each trial; those there are done")
    parser.add_argument("--trials", type=int, help="number of trials in the log (default: 3 of each kind)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="of the trials (default: all)")
    parser.add_argument(
        "--hadoop", type=Path, help="folder for a Hadoop, which is started and ended; must not be there"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims (default: 0)")
    parser.add_argument("--undisturbed", type=int, default=UNDISTURBED, help=f"runs (default: {UNDISTURBED})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each training (default: {STEPS})")
    args = parser.parse_args(argv)
    kinds = possible(args.kinds or list(KINDS), args.hadoop)
    done = [json.loads(text) for text in args.log.read_text().splitlines()] if args.log.exists() else []
    # Kind by kind, so that a Hadoop is started once. A trial's number says what it does, whatever was done before.
    plan = [
        (turn * len(KINDS) + list(KINDS).index(name), name) for name in kinds for turn in range(rounds(args, kinds))
    ]
    todo = [(number, name) for number, name in plan if number not in {found["trial"] for found in done}]
    folder = Path(tempfile.mkdtemp(prefix="tfos_job-faults-"))
    campaign = Campaign(folder, dataset, args) if todo else None
    try:
        for number, name in todo:
            assert campaign is not None
            found = campaign.trial(number, name)
            done.append(found)
            with args.log.open("a") as log:
                print(json.dumps(found), file=log)
            print(json.dumps(found), file=sys.stderr)
    finally:
        if campaign is not None:
            campaign.close()
        if not any(found["error"] for found in done):
            shutil.rmtree(folder, ignore_errors=True)
    failed = [found["trial"] for found in done if found["error"]]
    print(json.dumps({"trials": len(done), "failed": failed, "folder": str(folder) if failed else None}))
    return 1 if failed else 0


def rounds(args: argparse.Namespace, kinds: Sequence[str]) -> int:
    return 3 if args.trials is None else -(-args.trials // max(1, len(kinds)))


if __name__ == "__main__":
    # As Ctrl-C: what was started so far is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
