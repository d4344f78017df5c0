"""HADOOP_CONF_DIR: the settings that all daemons share, and those that are one daemon's own."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from .layout import Daemon, Layout
from .problem import HadoopError

NUM_REPLICAS = 2
NUM_GPUS = 4  # counted by YARN on each of its nodes; there need not be any
_SCHEDULER = "org.apache.hadoop.yarn.server.resourcemanager.scheduler.capacity.CapacityScheduler"
_STATE_STORE = "org.apache.hadoop.yarn.server.resourcemanager.recovery.FileSystemRMStateStore"
_CALCULATOR = "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator"


def choose_ports(daemons: Sequence[Daemon], address: str) -> dict[str, int]:
    """A free port for each purpose, below the range from which the system takes those of outgoing connections."""
    with contextlib.ExitStack() as held:
        ports = {}
        for daemon in daemons:
            for purpose in daemon.ports:
                listener = held.enter_context(socket.socket())
                for candidate in random.sample(range(15000, 32000), 200):
                    with contextlib.suppress(OSError):
                        listener.bind((address, candidate))
                        break
                else:
                    raise HadoopError("no free port between 15000 and 32000")
                ports[f"{daemon.name}.{purpose}"] = listener.getsockname()[1]
    return ports


def write_xml(path: Path, settings: dict[str, object]) -> None:
    lines = [
        f" <property><name>{escape(k)}</name><value>{escape(str(v))}</value></property>" for k, v in settings.items()
    ]
    path.write_text("\n".join(['<?xml version="1.0"?>', "<configuration>", *lines, "</configuration>", ""]), "utf-8")


def node_memory_mb(num_nodes: int) -> int:
    """Two thirds of the memory there is, for the containers of all nodes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 2 // 3 // num_nodes >> 20


def write_conf(folder: Path, layout: Layout) -> None:
    conf = folder / "conf"
    for each in (conf, folder / "data", folder / "logs"):
        each.mkdir(parents=True)
    hdfs, yarn = _hdfs(folder, layout), _yarn(folder, layout)
    write_xml(conf / "core-site.xml", _core(folder, layout))
    write_xml(conf / "hdfs-site.xml", hdfs)
    write_xml(conf / "yarn-site.xml", yarn)
    write_xml(conf / "capacity-scheduler.xml", _queues(layout))
    write_xml(conf / "resource-types.xml", {"yarn.resource-types": "yarn.io/gpu"})
    write_xml(conf / "node-resources.xml", {"yarn.nodemanager.resource-type.yarn.io/gpu": NUM_GPUS})
    # On a daemon's class path the folder of its name comes before conf/: what differs between those of a kind.
    for daemon in layout.datanodes:
        (conf / daemon.name).mkdir()
        write_xml(conf / daemon.name / "hdfs-site.xml", hdfs | _datanode(folder, layout, daemon))
    for daemon in layout.nodemanagers:
        (conf / daemon.name).mkdir()
        write_xml(conf / daemon.name / "yarn-site.xml", yarn | _nodemanager(folder, layout, daemon))
    # Not in conf/: Spark would take it for its own, since HADOOP_CONF_DIR is on its class path.
    (folder / "log4j2.properties").write_text(
        "appender.console.type=Console\nappender.console.name=console\nappender.console.layout.type=PatternLayout\n"
        "appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n\n"
        "rootLogger.level=info\nrootLogger.appenderRef.console.ref=console\n"
    )


def _core(folder: Path, layout: Layout) -> dict[str, object]:
    return {
        "fs.defaultFS": f"hdfs://{layout.at('namenode.rpc')}",
        "hadoop.tmp.dir": folder / "data" / "tmp",
        # DataNodes are told to come back within seconds after the NameNode was away.
        "ipc.client.connect.max.retries": 60,
        "ipc.client.connect.retry.interval": 500,
    }


def _hdfs(folder: Path, layout: Layout) -> dict[str, object]:
    return {
        "dfs.replication": min(NUM_REPLICAS, len(layout.datanodes)),
        "dfs.namenode.rpc-address": layout.at("namenode.rpc"),
        "dfs.namenode.http-address": layout.at("namenode.http"),
        "dfs.namenode.name.dir": f"file://{folder}/data/namenode",
        "dfs.namenode.safemode.extension": 500,
        "dfs.namenode.safemode.min.datanodes": 1,
        "dfs.namenode.datanode.registration.ip-hostname-check": "false",
        "dfs.namenode.fs-limits.min-block-size": 65536,  # so that a test can fill several blocks quickly
        "dfs.namenode.delegation.token.always-use": "true",  # it gives tokens, and asks nobody for one
        "dfs.namenode.handler.count": 4,
        "dfs.datanode.handler.count": 3,
        # As everywhere, the NameNode takes ten minutes to believe that a DataNode is dead.
        "dfs.heartbeat.interval": 1,
        "dfs.client.use.datanode.hostname": "false",
    }


