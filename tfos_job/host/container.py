"""The YARN container of this process: its id, and the folders for files and logs. Outside a container all is empty.

In a pod of Kubernetes the application's id alone is known; files and logs are where the image has them.

YARN removes a container's folder with the container, and keeps its log folder for `yarn logs`.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from typing import BinaryIO

SCRATCH_PREFIX = "tfos_job-"
_MAX_SOCKET_PATH_BYTES = 107
_LISTENER = "listener-12345678"  # as multiprocessing calls its sockets

_POD_APPLICATION = "SPARK_APPLICATION_ID"  # Spark sets it in the pods that it makes

# container_[e<epoch>_]<cluster time>_<application>_<attempt>_<container>
_CONTAINER = re.compile(r"container_(?:e\d+_)?(?P<cluster>\d+)_(?P<application>\d+)_(?P<attempt>\d+)_\d+")


def under_spark_submit() -> bool:
    """True if spark-submit started this process: its JVM waits for this process and has settings of its own."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def container_id() -> str:
    return os.environ.get("CONTAINER_ID", "")


def application_id() -> str:
    """Returns the id of this process's application, of YARN or, in a pod, of Spark; empty elsewhere."""
    match = _CONTAINER.fullmatch(container_id())
    if match:
        return f"application_{match['cluster']}_{match['application']}"
    return os.environ.get(_POD_APPLICATION, "")


def attempt_number() -> int:
    """Returns the number of the application's attempt, from 1 on, which is the last one in a pod; 0 elsewhere."""
    match = _CONTAINER.fullmatch(container_id())
    if match:
        return int(match["attempt"])
    return 1 if application_id() else 0


def log_file(name: str) -> str | None:
    """Returns the path of a log that YARN keeps; None outside a container."""
    folders = os.environ.get("LOG_DIRS", "").split(",") if container_id() else []
    return next((os.path.join(folder, name) for folder in folders if os.path.isdir(folder)), None)


def begin_log(log: BinaryIO, attempt: int) -> int:
    """Writes the line that an attempt begins with in a log that several may add to; returns the offset behind it."""
    log.write(f"--- attempt {attempt}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
    log.flush()
    return os.fstat(log.fileno()).st_size


def log_url(name: str = "") -> str:
    """Returns the URL of this container's log `name` while the application runs; empty if it is unknown.

    Without a name, returns the URL of the page of all logs.
    """
    url = os.environ.get("SPARK_LOG_URL_STDERR", "")
    if container_id():
        # Spark sets the URL for executors only; a driver in a container has only YARN's variables.
        host, port, user = (os.environ.get(key, "") for key in ("NM_HOST", "NM_HTTP_PORT", "SPARK_USER"))
        if not url and host and port and user:
            url = f"http://{host}:{port}/node/containerlogs/{container_id()}/{user}/stderr?start=-4096"
        url = re.sub(r"/stderr(?=\?|$)", f"/{name}", url) if name else url.partition("/stderr")[0]
    return url


def shared_dir(own: str) -> str | None:
    """Returns the application's folder on the disk of `own`, which attempts share and the cluster removes."""
    yarn, spark = os.environ.get("LOCAL_DIRS", ""), os.environ.get("SPARK_EXECUTOR_DIRS", "")
    folders = yarn.split(",") if container_id() else spark.split(os.pathsep)
    device = os.stat(own).st_dev
    fitting = (path for path in folders if os.path.isdir(path) and os.access(path, os.W_OK))
    return next((path for path in fitting if os.stat(path).st_dev == device), None)


def make_scratch(attempt: int) -> str:
    """Makes a folder for files of any size of one attempt, on the container's disk if there is a container."""
    return tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{attempt}-", dir=_own_temporary_dir())


def socket_dir(scratch: str, name: str = _LISTENER) -> str:
    """Returns a folder for Unix sockets: `scratch`, or a new one if the path of `scratch` is too long.

    Args:
      scratch: an existing folder.
      name: as long as those of the sockets.
    """
    if len(os.fsencode(os.path.join(scratch, name))) <= _MAX_SOCKET_PATH_BYTES:
        return scratch
    return tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir="/tmp")


def _own_temporary_dir() -> str | None:
    """Returns the container's `tmp`; None to use the default folder of temporary files."""
    # YARN starts a process in the container's folder; its children may start in another one.
    for folder in (os.environ.get("PWD", ""), os.getcwd()):
        if container_id() and os.path.basename(folder) == container_id():
            own = os.path.join(folder, "tmp")
            return own if os.path.isdir(own) else folder
    return None
