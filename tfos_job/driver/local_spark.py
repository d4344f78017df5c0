"""The settings of a Spark whose processes all run on this host, where other users may be as well.

It listens on the loopback interface alone, and only for what it needs: no pages; driver, executors and block managers
ask for a key; Spark's Python processes are reached through sockets in a folder that is this user's. What is left is
py4j's port, which asks for a token (docs/security.md has the table).
"""

from __future__ import annotations

import atexit
import importlib.resources
import os
import secrets
import shutil
import tempfile
from typing import Any

from pyspark.sql import SparkSession

from tfos_job.driver.jvm import LOOPBACK
from tfos_job.host import container
from tfos_job.host.container import SCRATCH_PREFIX
from tfos_job.protocol.topology import is_in_driver

# Spark only distributes work here: without its second compiler a JVM starts in 0.6 of the processor time
# (benchmarks/start.py).
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1"
_SOCKET = ".12345678-1234-1234-1234-123456789abc.sock"  # as Spark calls those of its Python processes
_SECRET_BYTES = 32
_sockets = ""


def settings() -> dict[str, str]:
    """What a session on this host is built with."""
    log4j2 = importlib.resources.files("tfos_job.driver") / "log4j2.properties"
    quiet = f"-Dlog4j2.configurationFile=file:{log4j2}"
    return {
        # All processes run on this host, so its name need not resolve.
        "spark.driver.host": LOOPBACK,
        "spark.driver.bindAddress": LOOPBACK,
        "spark.ui.enabled": "false",
        "spark.ui.killEnabled": "false",  # of local-cluster, where master and workers have pages in any case
        "spark.driver.extraJavaOptions": f"{quiet} {JAVA_OPTIONS}",
        "spark.executor.extraJavaOptions": f"{quiet} {JAVA_OPTIONS}",
        "spark.authenticate": "true",
        "spark.network.crypto.enabled": "true",
        "spark.network.crypto.saslFallback": "false",  # a key that is asked for in an older way is not encrypted with
    }


def guards(master: str) -> dict[str, str]:
    """Settings of one session, which are not for the JVM's command line: anybody can read that.

    The sockets of Spark's Python processes are in a folder that nobody else may enter. `local[N]` makes its key itself,
    separate executors are given one.
    """
    key = {} if is_in_driver(master) else {"spark.authenticate.secret": secrets.token_hex(_SECRET_BYTES)}
    return {**python_sockets(_folder()), **key}


def python_sockets(folder: str) -> dict[str, str]:
    """Settings by which Spark's Python processes are reached through sockets in a folder, and listen on no port."""
    return {"spark.python.unix.domain.socket.enabled": "true", "spark.python.unix.domain.socket.dir": folder}


def _folder() -> str:
    """The folder of the sockets: one for this process, since a JVM goes on using that of its first session."""
    global _sockets
    if not os.path.isdir(_sockets):
        made = tempfile.mkdtemp(prefix=SCRATCH_PREFIX)
        _sockets = container.socket_dir(made, _SOCKET)
        if _sockets != made:
            os.rmdir(made)
        atexit.register(shutil.rmtree, _sockets, ignore_errors=True)
    return _sockets


def bequeath(spark: SparkSession) -> None:
    """Has the JVM remove the folder of the sockets as well: it outlives a driver that is killed."""
    java: Any = spark._jvm
    java.org.apache.spark.util.ShutdownHookManager.registerShutdownDeleteDir(java.java.io.File(_sockets))
