"""Hosts of scripts/hadoop.sh that are cut off, healed and slowed down; and a training that loses its worker's host.

tests/campaigns/hosts.py does more to such trainings.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hadoop.conftest import HADOOP, upload
from tests.hadoop.hosted import HostedHadoop, obstacle
from tests.hadoop.hosted_training import HostedTraining
from tfos_job.driver.local_spark import JAVA_OPTIONS

pytestmark = pytest.mark.hadoop

ANSWER_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedHadoop]:
    """Three hosts, for all tests of this file; HADOOP_CONF_DIR points to them."""
    if missing := obstacle():
        pytest.skip(f"no hosts of their own on this machine: {missing}")
    cluster = HostedHadoop(tmp_path_factory.mktemp("hosts"))
    with pytest.MonkeyPatch.context() as environ:
        try:
            cluster.up()
            environ.setenv("HADOOP_CONF_DIR", str(cluster.conf_dir))
            environ.setenv("SPARK_SUBMIT_OPTS", JAVA_OPTIONS)
            yield cluster
        finally:
            cluster.run("down")
            assert not cluster.folder.exists()
            assert traces(cluster.folder) == []


@pytest.fixture(autouse=True)
def whole(hosted: HostedHadoop) -> Iterator[None]:
    """No cable stays cut or slow after a test."""
    yield
    for host in hosted.hosts:
        hosted.heal(host)
        hosted.rate(host, "off")


def traces(folder: Path) -> list[str]:
    """Links and namespaces of a cluster's hosts that are there."""
    network = HostedHadoop.network_of(folder)
    links = [name for _, name in socket.if_nameindex() if name.startswith(network.bridge)]
    return [*links, *network.namespaces()]


def answers(hosted: HostedHadoop, host: str) -> bool:
    port = hosted.state["ports"][f"datanode{hosted.hosts.index(host) + 1}.data"]
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_host_is_cut_off_alone_and_healed(hosted: HostedHadoop) -> None:
    _, second, third = hosted.hosts
    hosted.cut(second)
    assert [answers(hosted, host) for host in hosted.hosts] == [True, False, True]
    status = hosted.run("status", check=False)
    assert status.returncode == 69
    assert "host2 is cut off" in status.stderr
    hosted.run("heal", "host2")
    while not answers(hosted, second):  # as a switch, the bridge learns where everybody is
        time.sleep(0.1)
    assert f"{third}  connected" in hosted.run("status").stdout
    assert hosted.run("cut", "host4", check=False).returncode == 2


def test_a_cable_lets_no_more_through_than_its_rate(hosted: HostedHadoop) -> None:
    host = hosted.hosts[0]
    hosted.rate(host, "20mbit")
    assert "connected, 20 Mbit/s" in hosted.run("status").stdout
    num_bytes = 4_000_000
    program = f"import socket, sys; socket.create_connection(sys.argv[1:]).sendall(bytes({num_bytes}))"
    command = ["nsenter", f"--net=/proc/{hosted.pid('nodemanager1')}/ns/net", "python3", "-c", program]
    with socket.create_server((hosted.here, 0)) as server:
        began_s = time.monotonic()
        with subprocess.Popen([*command, hosted.here, str(server.getsockname()[1])]):
            receiver, _ = server.accept()
            with receiver:
                received = sum(len(block) for block in iter(lambda: receiver.recv(1 << 16), b""))
        took_s = time.monotonic() - began_s
    assert received == num_bytes
    assert took_s > (num_bytes - 262_144) * 8 / 20e6  # the bucket lets 256 KiB pass at once
    assert hosted.run("rate", "host1", "fast", check=False).returncode == 2


def test_an_up_that_was_killed_is_taken_down_and_its_neighbour_goes_on(hosted: HostedHadoop, tmp_path: Path) -> None:
    killed = HostedHadoop(tmp_path / "killed")
    up = subprocess.Popen([*HADOOP, "up", "--hosts", "3", str(killed.folder)], stderr=subprocess.DEVNULL)
    try:
        while len(killed.daemons()) < 2:
            assert up.poll() is None
            time.sleep(0.02)
    finally:
        up.kill()
        up.wait()
    assert len(traces(killed.folder)) > 3
    killed.run("down")
    assert traces(killed.folder) == []
    assert not killed.folder.exists()
    assert all(answers(hosted, host) for host in hosted.hosts)


def test_without_the_rights_one_sentence_says_so_and_nothing_is_left(hosted: HostedHadoop, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    for command, words in (
        (["setpriv", "--bounding-set=-net_admin,-sys_admin"], "not permitted"),
        (["env", "PATH=/nowhere"], "needs ip, tc, nsenter, unshare"),
    ):
        done = subprocess.run(
            [*command, *HADOOP, "up", "--hosts", "3", str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 69, done.stderr
        (line,) = done.stderr.splitlines()
        assert words in line
        assert not folder.exists()
        assert traces(folder) == []


def test_a_training_that_loses_its_workers_host_goes_on_elsewhere(
    hosted: HostedHadoop, small_dataset: Path, tmp_path: Path
) -> None:
    """The DataNode there is gone with it: shards are read, and checkpoints written, without."""
    dataset = upload(small_dataset, f"{hosted.url}/small/dataset")
    training = HostedTraining(hosted, dataset, f"{hosted.url}/run")
    try:
        training.wait_for_checkpoint()
        found = training.disturb("worker")
    finally:
        training.command.end()
    assert found["error"] is None, found
    hosted.heal(found["cut"])
    assert hosted.left_behind(ANSWER_TIMEOUT_S) == ""
