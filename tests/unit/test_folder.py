"""What a command finds in a run's folder: `--overwrite` empties it, but not under the same YARN application."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfos_job import storage
from tfos_job.config import TrainConfig, to_dict
from tfos_job.layout import RunLayout
from tfos_job.run import folder

APPLICATION = "application_1795610618978_0042"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    """A run of this application with settings, a report and a checkpoint, seen by its second attempt."""
    monkeypatch.setenv("CONTAINER_ID", "container_e17_1795610618978_0042_02_000001")
    layout = RunLayout(str(tmp_path / "run"))
    storage.make_dirs(layout.checkpoint(2))
    storage.write_json(layout.config, to_dict(TrainConfig(dataset_dir="d", train_dir=layout.root)))
    storage.write_json(layout.report, {"application": APPLICATION, "state": "running"})
    return layout


def test_a_second_attempt_goes_on_with_what_the_first_one_made_after_overwriting(run: RunLayout) -> None:
    found = folder.read(run, overwrite=True)
    assert (found.is_next_attempt, found.clear, found.has_begun) == (True, False, True)
    assert found.settings is not None


def test_another_application_overwrites(run: RunLayout) -> None:
    storage.write_json(run.report, {"application": "application_1795610618978_0041", "state": "running"})
    found = folder.read(run, overwrite=True)
    assert (found.is_next_attempt, found.clear, found.has_begun) == (False, True, False)
    assert (found.report, found.settings, found.committed_digest) == (None, None, None)
    assert folder.read(run, overwrite=False).has_begun


def test_a_run_whose_settings_are_gone_has_begun_all_the_same(run: RunLayout) -> None:
    storage.remove(run.config)
    found = folder.read(run, overwrite=False)
    assert found.settings is None
    assert found.has_begun
