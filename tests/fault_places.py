"""Where trainings of tests/campaigns/faults.py run: on local Spark, on separate executors, on YARN."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import psutil

from tests.command import application_in, is_alive, tally, wait_until_gone
from tests.command import role_of as role_of_ours
from tests.hadoop.conftest import ENDED, Hadoop, client_mode, upload

ROOT = Path(__file__).resolve().parents[1]
MARK = "TFOS_JOB_TEST_CAMPAIGN"
"""A variable that all processes of a trial inherit."""
GONE_S = 30.0
NETWORK = ("--image_size", "16", "--batch_size", "32", "--keep_prob", "1")
MASTERS = {"local": "local[2]", "executors": "local-cluster[2,1,1024]"}
# As on clusters whose queues lend each other what they do not use.
PREEMPTION = {
    "yarn.resourcemanager.scheduler.monitor.enable": "true",
    "yarn.resourcemanager.monitor.capacity.preemption.monitoring_interval": "500",
    "yarn.resourcemanager.monitor.capacity.preemption.max_wait_before_kill": "1000",
    "yarn.resourcemanager.monitor.capacity.preemption.total_preemption_per_round": "1.0",
    "yarn.resourcemanager.monitor.capacity.preemption.natural_termination_factor": "1.0",
}


def environment_of(process: psutil.Process) -> dict[str, str]:
    with contextlib.suppress(psutil.Error):
        found: dict[str, str] = process.environ()
        return found
    return {}


def role_of(process: psutil.Process) -> str:
    """`worker`, `ps`, `coordinator`, `supervisor` (of a node), `executor`, `jvm`, `driver`; or nothing."""
    with contextlib.suppress(psutil.Error):
        if role := role_of_ours(process):
            return role
        line = " ".join(process.cmdline())
        if "org.apache.spark.deploy.SparkSubmit" in line and process.name() == "java":
            return "jvm"
        if any(role_of_ours(child) in ("worker", "ps") for child in process.children()):
            return "supervisor"
        if "-m tfos_job train" in line:
            return "driver"
    return ""


def convert_data(folder: Path) -> Path:
    """A dataset of 10 classes, 300 records to train on and 300 others; made by the commands."""
    dataset = folder / "dataset"
    for split, first in (("train", 1), ("test", 31)):
        gnt = folder / f"gnt-{split}"
        words = ["synth", "--gnt_dir", str(gnt), "--charset_size", "10", "--num_writers", "30"]
        subprocess.run([*COMMAND, *words, "--first_writer", str(first)], check=True, capture_output=True)
        words = ["convert", "--gnt_dir", str(gnt), "--dataset_dir", str(dataset), "--dataset_split_name", split]
        words += ["--charset_size", "10"] if split == "train" else []
        subprocess.run([*COMMAND, *words, "--master", "local[2]"], check=True, capture_output=True)
    return dataset


COMMAND = (sys.executable, "-m", "tfos_job")


class Job:
    """A command, and the processes that belong to it."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._mark = uuid.uuid4().hex
        tally["starts"] += 1
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*COMMAND, *words],
                env={**environment, MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout_s: float | None) -> int:
        """Raises TimeoutExpired."""
        return self._process.wait(timeout_s)

    def tail(self, num_lines: int = 25) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-num_lines:])

    def processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if environment_of(process).get(MARK) == self._mark]

    def left(self) -> list[str]:
        """What is still there, some time after the end."""
        left = wait_until_gone(self.processes(), GONE_S)
        return [f"process {process.pid}: {' '.join(process.cmdline())[:200]}" for process in left if is_alive(process)]

    def close(self) -> None:
        """Ends what is left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class Submission(Job):
    """A command that YARN runs: its processes are those of the application's containers."""

    def __init__(self, hadoop: Hadoop, words: Sequence[str], environment: dict[str, str], log: Path) -> None:
        super().__init__(words, environment, log)
        self._hadoop = hadoop

    @property
    def application(self) -> str:
        return application_in(self._log.read_text(errors="replace"))

    def processes(self) -> list[psutil.Process]:
        number = self.application.replace("application_", "")
        if not number:
            return []
        of = [(process, environment_of(process).get("CONTAINER_ID", "")) for process in psutil.process_iter()]
        return [process for process, container in of if number in container]

    def left(self) -> list[str]:
        left = super().left()
        state = self._hadoop.application(self.application)["state"]
        return [*left, *([] if state in ENDED else [f"{self.application} is {state}"])]

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
        super().close()


