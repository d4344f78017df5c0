"""The short form of a campaign (tests/campaigns/exactly_once.py): a trial of each kind, and of each step two or one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).resolve().parents[1] / "campaigns" / "exactly_once.py"


@pytest.mark.timeout(900)
def test_what_is_killed_doubled_or_starved_is_right_in_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    command = [sys.executable, str(CAMPAIGN), "--log", str(log), "--trials", "5", "--num_records", "1500"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=840)
    trials = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(trial["kind"], trial["error"]) for trial in trials] == [
        (kind, None) for kind in ("executor", "worker", "driver", "speculation", "twice")
    ], done.stderr
    assert done.returncode == 0, done.stderr
    assert all(trial["num_looks"] > 10 for trial in trials)
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)  # nothing is left to do
    assert (again.returncode, json.loads(again.stdout)["trials"]) == (0, 5)
