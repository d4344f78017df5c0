"""Whether the daemons are ready, by what they say of themselves."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable

from .cluster import UP_TIMEOUT_S, Cluster
from .problem import HadoopError


def hdfs_missing(cluster: Cluster) -> str:
    """What HDFS still lacks; empty where it is ready."""
    (state,) = cluster.http("namenode", "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState")["beans"]
    (info,) = cluster.http("namenode", "/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo")["beans"]
    datanodes = cluster.layout.datanodes
    if (live := state["NumLiveDataNodes"]) < len(datanodes):
        return f"{live} of {len(datanodes)} DataNodes live"
    # The NameNode takes a dead DataNode for a live one for a while: ask those as well.
    for daemon in datanodes:
        (node,) = cluster.http(daemon.name, "/jmx?qry=Hadoop:service=DataNode,name=DataNodeInfo")["beans"]
        if any(actor["ActorState"] != "RUNNING" for actor in json.loads(node["BPServiceActorInfo"])):
            return f"{daemon.name} is not registered"
    return "safe mode" if info["Safemode"] else ""


def yarn_missing(cluster: Cluster) -> str:
    """What YARN still lacks; empty where it is ready."""
    nodes = (cluster.http("resourcemanager", "/ws/v1/cluster/nodes")["nodes"] or {}).get("node", [])
    for daemon in cluster.layout.nodemanagers:
        mine = f":{cluster.ports[f'{daemon.name}.rpc']}"  # behind the name that this machine has for 127.0.0.1
        states = [node["state"] for node in nodes if node["id"].endswith(mine)]
        if "RUNNING" not in states:
            return f"{daemon.name} {states[0] if states else 'not registered'}"
        if not cluster.http(daemon.name, "/ws/v1/node/info")["nodeInfo"]["nodeHealthy"]:
            return f"{daemon.name} unhealthy"
    return ""


def wait_until_ready(cluster: Cluster) -> None:
    layout = cluster.layout
    checks: list[tuple[list[str], Callable[[Cluster], str]]] = [
        (["namenode", *(daemon.name for daemon in layout.datanodes)], hdfs_missing),
        (["resourcemanager", *(daemon.name for daemon in layout.nodemanagers)], yarn_missing),
    ]
    deadline = time.monotonic() + UP_TIMEOUT_S
    for names, check in checks:
        missing = ""
        while True:
            for name in names:
                if cluster.pid(name) is None:
                    raise HadoopError(f"the {name} ended\n{cluster.log_tail(name)}")
            try:
                missing = check(cluster)
                if not missing:
                    break
            except (OSError, ValueError, KeyError) as error:  # not listening yet, or not all of it there yet
                missing = f"no answer from all of {', '.join(names)}: {error}"
            if time.monotonic() > deadline:
                tails = "\n".join(cluster.log_tail(name) for name in names)
                raise HadoopError(f"not ready after {UP_TIMEOUT_S} s: {missing}\n{tails}")
            time.sleep(0.2)


def make_home(cluster: Cluster) -> None:
    """`/tmp` for everybody and a home for the user, as a cluster's administrator makes them."""
    user = getpass.getuser()
    for path, permission in (("/tmp", "1777"), ("/user", "755"), (f"/user/{user}", "755")):
        cluster.http("namenode", f"/webhdfs/v1{path}?op=MKDIRS&permission={permission}&user.name={user}", method="PUT")
