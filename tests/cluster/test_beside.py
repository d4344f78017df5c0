"""Parameter servers beside the driver: they train, and they end as those in executors do."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.command import ENDLESS, SMALL, StartCommand, wait_until_gone
from tests.cluster.test_faults import LIMIT_S, report

pytestmark = pytest.mark.cluster

BESIDE = ("--ps_place", "driver", "--master", "local-cluster[1,1,1024]")


def is_below_the_driver(process: psutil.Process, job_pid: int) -> bool:
    """Whether no JVM is between the driver and the process."""
    parents = process.parents()
    below = parents[: [parent.pid for parent in parents].index(job_pid)]
    return all("python" in parent.name() for parent in below)


def test_one_executor_is_enough_for_both(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, *BESIDE,
        "--max_number_of_steps", "20", "--validation_split_name", "test", "--port_range", "41000-41099",
    )  # fmt: skip
    job.wait_for_line("step ")
    server = job.find("ps")
    assert is_below_the_driver(server, job.pid)
    assert not is_below_the_driver(job.find("worker"), job.pid)
    assert server.environ()["CUDA_VISIBLE_DEVICES"] == ""
    ours = {role: listening_ports(job.find(role)) for role in ("ps", "worker", "coordinator")}
    assert job.wait() == 0, job.stderr
    assert report(tmp_path)["metrics"]["num_examples"] == 20
    assert all(ports and all(41000 <= port <= 41099 for port in ports) for ports in ours.values()), ours


def listening_ports(process: psutil.Process) -> list[int]:
    return [c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize(
    ("role", "cause"),
    [("ps", "its TensorFlow process"), ("ps supervisor", "its supervisor was killed by SIGKILL")],
)
def test_a_killed_server_ends_the_job_with_its_name(
    start: StartCommand, small_dataset: Path, tmp_path: Path, role: str, cause: str
) -> None:
    job = start("train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, *ENDLESS, *BESIDE)
    job.wait_for_line("step ")
    processes = job.descendants()
    began = time.monotonic()
    job.find(role).kill()
    assert job.wait() == 71, job.stderr
    assert time.monotonic() - began < LIMIT_S
    last_line = job.stderr.splitlines()[-1]
    assert "ps:0 on host 127.0.0.1" in last_line
    assert cause in last_line
    assert "spark.driver.memoryOverhead" in last_line
    assert not wait_until_gone(processes, 5)


def test_without_a_driver_the_server_ends_itself(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    job = start("train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, *ENDLESS, *BESIDE)
    job.wait_for_line("step ")
    processes = job.descendants()
    folders = [Path(job.find(role).cwd()).parent for role in ("ps", "worker")]
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    assert not wait_until_gone(processes, LIMIT_S)
    assert not [folder for folder in folders if folder.exists()]


def test_ctrl_c_leaves_a_checkpoint_and_nothing_else(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    job = start("train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, *ENDLESS, *BESIDE)
    job.wait_for_line("step ")
    processes = job.descendants()
    job.send_signal(signal.SIGINT)
    assert job.wait() == 130, job.stderr
    assert not wait_until_gone(processes, 1)
    state = json.loads((tmp_path / "report.json").read_text())
    assert state["state"] == "interrupted"
    assert state["checkpoint"]
