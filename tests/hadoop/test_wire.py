"""benchmarks/wire.py on hosts of its own, and what it leaves behind. It needs the rights of test_hosts.py."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.hadoop.hosted import obstacle
from tfos_job.commands.container_memory import Network

pytestmark = pytest.mark.hadoop

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--networks", "hanzi_net", "--batch_sizes", "8", "--num_classes", "10", "--gbit", "1", "off", "--rounds", "1"]
FLAGS = ["--", "--image_size", "16", "--num_ps_tasks", "2", "--num_executors", "3", "--wire_dtype", "bfloat16"]
NUM_PARAMETERS = Network(model_name="hanzi_net", image_size=16, num_classes=10).num_parameters


@pytest.fixture(autouse=True)
def possible() -> None:
    if missing := obstacle():
        pytest.skip(f"no hosts of their own on this machine: {missing}")


@contextlib.contextmanager
def wire(scratch: Path) -> Iterator[subprocess.Popen[str]]:
    """The benchmark, with a folder for temporary files that it shares with nobody; nothing may be left of it."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "wire.py"), *SMALL, *FLAGS],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
    assert list(scratch.iterdir()) == []
    assert list(processes_with(scratch)) == []


def network_left(said: str) -> list[str]:
    """Links and namespaces of the benchmark's hosts, whose names have the tag of the bridge that it has told."""
    (tag,) = re.findall(r"hosts behind tfh(\w+),", said)
    namespaces = Path("/run/netns")
    found = [*Path("/sys/class/net").iterdir(), *(namespaces.iterdir() if namespaces.is_dir() else [])]
    return [path.name for path in found if tag in path.name]


def processes_with(scratch: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR", "").startswith(str(scratch)):
                yield process


def test_it_measures_what_the_flags_of_train_ask_for_and_leaves_nothing(tmp_path: Path) -> None:
    with wire(tmp_path) as process:
        out, said = process.communicate()
    assert process.returncode == 0, said
    assert network_left(said) == []
    found = [json.loads(line) for line in out.splitlines()]
    assert [(each["computes"], each["gbit"]) for each in found] == [(True, 1), (True, None), (False, 1), (False, None)]
    for each in found:
        assert set(each["bytes_to_and_from"]) == {"ps:0", "ps:1", "worker:0"}
        # The variables come once, the gradients go once, each in two bytes.
        for way in ("bytes_to_workers", "bytes_from_workers"):
            assert each[way] == pytest.approx(2 * NUM_PARAMETERS, rel=0.1)
        assert each["flags"] == " ".join(FLAGS[1:])
    assert found[2]["bytes_to_workers"] == pytest.approx(found[0]["bytes_to_workers"], rel=0.1)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with wire(tmp_path) as process:
        assert process.stderr is not None
        before = ""
        while "building the cluster side" not in before:
            before += next(process.stderr)
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)  # a second one must not disturb the clean-up
        out, said = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert network_left(before + said) == []
    assert "wire: stopped by SIGINT. Nothing is left behind" in said.splitlines()