def _datanode(folder: Path, layout: Layout, daemon: Daemon) -> dict[str, object]:
    name = daemon.name
    return {
        **({"dfs.datanode.hostname": layout.address(name)} if daemon.host else {}),
        "dfs.datanode.address": layout.at(f"{name}.data"),
        "dfs.datanode.ipc.address": layout.at(f"{name}.ipc"),
        "dfs.datanode.http.address": layout.at(f"{name}.http"),
        "dfs.datanode.data.dir": f"file://{folder}/data/{name}",
    }


def _yarn(folder: Path, layout: Layout) -> dict[str, object]:
    memory_mb = node_memory_mb(len(layout.nodemanagers))
    return {
        "yarn.resourcemanager.hostname": layout.here,
        "yarn.resourcemanager.address": layout.at("resourcemanager.client"),
        "yarn.resourcemanager.scheduler.address": layout.at("resourcemanager.scheduler"),
        "yarn.resourcemanager.resource-tracker.address": layout.at("resourcemanager.tracker"),
        "yarn.resourcemanager.admin.address": layout.at("resourcemanager.admin"),
        "yarn.resourcemanager.webapp.address": layout.at("resourcemanager.http"),
        "yarn.resourcemanager.scheduler.class": _SCHEDULER,
        "yarn.resourcemanager.nodemanagers.heartbeat-interval-ms": 250,
        # As on most clusters: applications outlive a ResourceManager that is started again.
        "yarn.resourcemanager.recovery.enabled": "true",
        "yarn.resourcemanager.store.class": _STATE_STORE,
        "yarn.resourcemanager.fs.state-store.uri": f"file://{folder}/data/resourcemanager",
        # After its end an application's logs are on HDFS, for `yarn logs`.
        "yarn.log-aggregation-enable": "true",
        "yarn.nodemanager.remote-app-log-dir": "/tmp/logs",
        "yarn.nodemanager.resource.memory-mb": memory_mb,
        "yarn.nodemanager.resource.cpu-vcores": 16,  # accounting, not cores
        "yarn.nodemanager.vmem-check-enabled": "false",
        "yarn.nodemanager.pmem-check-enabled": "true",
        # By default YARN leaves the limit to cgroups, whether or not it uses them, and then nobody enforces it.
        "yarn.nodemanager.resource.memory.enforced": "false",
        # A disk that is 90 % full is no reason for a node of a single machine to be UNHEALTHY.
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": 99.5,
        "yarn.scheduler.minimum-allocation-mb": 128,
        "yarn.scheduler.maximum-allocation-mb": memory_mb,
        "yarn.scheduler.maximum-allocation-vcores": 16,
    }


def _nodemanager(folder: Path, layout: Layout, daemon: Daemon) -> dict[str, object]:
    name = daemon.name
    settings: dict[str, object] = {
        "yarn.nodemanager.hostname": layout.address(name),
        "yarn.nodemanager.address": layout.at(f"{name}.rpc"),
        "yarn.nodemanager.localizer.address": layout.at(f"{name}.localizer"),
        "yarn.nodemanager.collector-service.address": layout.at(f"{name}.collector"),
        "yarn.nodemanager.webapp.address": layout.at(f"{name}.http"),
        "yarn.nodemanager.local-dirs": folder / "data" / name,
        # Absolute, else containers die with "Stdout path must be absolute".
        "yarn.nodemanager.log-dirs": folder / "logs" / name.replace("nodemanager", "userlogs"),
    }
    if daemon.host:  # else it calls itself what some resolver says of its address
        settings["yarn.nodemanager.bind-host"] = layout.address(name)
    return settings


def _queues(layout: Layout) -> dict[str, object]:
    settings: dict[str, object] = {"yarn.scheduler.capacity.root.queues": "default,gpu"}
    for queue in ("default", "gpu"):
        settings |= {
            f"yarn.scheduler.capacity.root.{queue}.capacity": 50,
            f"yarn.scheduler.capacity.root.{queue}.maximum-capacity": 100,
            f"yarn.scheduler.capacity.root.{queue}.user-limit-factor": 2,
        }
    settings |= {
        # Drivers hold parameter servers and coordinators: most of a small job is its ApplicationMaster.
        "yarn.scheduler.capacity.maximum-am-resource-percent": 1.0,
        "yarn.scheduler.capacity.resource-calculator": _CALCULATOR,
    }
    if layout.hosts:  # the containers of a small job are spread over the hosts, as where there are hundreds of jobs
        settings["yarn.scheduler.capacity.per-node-heartbeat.multiple-assignments-enabled"] = "false"
    return settings
