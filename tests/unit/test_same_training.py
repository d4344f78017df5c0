"""The comparison of tests/campaigns/same_training.py: values of a run, their distances, what is further apart."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.campaigns import same_training
from tests.run_values import CURVE, compare, distance, facts

WEIGHTS = np.array([1.0, 2.0], np.float32)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("a", "a", 0),
        ("a", "b", math.inf),
        (1, 2, math.inf),  # what is counted is exact
        (1, True, math.inf),
        (0.5, 0.75, 0.25),
        (WEIGHTS, WEIGHTS + np.float32(0.5), 0.5),
        (WEIGHTS, WEIGHTS.astype(np.float64), math.inf),
        (WEIGHTS, WEIGHTS[:1], math.inf),
        (np.array("a"), np.array("b"), math.inf),
    ],
)
def test_distances(one: Any, other: Any, apart: float) -> None:
    assert distance(one, other) == distance(other, one) == apart


def test_a_new_run_may_be_as_far_as_old_runs_are_from_each_other() -> None:
    olds = [{"variables: w": 1.0}, {"variables: w": 1.5}]
    assert compare(olds, {"variables: w": 1.9})["variables"].further == []
    assert compare(olds, {"variables: w": 2.1})["variables"].further == ["variables: w"]


def test_what_is_not_a_number_differs_from_every_number() -> None:
    nan = {"variables: w": math.nan}
    assert compare([{"variables: w": 1.0}] * 2, nan)["variables"].further == ["variables: w"]


def test_a_value_that_is_gone_or_new_is_further_but_for_points_of_the_curve() -> None:
    old = {"shards: a": "1", f"{CURVE}: steps 2 to 3": 1.0, f"{CURVE}: steps 1 to 1": 1.0}
    new = {"shards: b": "1", f"{CURVE}: steps 2 to 4": 2.0, f"{CURVE}: steps 1 to 1": 1.0}
    found = compare([old, old], new)
    assert found["shards"].further == ["shards: a", "shards: b"]
    assert (found[CURVE].further, found[CURVE].num_values) == ([], 1)


def test_facts_are_without_times_and_folders(tmp_path: Path) -> None:
    """Two runs that differ in these alone are the same."""
    found = []
    owners = same_training.commands(same_training.CASES).keys()
    for number in (1, 2):
        folder = tmp_path / f"run-{number}"
        train_dir = folder / "runs" / "preloaded"
        train_dir.mkdir(parents=True)
        point = {"loss": 2.5, "images_per_second": float(number)}
        report = {"curve": [{"step": 1} | point, {"step": 3} | point], "validation": [{"step": 3, "loss": 2.0}]}
        report |= {"metrics": {"train_loss": float(number)}, "updated": f"at {number}", "train_dir": str(train_dir)}
        (train_dir / "report.json").write_text(json.dumps(report))
        found.append(facts(folder, owners))
    assert found[0] == found[1]
    assert found[0]["loss curve: runs/preloaded/report.json steps 2 to 3 .loss"] == 2.5
    assert found[0]["validation: runs/preloaded/report.json step 3 .loss"] == 2.0
