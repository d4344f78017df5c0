"""Hosts of scripts/hadoop.sh: their names, addresses and views, without a network; tests/hadoop has the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.hadoop import commands
from scripts.hadoop.layout import Layout, daemons_of
from scripts.hadoop.network import MAX_HOSTS, Network, require_rights
from scripts.hadoop.problem import HadoopError
from scripts.hadoop.view import View

FOLDER = Path("/home/me/.hadoop")


def test_names_follow_from_the_folder_and_fit() -> None:
    network, again, other = (Network(folder, "10.70.1", MAX_HOSTS) for folder in (FOLDER, FOLDER, Path("/other")))
    assert network.hosts == again.hosts
    links = [network.bridge, *(host.link for host in network.hosts)]
    assert all(len(link) <= 15 for link in links)  # the kernel's limit
    assert len({*links, other.bridge, *(host.link for host in other.hosts)}) == 2 * len(links)
    assert network.find("host2") is network.find("10.70.1.12") is network.hosts[1]
    with pytest.raises(HadoopError, match=r"no host 'host0'; there are host1 \(10\.70\.1\.11\)") as caught:
        network.find("host0")
    assert caught.value.exit_code == 2


def test_each_host_has_a_nodemanager_and_a_datanode() -> None:
    daemons = daemons_of(3)
    ports = {f"{daemon.name}.{purpose}": 1 for daemon in daemons for purpose in daemon.ports}
    layout = Layout(daemons, ports, "10.70.1.1", ["10.70.1.11", "10.70.1.12", "10.70.1.13"])
    assert {daemon.name: layout.address(daemon.name) for daemon in daemons} == {
        "namenode": "10.70.1.1",
        "resourcemanager": "10.70.1.1",
        **{f"{kind}{number}": f"10.70.1.1{number}" for kind in ("datanode", "nodemanager") for number in (1, 2, 3)},
    }
    assert [daemon.name for daemon in daemons_of(0)] == [
        *("namenode", "datanode1", "datanode2", "resourcemanager", "nodemanager")
    ]


def test_a_command_without_a_view_of_its_own_is_left_as_it_is() -> None:
    assert View().command(["java", "-version"]) == ["java", "-version"]


def test_a_view_hides_names_and_binds_in_this_order() -> None:
    view = View(
        namespace=Path("/run/netns/n"), host_name="10.70.1.11", binds={Path("/etc/hosts"): Path("/x y")}, hidden=["/py"]
    )
    *enter, script = view.command(["echo", "a b"])
    assert enter[:2] == ["nsenter", "--net=/run/netns/n"]
    lines = script.splitlines()
    assert lines[0] == "set -e"
    assert lines[1:3] == ["echo 10.70.1.11 > /proc/sys/kernel/hostname", "mount --bind '/x y' /etc/hosts"]
    assert "mount -t tmpfs" in lines[3]
    assert lines[-1] == "exec echo 'a b'"
    subprocess.run(["sh", "-n", "-c", script], check=True)


def test_without_root_one_sentence_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "hadoop"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["hadoop.py", "up", "--hosts", "3", str(folder)])
    assert commands.main() == 69
    assert capsys.readouterr().err.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize("number", [0, MAX_HOSTS + 1])
def test_the_number_of_hosts_has_a_range(number: int) -> None:
    with pytest.raises(HadoopError, match=f"from 1 to {MAX_HOSTS}"):
        require_rights(number)
