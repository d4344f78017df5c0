"""When summaries become visible, and what a place that does not answer does to a training: nothing."""

from __future__ import annotations

import logging
import socket
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf

from tfos_job.layout import RunLayout
from tfos_job.storage import retry
from tfos_job.training.summaries import FLUSH_S, Summaries


def steps(folder: Path) -> list[int]:
    """The steps of the scalars in a folder."""
    return [
        event.step
        for path in sorted(folder.iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(path))
        if event.summary.value
    ]


def test_summaries_are_visible_after_a_while_without_a_checkpoint(tmp_path: Path) -> None:
    now_s = 0.0
    run = RunLayout(str(tmp_path))
    summaries = Summaries(run, "train", clock=lambda: now_s)
    summaries.write(1, {"loss": 1.0})
    now_s += FLUSH_S
    summaries.write(2, {"loss": 0.5})
    assert steps(Path(run.summaries("train"))) == [1, 2]
    summaries.write(3, {"loss": 0.4})
    summaries.close()
    assert steps(Path(run.summaries("train"))) == [1, 2, 3]


def test_a_place_that_does_not_answer_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(retry, "HDFS_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, caplog.at_level(logging.WARNING):
        root = f"hdfs://127.0.0.1:{silent.getsockname()[1]}/run"
        summaries = Summaries(RunLayout(root), "train")
        summaries.write(1, {"loss": 1.0})
        summaries.flush()
        summaries.close()
    assert f"The summaries could not be copied: {root}/summaries/train" in caplog.text
    assert list(tmp_path.iterdir()) == []
