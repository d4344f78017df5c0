"""Variables on several real parameter servers, in each placement."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import placed_training
from tests.command import SMALL, run, tally
from tfos_job.config.defaults import PARTITIONED, PS_PLACEMENTS, ROUND_ROBIN

pytestmark = pytest.mark.cluster


NUM_PS_TASKS = 3
IMAGES = len(PS_PLACEMENTS) * placed_training.BATCH_SIZE * placed_training.NUM_STEPS + placed_training.BATCH_SIZE


def test_every_placement_trains_the_same(small_dataset: Path, tmp_path: Path) -> None:
    """Each begins with the values of one server, has variables and slots where it was told to, counts each step once.

    What it writes is what one server would have, and another placement goes on with it.
    """
    program = [sys.executable, "-m", placed_training.__name__, small_dataset, tmp_path, str(NUM_PS_TASKS)]
    tally["starts"] += 1
    tally["trainings"] += len(PS_PLACEMENTS) + 1
    tally["images"] += IMAGES
    completed = subprocess.run(program, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout.splitlines()[-1])
    assert list(result) == [*PS_PLACEMENTS, "resumed"]
    steps = placed_training.NUM_STEPS
    for name in PS_PLACEMENTS:
        found = result[name]
        assert found["misplaced"] == [], name
        assert found["same_names"], name
        assert found["fresh"] == found["on_one_server"] == 0, name
        assert found["steps"] == [steps, steps], name
        assert found["images"] == [steps * placed_training.BATCH_SIZE] * 2, name
        assert found["moved"] > 1e-3, name
        assert found["losses"] == pytest.approx(result[ROUND_ROBIN]["losses"], rel=1e-4), name
        assert found["gradients"] < 1e-6, name
    assert result["resumed"] == {"difference": 0, "steps": [1, steps + 1]}
    even = result[PARTITIONED]["step_bytes"]
    assert max(even) <= 1.1 * sum(even) / NUM_PS_TASKS


def test_the_command_learns_with_divided_kernels(small_dataset: Path, tmp_path: Path) -> None:
    """The steps are counted, the bytes are even, and characters of other writers are read as with one server."""
    trained = run(
        "train", "--dataset_dir", small_dataset, "--train_dir", tmp_path, *SMALL, "--batch_size", 16,
        "--num_executors", 3, "--num_ps_tasks", 2, "--ps_placement", "partitioned", "--learning_rate", 1e-3,
        "--max_number_of_steps", 60, "--validation_split_name", "test",
    ).result()  # fmt: skip
    assert (trained["step"], trained["metrics"]["num_examples"]) == (60, 20)
    assert trained["metrics"]["top_1"] >= 0.7
    assert trained["metrics"]["loss"] < 0.9
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["records_read"] == [60 * 16]
    wire = report["wire"]
    assert len(wire["step_bytes"]) == 2
    assert 0.5 <= wire["largest_share"] < 0.51
    assert 0 < wire["expected_step_s"] < 1
    assert wire["measured_step_s"] == report["bound"]["network_s"]
