"""Whole commands as a user starts them, and a way to find and hurt their processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

# 16 × 16 pixels: a step takes milliseconds, and what is tested is everything around it.
SMALL = ("--image_size", "16", "--batch_size", "32")


class Command:
    """A running `tfos-job` command."""

    def __init__(self, *args: str) -> None:
        self._process = psutil.Popen(
            [sys.executable, "-m", "tfos_job", *args],
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

    def wait_for_line(self, text: str, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.stderr:
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.stderr}"
            assert time.monotonic() < deadline, f"no {text!r} in {timeout_s} s:\n{self.stderr}"
            time.sleep(0.1)

    def wait(self, timeout_s: float = 180) -> int:
        code = self._process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)
        self._process.stdout.close()
        self._process.stderr.close()
        return int(code)

    def result(self) -> Any:
        """The JSON object of stdout's last line."""
        return json.loads(self.stdout.splitlines()[-1])

    def descendants(self) -> list[psutil.Process]:
        return self._process.children(recursive=True)

    def find(self, role: str) -> psutil.Process:
        """`ps` and `worker` are the TensorFlow processes of nodes, `… supervisor` their parents."""
        name, _, supervisor = role.partition(" ")
        for process in self.descendants():
            with contextlib.suppress(psutil.Error):
                if _role(process) == name:
                    return process.parent() if supervisor else process
        raise AssertionError(f"no process is {role}: {[p.cmdline() for p in self.descendants()]}")

    def send_signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self.wait(30)


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if "tfos_job.cluster.node_process" in command:
        return Path(process.cwd()).name.split("-")[0]  # <role>-<index>-…
    if "tfos_job.cluster.coordinator" in command:
        return "coordinator"
    return "executor" if "CoarseGrainedExecutorBackend" in command else ""


StartCommand = Callable[..., Command]


def run(*args: object, timeout_s: float = 180, code: int = 0) -> Command:
    """Runs a command to its end, which must be this one."""
    command = Command(*map(str, args))
    try:
        found = command.wait(timeout_s)
    finally:
        command.end()
    assert found == code, command.stderr
    return command
