"""The short form of a campaign (tests/campaigns/faults.py): a node hangs."""

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
    # This seed's moment is behind the second of ten checkpoints, so that most of the steps are still to be done.
    words = ["--log", str(log), "--kinds", "node_stopped", "--trials", "1", "--undisturbed", "1"]
    words += ["--steps", "120", "--seed", "4"]
    code = faults.main(words, small_dataset)
    told = capsys.readouterr().err
    (trial,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert (trial["kind"], trial["moment"], trial["code"], trial["error"]) == ("node_stopped", 2, 0, None), told
    assert code == 0
    assert faults.main(words) == 0  # nothing is left to do
    assert json.loads(capsys.readouterr().out)["trials"] == 1