class FaultyHadoop(Hadoop):
    """One whose queues take back what is theirs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.hidden = []  # what claims a queue uses the Python of this host

    def up(self) -> None:
        is_new = not self.folder.exists()
        super().up()
        if is_new:
            self._allow_preemption()

    def _allow_preemption(self) -> None:
        """The ResourceManager reads this at its start."""
        path = self.conf_dir / "yarn-site.xml"
        form = " <property><name>{}</name><value>{}</value></property>".format
        lines = [form(escape(name), escape(value)) for name, value in PREEMPTION.items()]
        path.write_text(path.read_text("utf-8").replace("</configuration>", "\n".join([*lines, "</configuration>"])))
        self.kill("resourcemanager")
        super().up()

    def hog(self, queue: str, signal_file: Path, seconds: float) -> subprocess.Popen[bytes]:
        """An application that takes nearly all that is this queue's own, for some time, once `signal_file` is there.

        It is at work when this returns, so that its claim needs no start of Spark.
        """
        memory_mb = self.rest("/ws/v1/cluster/metrics")["clusterMetrics"]["totalMB"] // 2 - 2048
        program = (
            "import pathlib, time; from pyspark import SparkContext; sc = SparkContext()\n"
            f"while not pathlib.Path({str(signal_file)!r}).exists(): time.sleep(0.1)\n"
            f"sc.parallelize([0], 1).foreach(lambda _: __import__('time').sleep({seconds}))"
        )
        settings = {
            "spark.master": "yarn",
            "spark.yarn.queue": queue,
            "spark.executor.memory": f"{memory_mb * 9 // 10}m",
            "spark.dynamicAllocation.enabled": "true",  # no executor before there is a task
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",
            "spark.dynamicAllocation.maxExecutors": "1",
        }
        before = self.containers_of(queue)
        hog = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **client_mode(settings)},
            stderr=subprocess.DEVNULL,
        )
        while self.containers_of(queue) <= before and hog.poll() is None:  # its master
            time.sleep(0.5)
        return hog

    def containers_of(self, queue: str) -> int:
        apps = (self.rest("/ws/v1/cluster/apps?states=RUNNING")["apps"] or {}).get("app", [])
        return sum(app["runningContainers"] for app in apps if app["queue"].endswith(queue))


class Place:
    """Where trainings run.

    Args:
      dataset: that they train on, on a file system that all of it reads.
      master: Spark's; None for YARN, through `submit`.
      hadoop: the daemons, for YARN.
    """

    def __init__(self, dataset: str, master: str | None, hadoop: FaultyHadoop | None = None) -> None:
        self._dataset = dataset
        self._master = master
        self._hadoop = hadoop

    @classmethod
    def named(cls, name: str, dataset: Path, hadoop_folder: Path | None) -> Place:
        if name in MASTERS:
            return cls(str(dataset), MASTERS[name])
        assert hadoop_folder is not None
        hadoop = FaultyHadoop(hadoop_folder)
        hadoop.up()
        os.environ["HADOOP_CONF_DIR"] = str(hadoop.conf_dir)
        return cls(upload(dataset, f"{hadoop.url}/faults/dataset"), None, hadoop)

    @property
    def hadoop(self) -> FaultyHadoop:
        assert self._hadoop is not None
        return self._hadoop

    def train_dir(self, folder: Path) -> str:
        """Of a trial whose folder on this machine is given."""
        return str(folder / "run") if self._hadoop is None else f"{self._hadoop.url}/faults/{folder.name}"

    def start(self, flags: Sequence[str], settings: Mapping[str, str], folder: Path) -> Job:
        """Starts a training; on local Spark its processes can import modules in `folder`."""
        words = ["train", "--dataset_dir", self._dataset, *NETWORK, *flags]
        if self._hadoop is not None:
            confs = [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
            return Submission(self._hadoop, ["submit", *words, "--", *confs], dict(os.environ), folder / "log")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
        return Job([*words, "--master", str(self._master)], environment, folder / "log")

    def close(self) -> None:
        if self._hadoop is not None:
            os.environ.pop("HADOOP_CONF_DIR", None)
            self._hadoop.run("down")
