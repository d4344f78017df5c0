"""The short form of a campaign (tests/campaigns/faults.py): a node hangs, and a checkpoint is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.campaigns import faults

pytestmark = pytest.mark.cluster


def test_what_was_disturbed_is_right_in_the_end(
    small_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    words = ["--log", str(log), "--kinds", "node_stopped", "damaged", "--trials", "2", "--undisturbed", "1"]
    code = faults.main(words, small_dataset)
    told = capsys.readouterr().err
    trials = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(trial["kind"], trial["code"], trial["error"]) for trial in trials] == [
        ("node_stopped", 0, None),
        ("damaged", 0, None),
    ], told
    assert code == 0
    assert faults.main(words) == 0  # nothing is left to do
    assert json.loads(capsys.readouterr().out)["trials"] == 2
