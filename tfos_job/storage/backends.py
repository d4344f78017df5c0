"""The backend of a path or URL, by its scheme."""

from __future__ import annotations

import os
import uuid

from tfos_job.storage.backend import Backend
from tfos_job.storage.generic import Generic
from tfos_job.storage.hdfs import Hdfs
from tfos_job.storage.local import Local
from tfos_job.storage.urls import FILE, HDFS_SCHEMES, canonical, scheme_of


def backend_of(path: str) -> Backend:
    scheme = scheme_of(path)
    if scheme in (None, FILE):
        return Local()
    return Hdfs(path) if scheme in HDFS_SCHEMES else Generic(path)


def absolute(path: str) -> str:
    """Makes a plain path absolute, since each executor runs in a folder of its own, and writes a URL with `//`.

    Raises:
      SettingsError: it is neither a path nor a URL; all other functions of storage raise that as well.
    """
    return os.path.abspath(path) if scheme_of(path) is None else canonical(path)


def temporary_name(path: str) -> str:
    """Returns a unique name in the folder of `path`; its leading `_` hides the file from readers."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}_{name}.{uuid.uuid4().hex}.tmp"
