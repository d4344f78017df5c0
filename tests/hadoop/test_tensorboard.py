"""Summaries that a training writes to HDFS, and TensorBoard over them."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_tensorboard import wait_for_scalar, wait_for_url
from tests.command import Command, wait_until_gone
from tfos_job import storage
from tfos_job.layout import RunLayout
from tfos_job.training.summaries import FLUSH_S, Summaries

pytestmark = pytest.mark.hadoop

GRACE_S = 60  # a child may be seen for a moment after its parent's end


@pytest.fixture
def board(hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The command over an empty folder; its temporary files go to `tmp_path`."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = Command("tensorboard", "--train_dir", hdfs_dir, "--port", "0", "--reload_interval", "1")
    yield command
    command.end()


def test_a_run_on_hdfs_is_mirrored_while_it_grows(
    board: Command, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)  # the summaries' own staging goes to tmp_path, too
    url = wait_for_url(board)
    assert f"No summaries in {hdfs_dir}/summaries yet" in board.stderr
    now_s = 0.0
    summaries = Summaries(RunLayout(hdfs_dir), "train", clock=lambda: now_s)
    for step in range(1, 4):
        now_s += FLUSH_S  # as if so much time had gone by: no checkpoint is needed
        summaries.write(step, {"loss": 1 / step})
        assert wait_for_scalar(url, "train", "loss", step) == pytest.approx(1 / step)
        assert len(storage.find(hdfs_dir, "")) == 1
    summaries.write(4, {"loss": 0.0})
    summaries.close()
    assert wait_for_scalar(url, "train", "loss", 4) == 0.0
    processes = board.descendants()
    board.send_signal(signal.SIGTERM)
    assert board.wait() == 143
    assert not wait_until_gone(processes, GRACE_S)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tfos_job-")] == []
