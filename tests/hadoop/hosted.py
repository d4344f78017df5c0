"""A Hadoop on hosts that can be cut off, and where a training's processes are on them; for tests and campaigns."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from scripts.hadoop.network import Network, require_rights
from scripts.hadoop.problem import HadoopError
from tests.command import SMALL, Submission, role_of
from tests.hadoop.conftest import Hadoop
from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.layout import RunLayout, checkpoint_step

NUM_HOSTS = 3
_EXECUTOR_MB = 1792
_DRIVER_MB = 512


def obstacle() -> str:
    """Why there can be no hosts here, in words; empty where there can."""
    try:
        require_rights(NUM_HOSTS)
    except HadoopError as error:
        return str(error)
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--uts", "ip", "link", "add", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 else f"network namespaces or bridges may not be made: {tried.stderr.strip()}"


class HostedHadoop(Hadoop):
    """NodeManager and DataNode on each of three hosts; the two others, and a driver in client mode, are on none."""

    num_hosts = NUM_HOSTS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hidden = []  # containers take this host's Python by its path: nothing is packed, sent and unpacked

    @staticmethod
    def network_of(folder: Path) -> Network:
        """For the names of its links and namespaces; it need not be there."""
        return Network(folder, "", NUM_HOSTS)

    def daemons(self) -> list[str]:
        """The daemons that were started."""
        return list(self.state["daemons"]) if (self.folder / "hadoop.json").is_file() else []

    @property
    def hosts(self) -> list[str]:
        return [f"{self.state['subnet']}.{10 + number}" for number in range(1, NUM_HOSTS + 1)]

    def processes_on(self, host: str) -> list[psutil.Process]:
        """The processes whose network is a host's, but for its daemons."""
        daemons = {self.pid(f"{kind}{self.hosts.index(host) + 1}") for kind in ("nodemanager", "datanode")}
        daemon = psutil.Process(max(daemons))
        network = os.readlink(f"/proc/{daemon.pid}/ns/net")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/net") == network and process.pid not in daemons:
                    found.append(process)
        return found

    def places(self) -> dict[str, str]:
        """The host of each role that a process has somewhere now: driver, coordinator, ps, worker, executor."""
        return {role: host for host in self.hosts for process in self.processes_on(host) for role in _roles(process)}

    def cut(self, host: str) -> None:
        self.run("cut", host)

    def heal(self, host: str) -> None:
        self.run("heal", host)

    def rate(self, host: str, rate: str) -> None:
        self.run("rate", host, rate)

    def find(self, role: str) -> psutil.Process:
        """The process of a role, wherever it is."""
        for host in self.hosts:
            for process in self.processes_on(host):
                if role in _roles(process):
                    return process
        raise AssertionError(f"no process is {role}: {self.places()}")

    def reset(self, process: psutil.Process) -> str:
        """Resets one TCP connection that a process has to another host; says which."""
        enter = ["nsenter", f"--net=/proc/{process.pid}/ns/net", "ss", "-H", "-t", "-n"]
        listed = subprocess.run([*enter, "-p", "state", "established"], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            _, _, here, there, *users = line.split()
            (source, port), (target, target_port) = here.rsplit(":", 1), there.rsplit(":", 1)
            if source != target and f"pid={process.pid}," in " ".join(users):
                one = ["src", source, "sport", "=", port, "dst", target, "dport", "=", target_port]
                subprocess.run([*enter, "-K", *one], capture_output=True, text=True, check=True)
                return f"{here} - {there}"
        raise AssertionError(f"{process.cmdline()} has no connection to another host: {listed.stdout}")

    @property
    def node_memory_mb(self) -> int:
        nodes = self.rest("/ws/v1/cluster/nodes")["nodes"]["node"]
        return min(node["availMemoryMB"] + node["usedMemoryMB"] for node in nodes)


def _roles(process: psutil.Process) -> Iterator[str]:
    with contextlib.suppress(psutil.Error):
        if role := role_of(process):
            yield role
        elif "org.apache.spark.deploy.yarn.ApplicationMaster" in process.cmdline():
            yield "driver"


# --- a training on them ----------------------------------------------------------------------------------------------

NUM_STEPS, SAVE_STEPS = 80, 10
PACE = "100mbit"
"""The network has 1.4 million parameters: 5.7 MB each way and step, which this cable holds up for half a second."""


class HostedTraining:
    """`submit train` with a worker and a parameter server, whose driver has a host for itself.

    The cables are slow while it trains, so that a cut comes in the middle on every machine.
    """

    def __init__(self, hadoop: HostedHadoop, dataset: str, run: str, *settings: object) -> None:
        self.hadoop = hadoop
        self.run = run
        overhead_mb = hadoop.node_memory_mb - _EXECUTOR_MB - _DRIVER_MB + 1  # no executor finds room beside the driver
        self.command = Submission(
            *("train", "--environment", "none", "--dataset_dir", dataset, "--train_dir", run, *SMALL),
            *("--num_executors", 2, "--num_ps_tasks", 1, "--max_number_of_steps", NUM_STEPS),
            *("--save_steps", SAVE_STEPS, *settings, "--"),
            *("--driver-memory", f"{_DRIVER_MB}m", "--conf", f"spark.driver.memoryOverhead={overhead_mb}m"),
            *("--executor-memory", "512m", "--conf", f"spark.executor.memoryOverhead={_EXECUTOR_MB - 512}m"),
            *("--conf", "spark.yarn.maxAppAttempts=1"),
        )

    def report(self) -> dict[str, Any]:
        path = RunLayout(self.run).report
        with contextlib.suppress(JobError):
            return storage.read_json(path)
        return {}

    def wait_for_checkpoint(self) -> int:
        """Until it trains and has a checkpoint, at the pace of slow cables; returns the checkpoint's step."""
        self.command.wait_for_line("step 0 of")
        for host in self.hadoop.hosts:
            self.hadoop.rate(host, PACE)
        self.command.wait_for_line(f"checkpoint {self.run}/checkpoints/step-")
        return self.report()["step"]

    def wait_for_next_step(self, num_attempts: int) -> float:
        """Until an attempt after `num_attempts` has done a step; returns seconds."""
        began_s = time.monotonic()

        def has_trained() -> bool:
            report = self.report()
            attempts = report.get("attempts", [])
            return len(attempts) > num_attempts and report["step"] > attempts[-1]["start_step"]

        self.command.wait_until(has_trained)
        return time.monotonic() - began_s

    def fault(self) -> str:
        """What is not as it should be after its end, in words."""
        if (code := self.command.wait()) != 0:
            return f"ended with {code}: {self.command.stderr[-3000:]}"
        steps = [checkpoint_step(entry.name) for entry in storage.list_dir(RunLayout(self.run).checkpoints_dir)]
        report = self.report()
        last = report["attempts"][-1]
        read, counted = sum(report["records_read"]), (NUM_STEPS - last["start_step"]) * report["batch_size"]
        if (report["step"], max(filter(None, steps))) != (NUM_STEPS, NUM_STEPS):
            return f"ended at step {report['step']} of {NUM_STEPS}, checkpoints {steps}"
        if read != counted:
            return f"{read} records were read for the {counted} of the last attempt"
        return ""
