"""hdfs-native's client for the NameNodes of an `hdfs://` or `viewfs://` URL.

Hadoop's rules apply: the authority of a URL is a name service or a mount table of the configuration, else `host:port`;
without an authority the URL means the file system of fs.defaultFS. hdfs-native implements this with gaps, which this
module closes: it passes the properties as Hadoop reads them, adds Hadoop's default port to a host, and accepts a mount
table without a linkFallback.
"""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfos_job import hadoop_conf
from tfos_job.errors import SettingsError
from tfos_job.storage.error_mapping import described_conf_dir
from tfos_job.storage.urls import canonical

_DEFAULT_PORT = 8020
_SOCKET_TIMEOUT = "dfs.client.socket-timeout"
_MAX_SOCKET_TIMEOUT_MS = 10_000  # for a silent DataNode: Hadoop's 60 s would leave time for one other try
_UMASK = "fs.permissions.umask-mode"
_BITS = {"r": 4, "w": 2, "x": 1}
_OTHERS_WRITE = 0o002
_NOWHERE = "hdfs://127.0.0.1:1/"  # hdfs-native requires a linkFallback; `FileSystem.path` lets no path through to it
_URL = re.compile(r"(?P<scheme>\w+)://(?P<authority>[^/]*)(?P<path>.*)", re.DOTALL)


@dataclass(frozen=True)
class FileSystem:
    """A client of a file system.

    Attributes:
      mounts: the mount points that its paths must be under; None: every path is valid.
      umask: the bits that new files and folders do not get.
    """

    client: Any
    root: str
    mounts: tuple[str, ...] | None = None
    umask: int = 0o022

    def path(self, url: str) -> str:
        """Returns the path of a URL.

        Raises:
          SettingsError: the URL belongs to another file system, or is under no mount point.
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
    """Returns the path of a URL, not percent-decoded; it may contain `#` and `?`."""
    return "/" + canonical(url).partition("://")[2].partition("/")[2]


def connect(url: str) -> FileSystem:
    """Returns the file system of a URL, without a call to a NameNode."""
    _use_localised_conf()
    # After a fork the parent's client has no threads in this process, so the pid is part of the key.
    return _connect(root_of(url), os.environ.get("HADOOP_CONF_DIR"), os.getpid())


@functools.lru_cache(maxsize=64)
def _connect(root: str, conf_dir: str | None, pid: int) -> FileSystem:
    """Returns the client of a file system, one for all threads."""
    from hdfs_native import Client  # slow to import, and needed for HDFS alone

    settings = _settings()
    umask = umask_of(settings)
    try:
        return FileSystem(Client(f"{root}/", settings), root, umask=umask)
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
            return FileSystem(Client(f"hdfs://{_host(root, settings)}:{_DEFAULT_PORT}/", settings), root, umask=umask)
        if "No viewfs fallback mount found" in text:
            table = f"fs.viewfs.mounttable.{_authority(root, settings)}."
            mounts = _mounts(root, table, settings)
            return FileSystem(Client(f"{root}/", settings | {f"{table}linkFallback": _NOWHERE}), root, mounts, umask)
        raise


def _host(root: str, settings: dict[str, str]) -> str:
    """Returns the authority of a URL that is no name service; it must be a host."""
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
    """Returns Hadoop's properties, with our limit for a silent DataNode."""
    folder = os.environ.get("HADOOP_CONF_DIR") or Path(os.environ.get("HADOOP_HOME", ""), "etc/hadoop")
    found = hadoop_conf.read_settings(*(Path(folder, name) for name in ("core-site.xml", "hdfs-site.xml")))
    configured = found.get(_SOCKET_TIMEOUT, "")
    timeout_ms = int(configured) if configured.isdecimal() else 0
    return found | {_SOCKET_TIMEOUT: str(min(timeout_ms or _MAX_SOCKET_TIMEOUT_MS, _MAX_SOCKET_TIMEOUT_MS))}


def umask_of(settings: Mapping[str, str]) -> int:
    """The bits that new files and folders do not get: Hadoop's own, and in any case that to write of all others.

    hdfs-native does not look at `fs.permissions.umask-mode`, which is octal or, as `u=rwx,g=rx,o=`, what is allowed.
    """
    text = settings.get(_UMASK, "").strip()
    if re.fullmatch("[0-7]{1,4}", text):
        return (int(text, 8) & 0o777) | _OTHERS_WRITE
    allowed = {"u": 7, "g": 5, "o": 5}  # Hadoop's default, 022
    for who, letters in re.findall("([ugoa]+)=([rwx]*)", text):
        bits = sum(_BITS[letter] for letter in set(letters))
        allowed |= dict.fromkeys("ugo" if "a" in who else who, bits)
    return (0o777 & ~(allowed["u"] << 6 | allowed["g"] << 3 | allowed["o"])) | _OTHERS_WRITE


def _use_localised_conf() -> None:
    """Sets HADOOP_CONF_DIR in a YARN container that lacks it, to the configuration that Spark copied there."""
    localised = os.path.abspath("__spark_conf__/__hadoop_conf__")
    if not os.environ.get("HADOOP_CONF_DIR") and os.path.isdir(localised):
        os.environ["HADOOP_CONF_DIR"] = localised
