from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.small_checkpoints import damage, publish, record_evaluation, step_names
from tfos_job import storage
from tfos_job.errors import BadDataError, BusyError
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoint_files, checkpoints, retention
from tfos_job.run.retention import Retention


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path / "run"))


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the checkpoints that were read through."""
    steps, prove = [], checkpoint_files.prove

    def note(path: str) -> None:
        steps.append(int(path[-8:]))
        prove(path)

    monkeypatch.setattr(checkpoint_files, "prove", note)
    return steps


def test_the_newest_two_that_verify_and_the_best_stay_and_the_damaged_one_is_put_aside(run: RunLayout) -> None:
    publish(run, 1, 2, 3, 4, 5, 12)
    storage.write_json(run.config, {"validation_split_name": "val"})
    record_evaluation(run, 2, "val", 0.9)
    record_evaluation(run, 4, "val", 0.8)
    damage(run, 5)
    Path(run.checkpoints_dir, "_building-dead").mkdir()
    assert Retention(run).apply() == [run.checkpoint(step) for step in (12, 4, 2)]
    aside, *whole = step_names(run)
    assert aside.startswith("_damaged-step-00000005-")
    assert whole == ["step-00000002", "step-00000004", "step-00000012"]
    assert checkpoints.candidates(run) == [run.checkpoint(step) for step in (12, 4, 2)]


def test_nothing_is_removed_where_nothing_verifies(run: RunLayout) -> None:
    publish(run, 1)
    damage(run, 1)
    assert Retention(run).apply() == []
    assert step_names(run) == ["step-00000001"]


def test_what_this_process_has_written_is_not_read_and_what_was_there_once(run: RunLayout, proved: list[int]) -> None:
    publish(run, 1, 2, 3)
    kept = Retention(run)
    for step in (4, 5, 6):
        publish(run, step)
        kept.trust(run.checkpoint(step))
        kept.apply()
    assert proved == [3]  # beside 4; afterwards the newest two are its own
    assert step_names(run) == ["step-00000005", "step-00000006"]


def test_the_best_one_is_read_once(run: RunLayout, proved: list[int]) -> None:
    publish(run, 1, 2)
    storage.write_json(run.config, {"validation_split_name": "val"})
    record_evaluation(run, 1, "val", 0.9)
    kept = Retention(run)
    for step in (3, 4, 5):
        publish(run, step)
        kept.trust(run.checkpoint(step))
        kept.apply()
    assert proved == [2, 1]
    assert step_names(run) == ["step-00000001", "step-00000004", "step-00000005"]


def test_the_last_two_damaged_ones_are_kept_whatever_their_step_is(run: RunLayout) -> None:
    publish(run, 7, 8, 9)
    for step in (8, 9, 7):
        checkpoints.put_aside(run, run.checkpoint(step), BadDataError("torn"))
    assert [name.split("-")[2] for name in step_names(run)] == ["00000007", "00000009"]
    retention.sweep(run)
    assert len(step_names(run)) == 2


def test_the_attempts_own_checkpoint_in_progress_is_left_alone(run: RunLayout) -> None:
    publish(run, 1)
    for attempt in (2, 3):
        Path(run.checkpoint_building(attempt, "token")).mkdir()
    Retention(run, attempt=3).apply()
    assert step_names(run) == ["_building-3-token", "step-00000001"]


def test_nothing_is_removed_for_one_who_has_lost_the_lock(run: RunLayout) -> None:
    publish(run, 1, 2, 3)
    Path(run.checkpoint_building(1, "of-the-next-one")).mkdir()
    damage(run, 3)
    before = step_names(run)

    def guard() -> None:
        raise BusyError("taken over")

    with pytest.raises(BusyError):
        Retention(run, guard).apply()
    assert step_names(run) == before


def test_one_that_was_put_aside_meanwhile_is_passed_over(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(run, 1, 2, 3)
    found = checkpoints.candidates(run)
    checkpoints.put_aside(run, run.checkpoint(3), BadDataError("torn"))
    monkeypatch.setattr(checkpoints, "candidates", lambda _: found)
    assert Retention(run).apply() == [run.checkpoint(2), run.checkpoint(1)]


def test_what_is_removed_is_gone_at_once_and_swept_where_that_was_interrupted(
    run: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(run, 1, 2, 3)

    def die(path: str) -> None:
        raise KeyboardInterrupt(path)

    with monkeypatch.context() as patch:
        patch.setattr("tfos_job.storage.names.remove", die)
        with pytest.raises(KeyboardInterrupt):
            Retention(run).apply()
    assert step_names(run)[1:] == ["step-00000002", "step-00000003"]
    assert step_names(run)[0].startswith("_step-00000001.")
    assert checkpoints.candidates(run) == [run.checkpoint(3), run.checkpoint(2)]
    retention.sweep(run)
    assert step_names(run) == ["step-00000002", "step-00000003"]
