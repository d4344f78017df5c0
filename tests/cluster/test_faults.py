"""Real processes killed and stopped at work: the job goes on or ends, soon, says why, and leaves nothing behind."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.command import ENDLESS, SMALL, StartCommand, wait_until_gone
from tests.ports import free_port_range
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints

pytestmark = pytest.mark.cluster

LOCAL = ("--master", "local[2]")
NO_RESTART = ("--max_restarts", 0)
SERVER_ON_DRIVER_HOST = ("--ps_place", "driver", "--master", "local-cluster[1,1,1024]")


def report(train_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((train_dir / "report.json").read_text())
    return found


def has_newer_checkpoint(run: RunLayout, before: list[str]) -> bool:
    return checkpoints.candidates(run)[:1] not in ([], before[:1])


def test_a_run_outlives_the_death_of_each_of_its_processes(
    start: StartCommand, small_dataset: Path, tmp_path: Path
) -> None:
    """Two workers, whose steps are counted together; a port range just wide enough for one attempt at a time."""
    first_port, last_port = free_port_range(6)
    run = RunLayout(str(tmp_path))
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--max_restarts", 3,
        "--num_executors", 3, "--max_number_of_steps", 301, "--save_steps", 50, "--master", "local[3]",
        "--port_range", f"{first_port}-{last_port}",
    )  # fmt: skip
    processes: list[psutil.Process] = []
    causes = {
        "worker": r"worker:\d on host 127.0.0.1: its TensorFlow process \d+ was killed by SIGKILL",
        "ps": "ps:0 on host 127.0.0.1: its TensorFlow process \\d+ was killed by SIGKILL",
        "coordinator": "chief:0 on host 127.0.0.1: the coordinator was killed by SIGKILL",
    }
    job.wait_for_step()
    for number, (role, cause) in enumerate(causes.items(), 1):
        job.wait_for_line(f"Starting attempt {number}:")
        job.wait_until(functools.partial(has_newer_checkpoint, run, checkpoints.candidates(run)))
        processes += job.descendants()
        job.find(role).kill()
        job.wait_for_line(f"Attempt {number} has ended at step ")
        assert re.search(f"Attempt {number} has ended at step \\d+: {cause}", job.stderr), job.stderr
    assert job.wait() == 0, job.stderr
    made = report(tmp_path)
    assert (made["state"], made["exit_code"], made["step"]) == ("finished", 0, 301)
    assert [attempt["number"] for attempt in made["attempts"]] == [1, 2, 3, 4]
    starts = [attempt["start_step"] for attempt in made["attempts"]]
    assert starts == sorted(set(starts))
    *failed, finished = made["attempts"]
    assert [attempt["first_cause"]["role"] for attempt in failed] == ["worker", "ps", "chief"]
    assert all(attempt["decision"].startswith("restarted after ") for attempt in failed)
    assert {node["task"] for node in finished["nodes"]} >= {"ps:0", "worker:0", "worker:1"}
    assert all(node["peak_bytes"] for node in finished["nodes"] if node["role"] in ("ps", "worker"))
    assert {node["task"] for node in finished["nodes"] if node["step_s"]} == {"worker:0", "worker:1"}
    assert (made["num_attempts"], made["num_restarts"]) == (4, 3)
    assert 0 < made["counted_s"] < made["elapsed_s"]
    assert made["checkpoint_digest"]
    files = [json.loads(Path(run.attempt(number)).read_text()) for number in range(1, 5)]
    assert [file["state"] for file in files] == ["failed", "failed", "failed", "finished"]
    checkpoint = checkpoints.latest(run)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.path) == (301, made["checkpoint"])
    assert sum(checkpoint.input_position["records_read"]) == 301 * 32
    assert not wait_until_gone(processes, job.patience_s)


@pytest.mark.parametrize(
    ("role", "where", "named", "cause"),
    [
        # Seen by the driver, whose line breaks, with TFoS's own process left waiting; and by what the executor's JVM
        # has started. One that its supervisor sees is in the test above.
        ("ps supervisor", LOCAL, "ps:0 on host 127.0.0.1", "the line to it is gone"),
        ("executor", ("--master", "local-cluster[2,1,1024]"), "on host 127.0.0.1", "the line to it is gone"),
    ],
)
def test_a_killed_process_ends_the_job_with_its_name(
    start: StartCommand, small_dataset: Path, tmp_path: Path, role: str, where: tuple[str, ...], named: str, cause: str
) -> None:
    job = start("train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, *ENDLESS, *where, *NO_RESTART)
    job.wait_for_step()
    processes = job.descendants()
    job.find(role).kill()
    assert job.wait(job.patience_s) == 71, job.stderr
    last_line = job.stderr.splitlines()[-1]
    assert last_line.startswith("tfos-job train: error: ")
    assert named in last_line
    assert cause in last_line
    found = report(tmp_path)
    assert (found["state"], found["exit_code"], found["exit_class"]) == ("failed", 71, "NodeDiedError")
    assert found["first_cause"]["task"] in last_line
    assert found["first_cause"]["fact"] in last_line
    assert not Path(RunLayout(str(tmp_path)).lock).exists()
    assert not wait_until_gone(processes, job.patience_s)


def test_a_run_that_is_stopped_and_killed_ends_as_if_it_had_not_been(
    start: StartCommand, small_dataset: Path, tmp_path: Path
) -> None:
    """SIGTERM to all, then the driver's death, then the coordinator's; each goes on where the first one stopped."""
    options = ("--dataset_dir", small_dataset, *SMALL, "--keep_prob", "1")
    broken = tmp_path / "broken"
    to_be_ended = ("train", *options, "--train_dir", broken, *ENDLESS)

    stopped = start(*to_be_ended, *SERVER_ON_DRIVER_HOST)
    stopped.wait_for_step()
    processes = stopped.descendants()
    # As a terminal and a scheduler do: Spark's JVM is in the group as well, or would be.
    os.killpg(stopped.pid, signal.SIGTERM)
    assert stopped.wait(stopped.patience_s) == 143, stopped.stderr
    assert "Waiting for the running steps and a last checkpoint" in stopped.stderr
    assert not wait_until_gone(processes, stopped.patience_s)
    assert report(broken)["state"] == "interrupted"
    checkpoint = checkpoints.latest(RunLayout(str(broken)))
    assert checkpoint is not None
    assert report(broken)["checkpoint"] == checkpoint.path

    orphaned = start(*to_be_ended, *SERVER_ON_DRIVER_HOST)
    orphaned.wait_for_step()
    processes = orphaned.descendants()
    folders = [Path(orphaned.find(role).cwd()).parent for role in ("ps", "worker")]
    orphaned.send_signal(signal.SIGKILL)
    assert orphaned.wait() == -signal.SIGKILL
    assert not wait_until_gone(processes, orphaned.patience_s)
    assert not [folder for folder in folders if folder.exists()]
    assert report(broken)["state"] == "running"

    # The lock of a dead process does not stop the next one.
    beheaded = start(*to_be_ended, *LOCAL, *NO_RESTART)
    beheaded.wait_for_step()
    processes = beheaded.descendants()
    beheaded.find("coordinator").kill()
    assert beheaded.wait(beheaded.patience_s) == 71, beheaded.stderr
    assert "chief:0 on host" in beheaded.stderr.splitlines()[-1]
    assert "the coordinator was killed by SIGKILL" in beheaded.stderr.splitlines()[-1]
    assert not wait_until_gone(processes, beheaded.patience_s)

    total = ("--max_number_of_steps", checkpoint.step + 7)
    for train_dir in (broken, tmp_path / "unbroken"):
        rest = start("train", *options, "--train_dir", train_dir, *total, *LOCAL)
        assert rest.wait() == 0, rest.stderr
    assert [attempt["start_step"] for attempt in report(broken)["attempts"]] == [0, *[checkpoint.step] * 3]
    runs = [checkpoints.latest(RunLayout(str(tmp_path / name))) for name in ("broken", "unbroken")]
    resumed, unbroken = (checkpoints.load(info) for info in runs if info is not None)
    assert resumed.keys() == unbroken.keys()
    for name, array in unbroken.items():
        np.testing.assert_allclose(resumed[name], array, rtol=0, atol=1e-5, err_msg=name)


STUCK_NETWORK = """
import keras
import tensorflow as tf

