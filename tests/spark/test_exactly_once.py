"""The short form of a campaign (tests/campaigns/exactly_once.py): one of a task's processes is killed, and a driver."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.campaigns import exactly_once


def test_what_was_killed_is_right_in_the_end(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the first generation is made, and while files are added, replaced and pruned."""
    log = tmp_path / "log.jsonl"
    words = ["--log", str(log), "--trials", "2", "--kinds", "worker", "driver", "--num_records", "1000"]
    words += ["--master", "local-cluster[1,2,1024]", "--seed", "213"]  # in the middle; and the driver's own process
    code = exactly_once.main(words, spark)
    told = capsys.readouterr().err
    trials = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(trial["kind"], trial["step"], trial["error"]) for trial in trials] == [
        ("worker", 0, None),
        ("driver", 1, None),
    ], told
    assert all(trial["hit"] and trial["num_looks"] for trial in trials), told
    assert trials[1]["codes"] == [-signal.SIGKILL]
    assert code == 0
    assert exactly_once.main(words) == 0  # nothing is left to do
    assert json.loads(capsys.readouterr().out)["trials"] == 2
