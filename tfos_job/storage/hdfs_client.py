"""Which NameNodes an `hdfs://` or `viewfs://` URL means, and hdfs-native's client of them.

Where `hdfs://AUTHORITY/` leads is Hadoop's business: a name service or a mount table of the configuration, else
`host:port`; without an authority it is the file system of fs.defaultFS. hdfs-native does that, with gaps that are
closed here: it is given the properties as Hadoop would read them, a host without a port has Hadoop's default one, and a
mount table need not have a linkFallback.
"""

from __future__ import annotations

import functools
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfos_job import hadoop_conf
from tfos_job.errors import SettingsError
from tfos_job.storage.error_mapping import described_conf_dir
from tfos_job.storage.urls import canonical

_DEFAULT_PORT = 8020
_SOCKET_TIMEOUT = "dfs.client.socket-timeout"
_MAX_SOCKET_TIMEOUT_MS = 10_000  # of a DataNode that says nothing: with Hadoop's 60 s there would be one other try
_NOWHERE = "hdfs://127.0.0.1:1/"  # hdfs-native insists on a linkFallback; no path is let through to this one
_URL = re.compile(r"(?P<scheme>\w+)://(?P<authority>[^/]*)(?P<path>.*)", re.DOTALL)


@dataclass(frozen=True)
class FileSystem:
    """A client, and the mount points that paths must be under; None where every path is good."""

    client: Any
    root: str
    mounts: tuple[str, ...] | None = None

    def path(self, url: str) -> str:
        """The path in a URL.

        Raises:
          SettingsError: the URL is of another file system, or under no mount point.
        """
        if root_of(url) != self.root:
            raise SettingsError(
                f"on another file system than {self.root}",
                place=url,
                next_step="A rename needs both URLs to begin alike: write beside the target",
            )
        path = hdfs_path(url)
        if self.mounts is not None and not any(path == mount or path.startswith(f"{mount}/") for mount in self.mounts):
            raise SettingsError(
                f"under no mount point of {self.root}, which has {', '.join(self.mounts)}",
                place=url,
                next_step=f"Check the path, and fs.viewfs.mounttable in {described_conf_dir()}",
            )
        return path


def root_of(url: str) -> str:
    match = _URL.fullmatch(canonical(url))
    assert match is not None, url
    return f"{match['scheme']}://{match['authority']}"


def hdfs_path(url: str) -> str:
    """The path in a URL, which is not percent-decoded and may hold `#` and `?`."""
    return "/" + canonical(url).partition("://")[2].partition("/")[2]


def connect(url: str) -> FileSystem:
    """The file system of a URL; nothing is asked of a NameNode yet."""
    _use_localised_conf()
    # A client of another process, from before a fork, has none of its threads here.
    return _connect(root_of(url), os.environ.get("HADOOP_CONF_DIR"), os.getpid())


@functools.lru_cache(maxsize=64)
def _connect(root: str, conf_dir: str | None, pid: int) -> FileSystem:
    """One client a file system, for all threads."""
    from hdfs_native import Client  # only those who use HDFS pay for it

    settings = _settings()
    try:
        return FileSystem(Client(f"{root}/", settings), root)
    except RuntimeError as error:
        text = str(error)
        if "No fs.defaultFS setting found" in text or "URL must contain a host" in text:
            scheme = root.partition(":")[0]
            raise SettingsError(
                f"names no NameNode, and there is no fs.defaultFS with {scheme}:// to say which one is meant",
                place=f"{root}/",
                next_step=f"Give {scheme}://HOST:PORT/…, or the folder of such a core-site.xml in "
                + described_conf_dir(),
            ) from error
        if "No NameNode hosts found" in text:
            return FileSystem(Client(f"hdfs://{_host(root, settings)}:{_DEFAULT_PORT}/", settings), root)
        if "No viewfs fallback mount found" in text:
            table = f"fs.viewfs.mounttable.{_authority(root, settings)}."
            mounts = _mounts(root, table, settings)
            return FileSystem(Client(f"{root}/", settings | {f"{table}linkFallback": _NOWHERE}), root, mounts)
        raise


def _host(root: str, settings: dict[str, str]) -> str:
    """The authority of a URL that is no name service: it must be a host."""
    host = _authority(root, settings)
    try:
        socket.getaddrinfo(host, _DEFAULT_PORT)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise
        raise SettingsError(
            "neither a name service of Hadoop's configuration nor a host",
            place=f"hdfs://{host}",
            next_step=f"Check the name and {described_conf_dir()}",
        ) from error
    return host


def _mounts(root: str, table: str, settings: dict[str, str]) -> tuple[str, ...]:
    prefix = f"{table}link."
    mounts = tuple(sorted(name.removeprefix(prefix) for name in settings if name.startswith(prefix)))
    if not mounts:
        raise SettingsError(
            "no mount table of Hadoop's configuration has this name",
            place=f"{root}/",
            next_step=f"Check the name, and fs.viewfs.mounttable in {described_conf_dir()}",
        )
    return mounts


def _authority(root: str, settings: dict[str, str]) -> str:
    return root.partition("://")[2] or root_of(settings["fs.defaultFS"]).partition("://")[2]


def _settings() -> dict[str, str]:
    """Hadoop's properties, and how long a DataNode may be silent."""
    folder = os.environ.get("HADOOP_CONF_DIR") or Path(os.environ.get("HADOOP_HOME", ""), "etc/hadoop")
    found = hadoop_conf.read_settings(*(Path(folder, name) for name in ("core-site.xml", "hdfs-site.xml")))
    configured = found.get(_SOCKET_TIMEOUT, "")
    timeout_ms = int(configured) if configured.isdecimal() else 0
    return found | {_SOCKET_TIMEOUT: str(min(timeout_ms or _MAX_SOCKET_TIMEOUT_MS, _MAX_SOCKET_TIMEOUT_MS))}


def _use_localised_conf() -> None:
    """In a YARN container without HADOOP_CONF_DIR: the copy of the configuration that Spark has put there."""
    localised = os.path.abspath("__spark_conf__/__hadoop_conf__")
    if not os.environ.get("HADOOP_CONF_DIR") and os.path.isdir(localised):
        os.environ["HADOOP_CONF_DIR"] = localised
