"""A training on three hosts of YARN that is attacked from a host that is not of the job, and from those that are."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import leaks
from tests.attacked import ROOT, Found
from tests.attacker import Attacker, Outcome, orders, outcomes_in
from tests.command import SMALL, Submission
from tests.hadoop.hosted import HostedHadoop
from tests.listeners import HELD, TENSORFLOW, Listener, kind_of, listeners
from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.layout import RunLayout

NUM_STEPS = 200
PACE = "20mbit"
"""A step takes a second."""
_EXECUTOR_MB = 1792
_DRIVER_MB, _DRIVER_OVERHEAD_MB = 512, 2048
LOOPBACK = "127.0.0.1"


class HostedAttack:
    """`submit train` with a worker and a parameter server. Its cables are slow until the attack is over.

    Args:
      hadoop: its gateway, on which nothing of the job runs, is where strangers are.
      dataset: its URL.
      run: the URL of the run's folder.
      folder: of files that attacks try to make.
    """

    def __init__(self, hadoop: HostedHadoop, dataset: str, run: str, folder: Path) -> None:
        self._hadoop = hadoop
        self._run = run
        self._folder = folder
        self.marker = folder / "marker"
        self.command = Submission(
            *("train", "--environment", "none", "--dataset_dir", dataset, "--train_dir", run, *SMALL),
            *("--num_executors", 2, "--num_ps_tasks", 1, "--max_number_of_steps", NUM_STEPS, "--max_restarts", 0, "--"),
            *("--driver-memory", f"{_DRIVER_MB}m", "--conf", f"spark.driver.memoryOverhead={_DRIVER_OVERHEAD_MB}m"),
            *("--executor-memory", "512m", "--conf", f"spark.executor.memoryOverhead={_EXECUTOR_MB - 512}m"),
            *("--conf", "spark.yarn.maxAppAttempts=1"),
        )

    def _step(self) -> int:
        with contextlib.suppress(JobError):
            return int(self._report().get("step", 0))
        return 0

    def _report(self) -> dict[str, Any]:
        return storage.read_json(RunLayout(self._run).report)

    def run(self) -> Found:
        found = Found()
        self.command.wait_for_line("step 0 of")
        for host in self._hadoop.hosts:
            self._hadoop.rate(host, PACE)
        begun = self.command.wait_until(self._step)
        on = {host: self._hadoop.processes_on(host) for host in self._hadoop.hosts}
        pids = {process.pid: host for host, processes in on.items() for process in processes}
        everyone = [process for processes in on.values() for process in processes if kind_of(process)]
        found.listeners = listeners(everyone, with_unix=False)
        found.leaks = set(leaks.in_processes(found.secrets, everyone))
        for host in self._hadoop.hosts:
            self._attack(found, host, [each for each in found.listeners if pids.get(each.pid) == host])
        self.command.wait_until(lambda: self._step() > begun)
        found.steps = begun, self._step()
        for host in self._hadoop.hosts:
            self._hadoop.rate(host, "off")
        found.exit_code = self.command.wait()
        found.said = self.command.stderr
        return found

    def _attack(self, found: Found, host: str, targets: Sequence[Listener]) -> None:
        """All ports of a host: from elsewhere, from another host of the job, and from itself where none else can."""
        other = self._hadoop.hosts[self._hadoop.hosts.index(host) - 1]
        attacker = Attacker(self.marker, host=host)
        far = [each for each in targets if each.kind.startswith("tcp") and not each.is_loopback]
        near = [each for each in targets if each.kind.startswith("tcp") and each.is_loopback]
        attacks = (
            ("", self._hadoop.here, far),
            (other, other, [each for each in far if each.port_name not in (TENSORFLOW, HELD)]),
            (host, LOOPBACK, near),
        )
        servers = [each for each in far if each.port_name == TENSORFLOW]
        with ThreadPoolExecutor() as threads:
            outcomes = threads.map(lambda attack: self._outcomes(attacker, *attack), attacks)
            asked = threads.map(lambda server: self._intrude(host, other, server), servers)
            found.outcomes += [each for some in outcomes for each in some]
            found.intrusions += [each for some in asked for each in some]

    def _outcomes(self, attacker: Attacker, place: str, source: str, targets: Sequence[Listener]) -> list[Outcome]:
        program = [*self._on(place), sys.executable, str(ROOT / "tests" / "attacker.py")]
        text = orders(attacker, [(source, each) for each in targets])
        done = subprocess.run(program, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return outcomes_in(done.stdout)

    def _intrude(self, host: str, other: str, server: Listener) -> list[tuple[str, str, str]]:
        """By TensorFlow itself, from elsewhere, and from a host of the job, where it succeeds: so it is an attack."""
        control = self._folder / f"control-{host}-{server.port}"
        found = []
        for place, source, path in (("", self._hadoop.here, self.marker), (other, other, control)):
            words = [sys.executable, "-m", "tests.intruder", f"{host}:{server.port}={path}"]
            done = subprocess.run([*self._on(place), *words], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            answer = json.loads(done.stdout)[1]
            found.append((source, server.process, answer if path.exists() else f"no file: {answer}"))
        return found

    def _on(self, host: str) -> list[str]:
        """What a command begins with that is run on one of the hosts."""
        if not host:
            return []
        number = self._hadoop.hosts.index(host) + 1
        return ["nsenter", f"--net=/proc/{self._hadoop.pid(f'nodemanager{number}')}/ns/net"]
