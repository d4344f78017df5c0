"""Real processes killed and stopped at work: the job always ends, soon, says why, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.command import SMALL, StartCommand
from tfos_job.layout import RunLayout
from tfos_job.model import checkpoints

pytestmark = pytest.mark.cluster

ENDLESS = ("--max_number_of_steps", "1000000", "--save_steps", "1000000")
LIMIT_S = 15.0


def report(train_dir: Path) -> dict[str, object]:
    return json.loads((train_dir / "report.json").read_text())


def wait_until_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that are left. A zombie is gone: what keeps its number is the parent that has not asked for its code."""
    deadline = time.monotonic() + timeout_s
    while left := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.1)
    return []


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("role", "named", "cause"),
    [
        ("ps", "ps:0 on host 127.0.0.1", "was killed by SIGKILL"),
        ("worker", "worker:0 on host 127.0.0.1", "was killed by SIGKILL"),
        ("coordinator", "chief:0 on host", "was killed by SIGKILL"),
        ("ps supervisor", "ps:0 on host 127.0.0.1", "the line to it is gone"),
        ("worker supervisor", "worker:0 on host 127.0.0.1", "the line to it is gone"),
    ],
)
def test_a_killed_process_ends_the_job_with_its_name(
    start: StartCommand, small_dataset: Path, tmp_path: Path, role: str, named: str, cause: str
) -> None:
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, *ENDLESS, "--master", "local[2]"
    )
    job.wait_for_line("step ")
    processes = job.descendants()
    began = time.monotonic()
    job.find(role).kill()
    assert job.wait() == 71, job.stderr
    assert time.monotonic() - began < LIMIT_S
    last_line = job.stderr.splitlines()[-1]
    assert named in last_line
    assert cause in last_line
    assert (report(tmp_path)["state"], report(tmp_path)["exit_code"]) == ("failed", 71)
    assert not wait_until_gone(processes, 5)


def test_a_killed_executor_ends_the_job(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    master = "local-cluster[2,1,1024]"
    job = start("train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, *ENDLESS, "--master", master)
    job.wait_for_line("step ")
    processes = job.descendants()
    began = time.monotonic()
    job.find("executor").kill()
    assert job.wait() == 71, job.stderr
    assert time.monotonic() - began < LIMIT_S
    assert "on host 127.0.0.1: the line to it is gone" in job.stderr.splitlines()[-1]
    assert not wait_until_gone(processes, 5)


def test_without_a_driver_the_nodes_end_themselves(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    options = ("--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--master", "local[2]")
    job = start("train", *options, *ENDLESS)
    job.wait_for_line("step ")
    processes = job.descendants()
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    assert not wait_until_gone(processes, LIMIT_S)
    assert report(tmp_path)["state"] == "running"
    # The lock of a dead process does not stop the next one.
    again = start("train", *options, "--max_number_of_steps", "5")
    assert again.wait() == 0, again.stderr
    assert report(tmp_path)["state"] == "finished"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    start: StartCommand, small_dataset: Path, tmp_path: Path, signum: int, code: int
) -> None:
    options = ("--dataset_dir", small_dataset, *SMALL, "--keep_prob", "1", "--master", "local[2]")
    job = start("train", *options, "--train_dir", tmp_path / "stopped", *ENDLESS)
    job.wait_for_line("step ")
    processes = job.descendants()
    began = time.monotonic()
    job.send_signal(signum)
    assert job.wait() == code, job.stderr
    assert time.monotonic() - began < 10
    assert not wait_until_gone(processes, 1)
    assert report(tmp_path / "stopped")["state"] == "interrupted"

    stopped = checkpoints.latest(RunLayout(str(tmp_path / "stopped")))
    assert stopped is not None
    # Asked for no more than there is, the run is finished, and says so, without a cluster.
    enough = start("train", *options, "--train_dir", tmp_path / "stopped", "--max_number_of_steps", stopped.step)
    assert enough.wait() == 0, enough.stderr
    assert report(tmp_path / "stopped")["state"] == enough.result()["state"] == "finished"

    total = ("--max_number_of_steps", stopped.step + 7)
    for train_dir in ("stopped", "unbroken"):
        rest = start("train", *options, "--train_dir", tmp_path / train_dir, *total)
        assert rest.wait() == 0, rest.stderr
    runs = [checkpoints.latest(RunLayout(str(tmp_path / name))) for name in ("stopped", "unbroken")]
    resumed, unbroken = (checkpoints.load(info) for info in runs if info is not None)
    assert resumed.keys() == unbroken.keys()
    for name, array in unbroken.items():
        np.testing.assert_allclose(resumed[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_a_damaged_shard_is_named(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(small_dataset, dataset)
    shard = sorted(dataset.glob("train/gen-*/part-*.tfrecord"))[3]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    job = start("train", "--dataset_dir", dataset, "--train_dir", tmp_path / "run", *SMALL, *ENDLESS)
    assert job.wait() == 65, job.stderr
    assert str(shard) in job.stderr.splitlines()[-1]


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has the GPU that the worker is to miss")
def test_a_worker_without_its_gpu(start: StartCommand, small_dataset: Path, tmp_path: Path) -> None:
    options = ("--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--master", "local[2]")
    options = (*options, "--num_gpus", "1", "--max_number_of_steps", "2")
    job = start("train", *options)
    assert job.wait() == 69, job.stderr
    assert "worker:0 on host 127.0.0.1: TensorFlow sees 0 of the 1 GPUs" in job.stderr.splitlines()[-1]
    job = start("train", *options, "--allow_cpu")
    assert job.wait() == 0, job.stderr
    assert "it computes on the CPU" in job.stderr
