"""Checkpoints on a live HDFS: a rename decides between an attempt and the one that follows it."""

from __future__ import annotations

import pytest

from tests.unit.small_checkpoints import META, arrays, publish
from tfos_job import storage
from tfos_job.errors import BusyError, JobError
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.lock_file import require
from tfos_job.run import checkpoint_files, checkpoints, retention
from tfos_job.run.handover import take_over

pytestmark = pytest.mark.hadoop


def test_a_coordinator_of_an_earlier_attempt_publishes_nothing_and_damage_is_put_aside(hdfs_dir: str) -> None:
    run = RunLayout(f"{hdfs_dir}/run")
    with Lease(run.lock, "train") as lease:
        take_over(run, lease, 1)
        publish(run, 10, 15)
        storage.write_bytes(f"{run.checkpoint(15)}/{checkpoint_files.VARIABLES_FILE}", b"damaged")
        found = []

        def guard() -> None:
            require(run.lock, lease.token, "train", attempt=1)
            if not found:
                found.append(take_over(run, lease, 2))  # between its question and its rename

        with pytest.raises(JobError, match="_building-1-"):
            checkpoints.publish(run, 20, arrays(20), META, guard, 1)
        assert [info.step for info in found] == [10]
        with pytest.raises(BusyError, match="this is attempt 1, and attempt 2 has begun"):
            checkpoints.publish(run, 20, arrays(20), META, guard, 1)
        assert checkpoints.candidates(run) == [run.checkpoint(10)]
        retention.sweep(run)
        aside, whole = [entry.name for entry in storage.list_dir(run.checkpoints_dir)]
        assert aside.startswith("_damaged-step-00000015-")
        assert whole == "step-00000010"
