"""Resumption on a real parameter-server cluster, at every position."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import resume_every_step
from tests.command import tally
from tfos_job.config import FILES, PRELOADED

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize(("input_mode", "model_name"), [(FILES, "chinese_rec"), (PRELOADED, "hanzi_net")])
def test_resuming_after_any_step_equals_the_unbroken_run(
    small_dataset: Path, tmp_path: Path, input_mode: str, model_name: str
) -> None:
    program = [sys.executable, "-m", resume_every_step.__name__]
    arguments = [str(small_dataset), str(tmp_path), input_mode, model_name]
    tally["starts"] += 1
    tally["trainings"] += resume_every_step.NUM_STEPS
    tally["images"] += resume_every_step.NUM_IMAGES
    completed = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    result = json.loads(completed.stdout.splitlines()[-1])
    assert set(result["differences"]) == {str(step) for step in range(1, resume_every_step.NUM_STEPS)}
    assert max(result["differences"].values()) < 1e-5
    assert result["moved"] > 1e-3  # The steps between did change the variables.
    # TensorFlow would run the closure again, and count its update twice where the first one had been made.
    assert result["after_a_break"] == [[1, "UnavailableError"]] * 2
