"""`tfos-job tensorboard` as a user starts it, over a run on this disk."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.command import Command, StartCommand, wait_until_gone
from tfos_job.config import TensorboardConfig
from tfos_job.errors import MissingInputError
from tfos_job.layout import RunLayout
from tfos_job.local_jobs.tensorboard import tensorboard
from tfos_job.training.summaries import Summaries


def wait_for_url(command: Command) -> str:
    command.wait_until(lambda: "\n" in command.stdout)
    return command.stdout.strip().rstrip("/")


def get(url: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as response:
        return json.load(response)


def wait_for_scalar(url: str, run: str, tag: str, step: int) -> float:
    """The value that TensorBoard shows for a step, once it does; pytest's timeout is behind it."""
    while True:
        if tag in get(f"{url}/data/plugin/scalars/tags").get(run, {}):
            for _, at, value in get(f"{url}/data/plugin/scalars/scalars?run={run}&tag={tag}"):
                if at == step:
                    return float(value)
        time.sleep(0.3)


def test_a_local_run_is_shown_and_grows_until_a_signal_ends_it(start: StartCommand, tmp_path: Path) -> None:
    """SIGINT here; SIGTERM in tests/hadoop/test_tensorboard.py."""
    command = start("tensorboard", "--train_dir", tmp_path, "--port", 0, "--reload_interval", 1)
    url = wait_for_url(command)
    assert url.startswith("http://localhost:")
    assert f"No summaries in {tmp_path}/summaries yet" in command.stderr
    summaries = Summaries(RunLayout(str(tmp_path)), "train")
    summaries.write(1, {"loss": 0.5})
    summaries.flush()
    assert wait_for_scalar(url, "train", "loss", 1) == 0.5
    summaries.write(2, {"loss": 0.25})
    summaries.close()
    assert wait_for_scalar(url, "train", "loss", 2) == 0.25
    processes = command.descendants()
    assert processes
    command.send_signal(signal.SIGINT)
    assert command.wait() == 130
    assert not wait_until_gone(processes, 60)


def test_a_missing_run_is_named_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=f"{tmp_path}/none: no such folder"):
        tensorboard(TensorboardConfig(train_dir=str(tmp_path / "none")), lambda _: None)


def test_a_taken_port_is_named(start: StartCommand, tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as other:
        port = other.getsockname()[1]
        command = start("tensorboard", "--train_dir", tmp_path, "--port", port)
        assert command.wait() == 69
    assert f"localhost:{port}: TensorBoard cannot listen there" in command.stderr
    assert "--port 0" in command.stderr