class Stuck(keras.layers.Layer):
    def call(self, x):
        text = tf.io.read_file({pipe!r})  # waits until somebody writes, which nobody does
        return x + tf.cast(tf.strings.length(text), tf.float32)

def build(*, num_classes, image_size, num_channels, keep_prob, seed):
    images = keras.Input((image_size, image_size, num_channels), name="images")
    x = keras.layers.Flatten()(Stuck(name="stuck")(images))
    return keras.Model(images, keras.layers.Dense(num_classes, name="fc")(x), name="stuck")
"""


def test_a_step_that_never_ends_ends_the_job(
    start: StartCommand, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "stuck.py").write_text(STUCK_NETWORK.format(pipe=str(pipe)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path / "run", *SMALL, *LOCAL,
        "--model_name", "stuck:build", "--max_number_of_steps", 1, "--stall_timeout", 5, *NO_RESTART,
    )  # fmt: skip
    assert job.wait() == 71, job.stderr
    last_line = job.stderr.splitlines()[-1]
    assert "chief:0 on host 127.0.0.1: no step was finished for 5 s" in last_line
    assert "--stall_timeout" in last_line
    found = report(tmp_path / "run")
    assert found["state"] == "failed"
    # Where each process stood, before it was killed.
    stacks = found["attempts"][-1]["stacks"]
    assert list(stacks) == ["chief:0", "ps:0", "worker:0"]
    assert "training/parameter_server.py" in stacks["chief:0"]
    assert "training/server_process.py" in stacks["worker:0"]


def test_a_flipped_bit_ends_training_with_its_file_and_byte(
    start: StartCommand, small_dataset: Path, tmp_path: Path
) -> None:
    """In the reader that keeps images in memory, which meets it before the first step. Others: test_damage.py."""
    dataset = tmp_path / "dataset"
    shutil.copytree(small_dataset, dataset)
    shard = max((dataset / "train").rglob("*.tfrecord"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    job = start("train", "--dataset_dir", dataset, "--train_dir", tmp_path / "run", *SMALL, *ENDLESS, *LOCAL)
    assert job.wait() == 65, job.stderr
    assert re.search(rf"{re.escape(str(shard))}, byte \d+: checksum of data does not fit", job.stderr.splitlines()[-1])
