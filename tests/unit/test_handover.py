"""A new attempt at a run, while the coordinator of the one before may still be alive."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.small_checkpoints import META, arrays, damage, publish, step_names
from tfos_job import storage
from tfos_job.errors import BadDataError, BusyError, JobError
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.lock_file import holder_of, require
from tfos_job.run import checkpoints
from tfos_job.run.handover import ATTEMPT, take_over


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path / "run"))


@pytest.fixture
def lease(run: RunLayout) -> Iterator[Lease]:
    with Lease(run.lock, "train") as lease:
        yield lease


def publish_as(run: RunLayout, lease: Lease, attempt: int, step: int) -> str:
    guard = functools.partial(require, run.lock, lease.token, "train", **{ATTEMPT: attempt})
    return checkpoints.publish(run, step, arrays(step), META, guard, attempt)


def test_an_attempt_begins_with_the_newest_whole_one_and_puts_the_damaged_ones_aside(
    run: RunLayout, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    publish(run, 1, 2, 3, 4)
    damage(run, 1, 3, 4)
    found = take_over(run, lease, 2)
    assert found is not None
    assert (found.step, found.path) == (2, run.checkpoint(2))
    names = [name.rpartition("-")[0] or name for name in step_names(run)]
    assert names == ["_damaged-step-00000003", "_damaged-step-00000004", "step", "step"]  # older ones were not read
    assert "step-00000004: not a whole checkpoint: variables.npz does not have the SHA-256" in caplog.text
    assert f"It is kept for a look as {run.checkpoints_dir}/_damaged-step-00000004-" in caplog.text


def test_where_none_verifies_all_stay_and_a_run_without_any_begins_afresh(run: RunLayout, lease: Lease) -> None:
    assert take_over(run, lease, 1) is None
    publish(run, 1, 2, 3)
    damage(run, 1, 2, 3)
    with pytest.raises(BadDataError, match="none of the 3 checkpoints verifies"):
        take_over(run, lease, 2)
    assert step_names(run) == ["step-00000001", "step-00000002", "step-00000003"]


def test_the_one_that_the_command_has_read_is_not_read_again(
    run: RunLayout, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(run, 1, 2, 3)
    damage(run, 3)
    chosen, read = checkpoints.latest(run), []
    verify = checkpoints.verify
    monkeypatch.setattr(checkpoints, "verify", lambda path: (read.append(path), verify(path))[1])
    assert take_over(run, lease, 1, chosen) is chosen
    assert read == [run.checkpoint(3)]
    assert step_names(run)[1:] == ["step-00000001", "step-00000002"]


def test_a_coordinator_of_an_earlier_attempt_can_publish_no_more(run: RunLayout, lease: Lease) -> None:
    take_over(run, lease, 1)
    publish_as(run, lease, 1, 10)
    take_over(run, lease, 2)
    with pytest.raises(BusyError, match="train lost its lock: this is attempt 1, and attempt 2 has begun"):
        publish_as(run, lease, 1, 20)
    publish_as(run, lease, 2, 20)
    lease.check()  # each renewal has the number
    assert holder_of(run.lock)[ATTEMPT] == 2
    assert step_names(run) == ["step-00000010", "step-00000020"]


def test_nor_can_one_that_has_asked_the_lock_just_before(run: RunLayout, lease: Lease) -> None:
    take_over(run, lease, 1)
    publish_as(run, lease, 1, 10)
    found = []

    def guard() -> None:
        require(run.lock, lease.token, "train", attempt=1)
        found.append(take_over(run, lease, 2))  # between its question and its rename

    with pytest.raises(JobError, match=r"_building-1-\w+"):
        checkpoints.publish(run, 20, arrays(20), META, guard, 1)
    assert [info.step for info in found] == [10]
    assert step_names(run) == ["step-00000010"]


def test_a_renewal_of_an_earlier_attempt_that_arrives_late_stops_nobody(run: RunLayout, lease: Lease) -> None:
    take_over(run, lease, 1)
    late = json.loads(storage.read_bytes(run.lock))
    take_over(run, lease, 2)
    storage.write_json(run.lock, late)
    publish_as(run, lease, 2, 10)


def test_a_driver_that_was_cut_off_and_replaced_begins_no_attempt(run: RunLayout, lease: Lease) -> None:
    publish(run, 1)
    Path(run.checkpoint_building(1, "of-the-other")).mkdir()
    storage.write_json(run.lock, {"owner": "another", "token": "another"})
    with pytest.raises(BusyError, match="another"):
        take_over(run, lease, 2)
    assert step_names(run) == ["_building-1-of-the-other", "step-00000001"]
