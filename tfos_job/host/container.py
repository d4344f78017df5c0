"""The YARN container that a process runs in: its name, where its files and logs belong. Elsewhere all of it is empty.

YARN removes a container's folder with the container, and keeps what is in its log folder for `yarn logs`.
"""

from __future__ import annotations

import os
import re
import tempfile

SCRATCH_PREFIX = "tfos_job-"
# A Unix socket's path has at most 107 bytes; multiprocessing adds `/listener-` and 8 characters to the folder.
_MAX_SOCKET_DIR_BYTES = 107 - len("/listener-12345678")


# container_[e<epoch>_]<cluster time>_<application>_<attempt>_<container>
_CONTAINER = re.compile(r"container_(?:e\d+_)?(?P<cluster>\d+)_(?P<application>\d+)_(?P<attempt>\d+)_\d+")


def container_id() -> str:
    return os.environ.get("CONTAINER_ID", "")


def application_id() -> str:
    """The YARN application that this process belongs to."""
    match = _CONTAINER.fullmatch(container_id())
    return f"application_{match['cluster']}_{match['application']}" if match else ""


def attempt_number() -> int:
    """Which attempt of its application this is, from 1 on; 0 outside a container."""
    match = _CONTAINER.fullmatch(container_id())
    return int(match["attempt"]) if match else 0


def log_file(name: str) -> str | None:
    """The path of a log that YARN keeps; None outside a container."""
    folders = os.environ.get("LOG_DIRS", "").split(",") if container_id() else []
    return next((os.path.join(folder, name) for folder in folders if os.path.isdir(folder)), None)


def log_url(name: str = "") -> str:
    """Where a browser finds the log `name` of this container while the application runs; empty where nobody knows.

    Without a name it is the page of all logs.
    """
    url = os.environ.get("SPARK_LOG_URL_STDERR", "")
    if container_id():
        # Spark tells its executors alone; the driver in its own container has only YARN's own variables.
        host, port, user = (os.environ.get(key, "") for key in ("NM_HOST", "NM_HTTP_PORT", "SPARK_USER"))
        if not url and host and port and user:
            url = f"http://{host}:{port}/node/containerlogs/{container_id()}/{user}/stderr?start=-4096"
        url = re.sub(r"/stderr(?=\?|$)", f"/{name}", url) if name else url.partition("/stderr")[0]
    return url


def shared_dir(own: str) -> str | None:
    """The application's folder on this host and on the disk of `own`, which attempts share and the cluster removes."""
    yarn, spark = os.environ.get("LOCAL_DIRS", ""), os.environ.get("SPARK_EXECUTOR_DIRS", "")
    folders = yarn.split(",") if container_id() else spark.split(os.pathsep)
    device = os.stat(own).st_dev
    fitting = (path for path in folders if os.path.isdir(path) and os.access(path, os.W_OK))
    return next((path for path in fitting if os.stat(path).st_dev == device), None)


def make_scratch() -> str:
    """A new folder for files of any size, on the container's own disk where there is a container."""
    return tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=_own_temporary_dir())


def socket_dir(scratch: str) -> str:
    """A folder for Unix sockets: `scratch` itself, or a new one where its path is too long for them."""
    if len(os.fsencode(scratch)) <= _MAX_SOCKET_DIR_BYTES:
        return scratch
    return tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir="/tmp")


def _own_temporary_dir() -> str | None:
    """The container's `tmp`; None for this process's usual folder of temporary files."""
    # What a process is started in is the container's folder, but not what its children are started in.
    for folder in (os.environ.get("PWD", ""), os.getcwd()):
        if container_id() and os.path.basename(folder) == container_id():
            own = os.path.join(folder, "tmp")
            return own if os.path.isdir(own) else folder
    return None
