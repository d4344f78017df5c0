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

from tests.command import ENDLESS, SMALL, StartCommand, run, wait_until_gone
from tests.ports import free_port_range
from tests.unit.small_checkpoints import flip_byte
from tfos_job.layout import RunLayout, checkpoint_step
from tfos_job.run import checkpoints
from tfos_job.run.checkpoint_files import VARIABLES_FILE

pytestmark = pytest.mark.cluster

LOCAL = ("--master", "local[2]")
NO_RESTART = ("--max_restarts", 0)
SERVER_ON_DRIVER_HOST = ("--ps_place", "driver", "--master", "local-cluster[1,1,1024]")
VALIDATED = ("--validation_split_name", "test", "--eval_steps", 0)
AUGMENTED = ("--random_rotation", 10, "--elastic_distortion", 0.02, "--stroke_width", 1, "--random_contrast")
WHITENED = ("--normalization", "zca", "--whitening_epsilon", 0.05)
# Three restarts, each behind a newer checkpoint, leave most of these steps to do.
NUM_STEPS, SAVE_STEPS = 151, 10


def report(train_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((train_dir / "report.json").read_text())
    return found


def has_newer_checkpoint(layout: RunLayout, before: list[str]) -> bool:
    return checkpoints.candidates(layout)[:1] not in ([], before[:1])


def is_below_the_driver(process: psutil.Process, job_pid: int) -> bool:
    """Whether no JVM is between the driver and the process."""
    parents = process.parents()
    below = parents[: [parent.pid for parent in parents].index(job_pid)]
    return all("python" in parent.name() for parent in below)


def listening_ports(process: psutil.Process) -> list[int]:
    return [c.laddr.port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]


def test_a_run_outlives_the_death_of_each_of_its_processes(
    start: StartCommand, small_dataset: Path, tmp_path: Path
) -> None:
    """Two servers and two workers, whose steps are counted together; a port range just wide enough for one attempt.

    The coordinator dies behind a checkpoint that is damaged: the one before it is what the last attempt begins with.
    """
    first_port, last_port = free_port_range(7)
    layout = RunLayout(str(tmp_path))
    job = start(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--max_restarts", 3,
        "--num_executors", 4, "--num_ps_tasks", 2, "--master", "local[4]", "--port_range", f"{first_port}-{last_port}",
        "--max_number_of_steps", NUM_STEPS, "--save_steps", SAVE_STEPS, *VALIDATED,
    )  # fmt: skip
    processes: list[psutil.Process] = []
    causes = {
        "worker": r"worker:\d on host 127.0.0.1: its TensorFlow process \d+ was killed by SIGKILL",
        # Seen by the driver, whose line breaks, with TFoS's own process left waiting.
        "ps supervisor": r"ps:\d on host 127.0.0.1: the line to it is gone",
        "coordinator": "chief:0 on host 127.0.0.1: the coordinator was killed by SIGKILL",
    }
    damaged = ""
    job.wait_for_step()
    for number, (role, cause) in enumerate(causes.items(), 1):
        job.wait_for_line(f"Starting attempt {number}:")
        job.wait_until(functools.partial(has_newer_checkpoint, layout, checkpoints.candidates(layout)))
        processes += job.descendants()
        victim = job.find(role)
        if role == "coordinator":
            victim.suspend()  # it publishes none meanwhile
            damaged = checkpoints.candidates(layout)[0]
            flip_byte(Path(damaged) / VARIABLES_FILE)
        victim.kill()
        job.wait_for_line(f"Attempt {number} has ended at step ")
        assert re.search(f"Attempt {number} has ended at step \\d+: {cause}", job.stderr), job.stderr
    assert job.wait() == 0, job.stderr
    made = report(tmp_path)
    assert (made["state"], made["exit_code"], made["step"]) == ("finished", 0, NUM_STEPS)
    assert [attempt["number"] for attempt in made["attempts"]] == [1, 2, 3, 4]
    *starts, last_start = [attempt["start_step"] for attempt in made["attempts"]]
    assert starts == sorted(set(starts))
    damaged_step = checkpoint_step(Path(damaged).name)
    assert damaged_step is not None
    assert starts[-1] <= last_start < damaged_step
    *failed, finished = made["attempts"]
    assert [attempt["first_cause"]["role"] for attempt in failed] == ["worker", "ps", "chief"]
    assert all(attempt["decision"].startswith("restarted after ") for attempt in failed)
    tasks = {"ps:0", "ps:1", "worker:0", "worker:1"}
    assert {node["task"] for node in finished["nodes"]} >= tasks
    assert all(node["peak_bytes"] for node in finished["nodes"] if node["role"] in ("ps", "worker"))
    assert {node["task"] for node in finished["nodes"] if node["step_s"]} == {"worker:0", "worker:1"}
    assert (made["num_attempts"], made["num_restarts"]) == (4, 3)
    assert 0 < made["counted_s"] < made["elapsed_s"]
    assert made["checkpoint_digest"]
    assert made["metrics"]["num_examples"] == 20
    files = [json.loads(Path(layout.attempt(number)).read_text()) for number in range(1, 5)]
    assert [file["state"] for file in files] == ["failed", "failed", "failed", "finished"]
    checkpoint = checkpoints.latest(layout)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.path) == (NUM_STEPS, made["checkpoint"])
    # Which worker took which step is the coordinator's choice; that no step is lost is not.
    assert checkpoint.input_position["records_read"] == made["records_read"]
    assert len(made["records_read"]) == 2
    assert min(made["records_read"]) > 0
    assert sum(made["records_read"]) == NUM_STEPS * 32
    # Variables of both servers are in the checkpoint, and they have moved.
    arrays = checkpoints.load(checkpoint)
    kernels = [array for name, array in arrays.items() if name.startswith("model/") and name.endswith("/kernel")]
    assert len(kernels) == 5  # whole, though those of dense layers were divided between the servers
    assert made["wire"]["ps_placement"] == "partitioned"
    assert made["wire"]["largest_share"] < 0.55
    moments = [array for name, array in arrays.items() if "momentum" in name or "velocity" in name]
    assert moments
    assert all(array.any() for array in moments)
    assert not wait_until_gone(processes, job.patience_s)


