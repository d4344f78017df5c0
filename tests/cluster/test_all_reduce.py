"""Training without parameter servers, on real nodes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import all_reduce_training
from tests.cluster.all_reduce_training import BATCH_SIZE, NUM_STEPS, NUM_WORKERS, PUSH_EVERY, RATE
from tests.command import SMALL, Command, run, starting, tally
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints

pytestmark = pytest.mark.cluster


def test_workers_together_make_the_step_of_one_with_all_their_images(small_dataset: Path, tmp_path: Path) -> None:
    """With several batches an update, for each of a worker's devices; in float32 and rounded on the way."""
    num_gpus = 2
    step_images = NUM_WORKERS * num_gpus * PUSH_EVERY * BATCH_SIZE
    program = [sys.executable, "-m", all_reduce_training.__name__, small_dataset, tmp_path, str(num_gpus)]
    tally["starts"] += 1
    tally["trainings"] += 3
    tally["images"] += step_images * (3 * NUM_STEPS + 2)
    completed = subprocess.run(program, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout.splitlines()[-1])
    found = result["gradients"]
    assert found["num_replicas"] == NUM_WORKERS * num_gpus
    assert found["steps"] == [NUM_STEPS, NUM_STEPS]
    assert found["images"] == [step_images, step_images * (NUM_STEPS - 1)]
    assert found["positions"] == {"0": NUM_STEPS * step_images // 2, "1": NUM_STEPS * step_images // 2}
    assert found["workers"] == [0, 1]
    ours, theirs, ours_later, theirs_later = found["losses"]
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours_later == pytest.approx(theirs_later, rel=1e-4)
    assert found["same_names"]
    assert found["gradients"] < 1e-6
    assert found["weights"] < NUM_STEPS * RATE / 10
    assert found["differing"] == []
    assert found["counted"] == 80
    assert found["stopped"]
    assert found["compute_s"] > 0
    rounded = found["bfloat16"]
    assert rounded["losses"] == pytest.approx([ours, ours_later], rel=0.02)
    assert rounded["losses"][1] != ours_later
    assert rounded["differing"] == []
    assert [2 * each for each in rounded["step_bytes"]] == found["step_bytes"]
    statistics = result["statistics"]
    assert statistics["apart"] > 1e-4
    assert statistics["from_mean"] < 1e-6
    assert statistics["again"] == 0
    assert statistics["resumed"] == [0, 2]
    drawn = 2 * PUSH_EVERY
    assert statistics["random"] == [[replica, drawn] for replica in range(NUM_WORKERS * num_gpus)]
    assert statistics["differing"] == []


def flags(dataset_dir: Path, train_dir: Path) -> tuple[object, ...]:
    return ("train", "--dataset_dir", dataset_dir, "--train_dir", train_dir, *SMALL, "--batch_size", 8,
            "--learning_rate", 1e-3, "--validation_split_name", "test")  # fmt: skip


@pytest.fixture(scope="module")
def killed_once(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run of two workers, of which one has been killed behind a checkpoint; and its log."""
    train_dir = tmp_path_factory.mktemp("run")
    words = (*flags(small_dataset, train_dir), "--num_ps_tasks", 0, "--num_executors", 2)
    with starting(Command) as start:
        job = start(*words, "--max_number_of_steps", 60, "--save_steps", 10)
        job.wait_until(lambda: checkpoints.candidates(RunLayout(str(train_dir))))
        job.find("worker").kill()
        assert job.wait() == 0, job.stderr
    return train_dir, job.stderr


def test_the_command_learns_and_outlives_a_worker(killed_once: tuple[Path, str]) -> None:
    train_dir, log = killed_once
    assert re.search(r"worker:\d on host 127.0.0.1: its TensorFlow process \d+ was killed by SIGKILL", log)
    report = report_of(train_dir)
    assert (report["step"], report["num_restarts"], report["replicas"]) == (60, 1, 2)
    assert report["records_read"] == [60 * 8, 60 * 8]
    assert report["metrics"]["top_1"] >= 0.7
    wire = report["wire"]
    assert (wire["engine"], wire["ps_placement"]) == ("all_reduce", None)
    assert wire["step_bytes"] == [2 * 2 * report["num_trained"]] * 2  # half of them twice, there and back
    assert wire["measured_step_s"] == report["bound"]["network_s"]


def test_a_parameter_server_goes_on_with_it(killed_once: tuple[Path, str], small_dataset: Path) -> None:
    """And the other way round in tests/hadoop/test_yarn.py."""
    train_dir, _ = killed_once
    further = run(
        *flags(small_dataset, train_dir), "--num_ps_tasks", 1, "--num_executors", 2, "--change_settings",
        "--wire_dtype", "bfloat16", "--max_number_of_steps", 70,
    ).result()  # fmt: skip
    assert further["step"] == 70
    assert further["metrics"]["top_1"] >= 0.7
    wire = report_of(train_dir)["wire"]
    assert (wire["engine"], wire["wire_dtype"]) == ("parameter_server", "bfloat16")


def report_of(train_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((train_dir / "report.json").read_text())
    return found
