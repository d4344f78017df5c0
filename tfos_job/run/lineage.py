"""Who did something, when, and with which code: for what is kept of a promotion."""

from __future__ import annotations

import functools
import getpass
import hashlib
import importlib.metadata
import os
import platform
import socket
from datetime import UTC, datetime
from typing import Any


def now() -> str:
    """The time, UTC, to the microsecond: entries of one second keep their order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def who() -> dict[str, str]:
    """`user` and `host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return {"user": user, "host": socket.gethostname()}


@functools.cache
def environment() -> dict[str, Any]:
    """The installed packages of this Python: `digest` over their names and exact versions, `num_packages`, `python`."""
    found = {
        f"{distribution.metadata['Name'].lower().replace('_', '-')}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
        if distribution.metadata["Name"]  # without one: remains of a failed installation
    }
    text = "\n".join(sorted(found))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"digest": digest, "num_packages": len(found), "python": platform.python_version()}