def test_a_run_that_is_stopped_and_killed_ends_as_if_it_had_not_been(
    start: StartCommand, small_dataset: Path, tmp_path: Path
) -> None:
    """SIGTERM to all, then an executor's and the driver's death; what follows goes on where the first one stopped.

    With one executor, and the server on the driver's host; with augmentation, and statistics of the data.
    """
    options = ("--dataset_dir", small_dataset, *SMALL, "--keep_prob", "1", *AUGMENTED, *WHITENED, *VALIDATED)
    broken = tmp_path / "broken"
    to_be_ended = ("train", *options, "--train_dir", broken, *ENDLESS, *SERVER_ON_DRIVER_HOST)

    first_port, last_port = free_port_range(60)
    stopped = start(*to_be_ended, "--port_range", f"{first_port}-{last_port}")
    stopped.wait_for_step()
    processes = stopped.descendants()
    server = stopped.find("ps")
    assert is_below_the_driver(server, stopped.pid)
    assert not is_below_the_driver(stopped.find("worker"), stopped.pid)
    assert server.environ()["CUDA_VISIBLE_DEVICES"] == ""
    ours = {role: listening_ports(stopped.find(role)) for role in ("ps", "worker", "coordinator")}
    assert all(ports and all(first_port <= port <= last_port for port in ports) for ports in ours.values()), ours
    # As a terminal and a scheduler do: Spark's JVM is in the group as well, or would be.
    os.killpg(stopped.pid, signal.SIGTERM)
    assert stopped.wait(stopped.patience_s) == 143, stopped.stderr
    said = [
        "Training ", " 80 records of 10 classes", "Starting Spark (local-cluster[1,1,1024])",
        "Computing whitening statistics of 80 records", "Starting attempt 1: 1 parameter server and 1 worker",
        "Building the network", "The network has ", "step 1 of 1000000: ",
        "Waiting for the running steps and a last checkpoint",
    ]  # fmt: skip
    assert [words for words in said if words not in stopped.stderr] == []
    assert sorted(said, key=stopped.stderr.index) == said
    assert "incubator" not in stopped.stderr
    assert not wait_until_gone(processes, stopped.patience_s)
    assert report(broken)["state"] == "interrupted"
    assert not (broken / "_scratch").exists()
    checkpoint = checkpoints.latest(RunLayout(str(broken)))
    assert checkpoint is not None
    assert report(broken)["checkpoint"] == checkpoint.path
    assert checkpoints.load(checkpoint)["normalization/matrix"].shape == (256, 256)
    assert (checkpoint.normalization["kind"], checkpoint.normalization["epsilon"]) == ("zca", 0.05)
    assert re.fullmatch("[0-9a-f]{64}", checkpoint.normalization["digest"])

    # The JVM that has started the node, and then the driver, whose death nobody sees but its children.
    orphaned = start(*to_be_ended, "--max_restarts", 1)
    orphaned.wait_for_step()
    processes = orphaned.descendants()
    orphaned.find("executor").kill()
    orphaned.wait_for_line("Attempt 2 has ended at step ")
    cause = "worker:0 on host 127.0.0.1: the line to it is gone"
    assert re.search(f"Attempt 2 has ended at step \\d+: {cause}", orphaned.stderr), orphaned.stderr
    orphaned.wait_until(lambda: ": loss " in orphaned.stderr.partition("Starting attempt 3:")[2])
    processes += orphaned.descendants()
    folders = [Path(orphaned.find(role).cwd()).parent for role in ("ps", "worker")]
    orphaned.send_signal(signal.SIGKILL)
    assert orphaned.wait() == -signal.SIGKILL
    assert not wait_until_gone(processes, orphaned.patience_s)
    assert not [folder for folder in folders if folder.exists()]
    assert report(broken)["state"] == "running"

    # The lock of a dead process does not stop the next one.
    total = ("--max_number_of_steps", checkpoint.step + 7)
    for train_dir in (broken, tmp_path / "unbroken"):
        rest = start("train", *options, "--train_dir", train_dir, *total, *LOCAL)
        assert rest.wait() == 0, rest.stderr
    assert [attempt["start_step"] for attempt in report(broken)["attempts"]] == [0, *[checkpoint.step] * 3]
    infos = [checkpoints.latest(RunLayout(str(tmp_path / name))) for name in ("broken", "unbroken")]
    resumed, unbroken = (checkpoints.load(info) for info in infos if info is not None)
    assert resumed.keys() == unbroken.keys()
    for name, array in unbroken.items():
        np.testing.assert_allclose(resumed[name], array, rtol=0, atol=1e-5, err_msg=name)

    # Evaluation in training, by a worker, and afterwards from the checkpoint alone count the same.
    (statistics,) = small_dataset.glob("statistics-train-16-whitening-*.npz")
    statistics.unlink()
    evaluated = run("evaluate", "--dataset_dir", small_dataset, "--train_dir", broken)
    words = ["Loading TensorFlow", f"Evaluating step {checkpoint.step + 7} on 20 records"]
    assert sorted(words, key=evaluated.stderr.index) == words
    evaluation, metrics = evaluated.result(), report(broken)["metrics"]
    assert evaluation["num_examples"] == metrics["num_examples"] == 20
    assert evaluation["loss"] == pytest.approx(metrics["loss"], rel=1e-4)
    assert evaluation["top_1"] == pytest.approx(metrics["top_1"])


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
    assert last_line.startswith("tfos-job train: error: ")
    found = report(tmp_path / "run")
    assert (found["state"], found["exit_code"], found["exit_class"]) == ("failed", 71, "NodeDiedError")
    assert found["first_cause"]["fact"] in last_line
    assert not Path(RunLayout(str(tmp_path / "run")).lock).exists()
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
