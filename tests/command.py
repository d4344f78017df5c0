"""Whole commands as a user starts them, and a way to find and hurt their processes."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.layout import RunLayout

ROOT = Path(__file__).resolve().parents[1]
# 16 × 16 pixels: a step takes milliseconds, and what is tested is everything around it.
SMALL = ("--image_size", "16", "--batch_size", "32")
ENDLESS = ("--max_number_of_steps", "1000000", "--save_steps", "1000000")

# What the tests have started and trained so far; tests/account.py tells of it at the end of a run.
tally: Counter[str] = Counter()


class Command:
    """A running `tfos-job` command.

    No wait has a limit in seconds of its own: a slow machine is no failure. Most end with the command; what must happen
    soon is given `patience_s`, a multiple of what this same command has taken to get to work; and pytest's timeout is
    behind all of them.
    """

    program: tuple[str, ...] = (sys.executable, "-m", "tfos_job")

    def __init__(self, *args: object) -> None:
        words = [str(word) for word in args]
        tally["starts"] += 1
        self._train_dir = words[words.index("--train_dir") + 1] if words[:1] == ["train"] else None
        self._attempts_before = len(self._report().get("attempts", []))
        self._began_s = time.monotonic()
        self._at_work_s: float | None = None
        self._process = psutil.Popen(
            [*self.program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.stderr = ""
        self.stdout = ""
        self._readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("stdout", "stderr")
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self._process, name):
            setattr(self, name, getattr(self, name) + line)

    def _report(self) -> dict[str, Any]:
        """Of the run that this command trains; empty where there is none."""
        if self._train_dir is None:
            return {}
        with contextlib.suppress(JobError):
            return storage.read_json(RunLayout(self._train_dir).report)
        return {}

    def wait_until(self, true: Callable[[], Any]) -> Any:
        """What `true` returns once that is true; fails where the command ends before."""
        while not (value := true()):
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.stderr}"
            time.sleep(0.1)
        return value

    def wait_for_line(self, text: str) -> None:
        self.wait_until(lambda: text in self.stderr)

    def wait_for_step(self) -> None:
        """Until training has told of its first step."""
        self.wait_for_line(": loss ")
        self._at_work_s = time.monotonic() - self._began_s

    @property
    def patience_s(self) -> float:
        """For what must happen soon: three times what came before the first step, all of it computing like the rest."""
        assert self._at_work_s is not None
        return 3 * self._at_work_s

    def wait(self, timeout_s: float | None = None) -> int:
        code = self._process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)
        self._process.stdout.close()
        self._process.stderr.close()
        report = self._report()
        attempts = report.get("attempts", [])
        if len(attempts) > self._attempts_before:
            tally["trainings"] += 1
            tally["images"] += (
                (report["step"] - attempts[-1]["start_step"]) * report["batch_size"] * report["push_every"]
            )
        self._train_dir = None  # counted
        return int(code)

    def result(self) -> Any:
        """The JSON value of stdout's last line."""
        return json.loads(self.stdout.splitlines()[-1])

    def descendants(self) -> list[psutil.Process]:
        return self._process.children(recursive=True)

    def find(self, role: str) -> psutil.Process:
        """`ps` and `worker` are the TensorFlow processes of nodes, `… supervisor` their parents."""
        name, _, supervisor = role.partition(" ")
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):
                if role_of(process) == name:
                    return process.parent() if supervisor else process
        raise AssertionError(f"no process is {role}: {[p.cmdline() for p in self.descendants()]}")

    def send_signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    def end(self) -> None:
        """Ends what a failed test leaves."""
        if self._process.poll() is None:
            self._process.kill()
            self.wait()


class Submission(Command):
    """A running `tfos-job submit`."""

    program = (*Command.program, "submit")
    _END_S = 60

    @property
    def application(self) -> str:
        return application_in(self.stderr)

    def end(self) -> None:
        """With SIGTERM, which ends its application as well."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(psutil.TimeoutExpired):
                self._process.wait(self._END_S)
        super().end()


_Kind = TypeVar("_Kind", bound=Command)


def application_in(text: str) -> str:
    """The first application of YARN that a text names; empty if there is none."""
    found = re.search(r"application_\d+_\d+", text)
    return found[0] if found else ""


def role_of(process: psutil.Process) -> str:
    """`worker`, `ps` (their TensorFlow processes), `coordinator`, `executor`, `driver` (on YARN, its JVM) or empty."""
    words = process.cmdline()
    if "org.apache.spark.deploy.yarn.ApplicationMaster" in words:
        return "driver"  # the JVM, which starts Python
    command = " ".join(words)
    if "tfos_job.training.server_process" in command:
        return Path(process.cwd()).name.split("-")[0]  # <role>-<index>-…
    if "tfos_job.training.coordinator" in command:
        return "coordinator"
    return "executor" if "CoarseGrainedExecutorBackend" in command else ""


StartCommand = Callable[..., Command]
Submit = Callable[..., Submission]


@contextlib.contextmanager
def starting(kind: type[_Kind]) -> Iterator[Callable[..., _Kind]]:
    """What starts commands of a kind; those that are left at the end of the `with` are ended."""
    commands: list[_Kind] = []

    def start(*args: object) -> _Kind:
        commands.append(kind(*args))
        return commands[-1]

    try:
        yield start
    finally:
        for command in commands:
            command.end()


def example(
    name: str, *words: object, folder: Path, num_images: int = 0, num_trainings: int = 1, by: tuple[object, ...] = ()
) -> list[str]:
    """The lines that a program of examples/ prints, run in a folder, by Python or by a program of Python's.

    Args:
      name: of the program.
      words: its arguments.
      folder: the working directory.
      num_images: that it trains on; 0 if it does not train.
      num_trainings: how often it trains then.
      by: the program that runs it.
    """
    tally["starts"] += 1
    tally["trainings"] += num_trainings if num_images else 0
    tally["images"] += num_images
    command = [sys.executable, *by, ROOT / "examples" / name, *words]
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run(*args: object, code: int = 0) -> Command:
    """Runs a command to its end, which must be this one."""
    command = Command(*args)
    try:
        found = command.wait()
    finally:
        command.end()
    assert found == code, command.stderr
    return command


def wait_until_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that are left. A zombie is gone: what keeps its number is the parent that has not asked for its code."""
    deadline_s = time.monotonic() + timeout_s
    while left := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline_s:
            return left
        time.sleep(0.1)
    return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False
