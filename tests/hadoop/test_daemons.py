"""What scripts/hadoop.sh starts is what a job needs to find."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.hadoop


def test_yarn_has_two_queues_and_counts_gpus(hadoop) -> None:
    queues = hadoop.rest("/ws/v1/cluster/scheduler")["scheduler"]["schedulerInfo"]["queues"]["queue"]
    assert {queue["queueName"]: queue["state"] for queue in queues} == {"default": "RUNNING", "gpu": "RUNNING"}
    (node,) = hadoop.rest("/ws/v1/cluster/nodes")["nodes"]["node"]
    assert node["state"] == "RUNNING"
    resources = {entry["name"]: entry["value"] for entry in _resources(node["totalResource"])}
    assert resources["yarn.io/gpu"] == 4


def _resources(total: dict) -> list[dict]:
    entries = total["resourceInformations"]["resourceInformation"]
    return entries if isinstance(entries, list) else [entries]


def test_status_says_who_runs_and_env_where_the_configuration_is(hadoop) -> None:
    status = hadoop.run("status").stdout
    assert all(f"{name} " in status for name in ("namenode", "datanode1", "datanode2", "resourcemanager"))
    assert hadoop.run("env").stdout.splitlines()[0] == f"export HADOOP_CONF_DIR={hadoop.conf_dir}"


def test_a_second_up_starts_nothing(hadoop) -> None:
    before = hadoop.state
    assert "up already" in hadoop.run("up").stderr
    assert hadoop.state == before


def test_no_daemon_listens_on_an_outer_address(hadoop) -> None:
    addresses = {
        connection.laddr.ip
        for daemon in hadoop.state["daemons"]
        for connection in psutil.Process(hadoop.pid(daemon)).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_all_of_it_is_small(hadoop) -> None:
    resident_bytes = sum(psutil.Process(hadoop.pid(daemon)).memory_info().rss for daemon in hadoop.state["daemons"])
    assert resident_bytes < 1.5e9


def test_a_folder_with_something_else_in_it_is_left_alone(hadoop, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    stranger = type(hadoop)(tmp_path)
    assert stranger.run("up", check=False).returncode == 78
    assert stranger.run("down", check=False).returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
