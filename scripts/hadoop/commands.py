"""`scripts/hadoop.py COMMAND`: what a user calls."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import shutil
import time
from pathlib import Path

from .cluster import Cluster
from .configuration import choose_ports, write_conf
from .jars import fetch_jars, java, locked
from .network import Host, Network, choose_subnet, require_rights
from .problem import HadoopError, say
from .processes import resident_mb
from .readiness import hdfs_missing, make_home, wait_until_ready, yarn_missing

_RATE = re.compile(r"[0-9]+(\.[0-9]+)?[kmg]bit|off")


def up(folder: Path, num_hosts: int | None = None) -> None:
    """Starts what is not running, and heals cables; without `num_hosts` with as many hosts as there were."""
    begun = time.monotonic()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "hadoop.json").is_file():
        raise HadoopError(f"{folder} holds something else; name another folder, or an empty one", 78)
    if num_hosts is not None:  # these two before anything is made
        require_rights(num_hosts)
    java()
    jars = fetch_jars()
    was_there = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        cluster = Cluster(folder)
        is_new = not cluster.ports  # also where another `up` was killed early
        try:
            if is_new:
                cluster.num_hosts = num_hosts or 0
            elif num_hosts not in (None, cluster.num_hosts):
                raise HadoopError(
                    f"{folder} has {cluster.num_hosts or 'no'} hosts; `down` first, or another folder", 78
                )
            _connect(cluster)
            if is_new:
                _lay_out(cluster)
            started = _start(cluster, jars, is_new=is_new)
            wait_until_ready(cluster)
            make_home(cluster)
        except BaseException:
            if is_new:
                cluster.end_all()
                _say_what_is_left(folder, was_there=was_there)
            raise
    if started:
        say(f"up after {time.monotonic() - begun:.1f} s (started: {', '.join(started)})")
    else:
        say("up already")


def _connect(cluster: Cluster) -> None:
    """Makes the hosts, where there shall be any and not all of them is there; heals those that are cut off."""
    if not cluster.num_hosts:
        return
    require_rights(cluster.num_hosts)
    if not cluster.subnet:
        cluster.subnet = choose_subnet()
    network = cluster.network
    if not network.is_whole:
        cluster.end_all()
        cluster.save()  # before anything is made, so that `down` knows of it
        network.create()
    for host in network.hosts:
        network.heal(host)


def _lay_out(cluster: Cluster) -> None:
    folder, layout = cluster.folder, cluster.layout
    for name in ("conf", "data", "logs"):  # of an `up` that was killed early
        shutil.rmtree(folder / name, ignore_errors=True)
    ports = choose_ports(layout.daemons, layout.here)
    cluster.ports = ports
    write_conf(folder, cluster.layout)
    cluster.write_names()
    (folder / "data" / "tmp").mkdir()
    cluster.save()


def _start(cluster: Cluster, jars: list[Path], *, is_new: bool) -> list[str]:
    """Starts the daemons that do not run; returns their names."""
    to_start = [daemon for daemon in reversed(cluster.layout.daemons) if cluster.pid(daemon.name) is None]
    for daemon in to_start:  # the NameNode is formatted while the others load their classes
        if daemon.name == "namenode" and is_new:
            cluster.format(jars)
        cluster.start(daemon, jars)
    return [daemon.name for daemon in to_start]


def _say_what_is_left(folder: Path, *, was_there: bool) -> None:
    if (folder / "logs").is_dir():
        say(f"nothing runs; the logs are in {folder}/logs, and `scripts/hadoop.sh down` removes them")
        return
    _remove_files(folder)
    if not was_there:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _remove_files(folder: Path) -> None:
    for name in ("conf", "data", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("log4j2.properties", "hadoop.json.tmp", "hadoop.json", "lock"):
        (folder / name).unlink(missing_ok=True)


def down(folder: Path) -> None:
    """Ends the daemons and removes FOLDER; hosts of its name also where FOLDER is gone, or nothing that it knows."""
    if not (folder / "hadoop.json").is_file():
        Cluster(folder).end_all()
        say(f"nothing in {folder}")
        return
    with locked(folder / "lock"):
        Cluster(folder).end_all()
        _remove_files(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless somebody put something else there
    say(f"down, and {folder} removed" if not folder.exists() else f"down; {folder} holds other files")


def status(folder: Path) -> None:
    cluster = _known(folder)
    dead = _print_daemons(cluster)
    print(f"fs.defaultFS    hdfs://{cluster.layout.at('namenode.rpc')}")
    print(f"conf            {cluster.conf_dir}")
    missing = [f"{host.name} is cut off" for host in _print_hosts(cluster)]
    if dead:
        missing.append(f"not running: {', '.join(dead)}")
    if not missing:  # else they wait for the answer of one that cannot give any
        try:
            missing = [text for text in (hdfs_missing(cluster), yarn_missing(cluster)) if text]
        except (OSError, ValueError, KeyError) as error:
            missing = [f"no answer: {error}"]
    if missing:
        raise HadoopError("; ".join(missing))


def _print_daemons(cluster: Cluster) -> list[str]:
    """Returns the names of those that do not run."""
    total_mb, dead = 0, []
    print(f"{'daemon':<16}{'pid':>8}{'MB':>6}  address")
    for daemon in cluster.layout.daemons:
        pid = cluster.pid(daemon.name)
        used_mb = resident_mb(pid) if pid else 0
        total_mb += used_mb
        if pid is None:
            dead.append(daemon.name)
        address = f"http://{cluster.layout.at(f'{daemon.name}.http')}"
        print(f"{daemon.name:<16}{pid or '-':>8}{used_mb or '-':>6}  {address if pid else 'not running'}")
    print(f"{'':<24}{total_mb:>6}")
    return dead


def _print_hosts(cluster: Cluster) -> list[Host]:
    """Returns those that are cut off."""
    network, cut = cluster.network, []
    if network.hosts and not network.is_whole:
        raise HadoopError("the network of the hosts is gone, as after a restart of this machine: `up` makes it again")
    for host in network.hosts:
        if network.is_cut(host):
            cut.append(host)
        rate = network.mbit_per_second(host)
        limit = "" if rate is None else f", {rate:g} Mbit/s"
        print(f"{host.name:<16}{host.address}  {'cut off' if host in cut else 'connected'}{limit}  {host.namespace}")
    return cut


def env(folder: Path) -> None:
    cluster = _known(folder)
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        print(f"export {name}={shlex.quote(str(cluster.conf_dir))}")


def cut(folder: Path, name: str) -> None:
    network, host = _host(folder, name)
    network.cut(host)
    say(f"{host.name} ({host.address}) is cut off")


def heal(folder: Path, name: str) -> None:
    network, host = _host(folder, name)
    network.heal(host)
    say(f"{host.name} ({host.address}) is connected")


def rate(folder: Path, name: str, limit: str) -> None:
    if not _RATE.fullmatch(limit):
        raise HadoopError(f"{limit!r} is no rate such as 100mbit or 1gbit, nor off", 2)
    network, host = _host(folder, name)
    network.limit(host, limit)
    say(f"{host.name} ({host.address}) has {'no limit' if limit == 'off' else f'{limit}/s in both directions'}")


def _known(folder: Path) -> Cluster:
    cluster = Cluster(folder)
    if not cluster.ports:
        raise HadoopError(f"nothing in {folder}; `scripts/hadoop.sh up` first")
    return cluster


def _host(folder: Path, name: str) -> tuple[Network, Host]:
    cluster = _known(folder)
    if not cluster.num_hosts:
        raise HadoopError(f"{folder} has no hosts; `scripts/hadoop.sh up --hosts 3` makes some")
    require_rights(cluster.num_hosts)
    host = cluster.network.find(name)
    if not cluster.network.is_whole:
        raise HadoopError("the network of the hosts is gone; `scripts/hadoop.sh up` makes it again")
    return cluster.network, host


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="scripts/hadoop.sh", description="A real Hadoop on this machine alone.")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    default = Path(__file__).resolve().parents[2] / ".hadoop"
    for name, words, text in (
        ("up", (), "start what is not running, and wait until all of it is ready"),
        ("down", (), "end it, and remove FOLDER"),
        ("status", (), "a table; exit code 0 where all of it is ready, else 69"),
        ("env", (), "what to set in a shell"),
        ("cut", ("host",), "cut a host off: host2, or its address"),
        ("heal", ("host",), "connect it again"),
        ("rate", ("host", "rate"), "limit its cable to 100mbit, 1gbit, …; `off` ends that"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        for word in words:
            command.add_argument(word, metavar=word.upper())
        if name == "up":
            command.add_argument("--hosts", type=int, help="that many hosts with addresses of their own; needs root")
        command.add_argument("folder", nargs="?", type=Path, default=default, metavar="FOLDER", help="default: .hadoop")
    return made


def _run(options: argparse.Namespace) -> None:
    folder = options.folder.resolve()
    match options.command:
        case "up":
            up(folder, options.hosts)
        case "down":
            down(folder)
        case "status":
            status(folder)
        case "env":
            env(folder)
        case "cut":
            cut(folder, options.host)
        case "heal":
            heal(folder, options.host)
        case "rate":
            rate(folder, options.host, options.rate)


def main() -> int:
    try:
        _run(parser().parse_args())
    except HadoopError as error:
        say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0
