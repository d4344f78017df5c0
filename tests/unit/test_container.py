from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tfos_job.host import container

ID = "container_1795612120292_0001_01_000002"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container's own folder, as YARN starts a process in it."""
    folder = tmp_path / ID
    (folder / "tmp").mkdir(parents=True)
    monkeypatch.setenv("CONTAINER_ID", ID)
    monkeypatch.setenv("PWD", str(folder))
    monkeypatch.chdir(tmp_path)  # a process below the container's first one may be anywhere
    return folder


def test_outside_a_container_all_is_as_usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOG_DIRS", str(tmp_path))  # somebody else's variable
    assert container.container_id() == ""
    assert container.log_file("ps-0.log") is None
    assert container.log_url("ps-0.log") == ""
    scratch = container.make_scratch(1)
    assert ID not in scratch
    os.rmdir(scratch)


def test_scratch_lies_where_yarn_removes_it(folder: Path) -> None:
    scratch = Path(container.make_scratch(3))
    assert scratch.parent == folder / "tmp"
    assert scratch.name.startswith("tfos_job-3-")


def test_a_socket_fits_where_the_containers_path_is_too_long(folder: Path) -> None:
    long = folder / ("x" * 100)
    long.mkdir()
    for scratch in ("/tmp", str(long)):
        sockets = container.socket_dir(scratch)
        path = os.path.join(sockets, "listener-12345678")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        os.unlink(path)
        if sockets != scratch:
            os.rmdir(sockets)


def test_each_attempt_finds_its_own_part_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.log"
    for attempt in (1, 2):
        with path.open("ab") as log:
            start = container.begin_log(log, attempt)
            log.write(f"of {attempt}\n".encode())
        assert path.read_text()[start:] == f"of {attempt}\n"
    first, _, second, _ = path.read_text().splitlines()
    assert (first.partition(",")[0], second.partition(",")[0]) == ("--- attempt 1", "--- attempt 2")


def test_the_log_is_where_yarn_keeps_it_and_shows_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = folder / "logs"
    logs.mkdir()
    monkeypatch.setenv("LOG_DIRS", f"{folder}/a-disk-that-broke,{logs}")
    assert container.log_file("worker-0.log") == str(logs / "worker-0.log")
    page = f"http://node:8042/node/containerlogs/{ID}/me"
    monkeypatch.setenv("SPARK_LOG_URL_STDERR", f"{page}/stderr?start=-4096")
    assert container.log_url("worker-0.log") == f"{page}/worker-0.log?start=-4096"
