"""What a Spark on this host listens on, and what strangers get there. The JVM is one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import is_alive
from tests.unit.waits import wait_until
from tfos_job.driver import local_spark

PROGRAM = """
import contextlib, json, os, signal, socket, stat, struct, sys
import psutil
from tfos_job.driver import session


def ask(port, frame):
    # Spark's transport: a length, a type and what belongs to it; what comes first, whatever it is
    with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) as stranger:
        stranger.settimeout(600)
        stranger.sendall(struct.pack(">q", 8 + len(frame)) + frame)
        return stranger.recv(4096).decode("utf-8", "replace")


def look(master):
    with session.open_session("test", master) as spark:
        context = spark.sparkContext
        total = context.accumulator(0)
        context.parallelize(range(4), 2).foreach(total.add)
        conf = dict(context.getConf().getAll())
        secret = conf.get("spark.authenticate.secret", "")
        folder = conf["spark.python.unix.domain.socket.dir"]
        found = {"total": total.value, "secret": len(secret), "listening": [], "told": [], "folder": folder}
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # the worker of a task has ended
                listening = [it for it in process.net_connections("inet") if it.status == psutil.CONN_LISTEN]
                found["listening"] += [(process.name(), it.laddr.ip) for it in listening]
                found["told"] += [process.pid] if secret and secret in " ".join(process.cmdline()) else []
                if process.name() == "java":
                    found.setdefault("jvm", process.pid)
        found["mode"] = stat.S_IMODE(os.stat(folder).st_mode)
        found["num_sockets"] = len(os.listdir(folder))
        rpc = b"\\3" + struct.pack(">qi", 7, 4) + b"what"
        found["answer"] = ask(int(conf["spark.driver.port"]), rpc)
        print(json.dumps(found), flush=True)
        if master.startswith("local["):
            os.kill(os.getpid(), signal.SIGKILL)


for master in sys.argv[1:]:
    look(master)
"""


@pytest.fixture
def seen(tmp_path: Path) -> list[dict[str, Any]]:
    """Of separate executors, and of one process that is killed in the same driver afterwards."""
    command = [sys.executable, "-c", PROGRAM, "local-cluster[1,1,1024]", "local[2]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": "/tmp"})
    assert done.returncode < 0, done.stderr
    assert len(done.stdout.splitlines()) == 2, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def has_ended(pid: int) -> bool:
    try:
        return not is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def test_spark_on_this_host_hears_nobody_without_a_key(seen: list[dict[str, Any]]) -> None:
    for each in seen:
        assert each["total"] == 6
        assert {name for name, _ in each["listening"]} == {"java"}  # Python's sockets are files
        assert {address.removeprefix("::ffff:") for _, address in each["listening"]} == {"127.0.0.1"}
        assert each["mode"] == 0o700
        assert each["num_sockets"] > 0
        assert "Unknown challenge" in each["answer"]
        assert each["told"] == []
    cluster, local = seen
    assert len(local["listening"]) == 3  # py4j, the driver's RPC and its block manager
    assert (cluster["secret"], local["secret"]) == (64, 0)
    wait_until(lambda: has_ended(local["jvm"]))
    assert not any(os.path.exists(each["folder"]) for each in seen)


def test_the_folder_of_the_sockets_has_a_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path has at most 107 bytes."""
    monkeypatch.setattr(local_spark, "_sockets", "")
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    settings = local_spark.guards("local[2]")
    folder = Path(settings["spark.python.unix.domain.socket.dir"])
    assert folder.parent == Path("/tmp")
    assert list(long.iterdir()) == []
    keys = [local_spark.guards("local-cluster[1,1,1024]")["spark.authenticate.secret"] for _ in range(2)]
    assert keys[0] != keys[1]
    assert local_spark.guards("local[2]") == settings  # no key, and the same folder
    folder.rmdir()
    local_spark.guards("local[2]")
    Path(local_spark._sockets).rmdir()
