"""Resumption on a real parameter-server cluster, at every position."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import resume_every_step
from tests.command import tally

pytestmark = pytest.mark.cluster


def test_resuming_after_any_step_equals_the_unbroken_run(small_dataset: Path, tmp_path: Path) -> None:
    """With each network, its recipe and an input mode."""
    program = [sys.executable, "-m", resume_every_step.__name__]
    tally["starts"] += 1
    tally["trainings"] += resume_every_step.NUM_STEPS * len(resume_every_step.INPUT_MODES)
    tally["images"] += resume_every_step.NUM_IMAGES
    completed = subprocess.run([*program, small_dataset, tmp_path], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout.splitlines()[-1])
    assert set(result["networks"]) == set(resume_every_step.INPUT_MODES)
    for name, found in result["networks"].items():
        assert set(found["differences"]) == {str(step) for step in range(1, resume_every_step.NUM_STEPS)}
        assert max(found["differences"].values()) < 1e-5, name
        assert found["moved"] > 1e-3, name  # The steps between did change the variables.
    # TensorFlow would run the closure again, and count its update twice where the first one had been made.
    assert result["after_a_break"] == [[1, "UnavailableError"]] * 2
