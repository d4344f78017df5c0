"""Files on every file system: the functions through which all other modules read, write and rename.

Every function takes a path or a URL. Plain paths and `file:` URLs are read and written by the operating system
(local.py), `hdfs://` and `viewfs://` by hdfs-native (hdfs.py). All other schemes are read by fsspec (generic.py), which
cannot write here.

Two rules hold. A file appears under its name complete or not at all: it is written under a temporary name in the same
folder and renamed. Every error is a class of `tfos_job.errors` and names the path and the next step: no exception of a
backend leaves this package.

Failures that pass on HDFS (a NameNode restarts, a DataNode dies or hangs) are retried for `retry.HDFS_TIMEOUT_S`,
counted from the first try or from the last byte of progress. Retried are: operations on names; `write_file`,
`write_bytes`, `write_json` and `create_exclusive` as a whole, with a new temporary name each time; reads, from the byte
reached; and the first bytes of `open_write`. Later bytes of `open_write` cannot be retried here: hdfs-native continues
without a DataNode that dies, and the caller can write the file again. No call waits longer than that time: an
unreachable NameNode is a `StorageError`.
"""

from __future__ import annotations

from tfos_job.storage.backend import BUFFER_BYTES, Entry
from tfos_job.storage.backends import absolute
from tfos_job.storage.error_mapping import full_disk
from tfos_job.storage.local import BROKEN_LINK, local_path
from tfos_job.storage.names import (
    discard_dir,
    exists,
    find,
    hide_dir,
    is_dir,
    list_dir,
    make_dirs,
    publish_dir,
    remove,
    rename,
    stat,
)
from tfos_job.storage.reading import Readable, download, open_read, read_bytes, read_json
from tfos_job.storage.retry import within
from tfos_job.storage.writing import (
    Writable,
    create_exclusive,
    open_write,
    require_writable,
    write_bytes,
    write_file,
    write_json,
)

__all__ = [
    "BROKEN_LINK",
    "BUFFER_BYTES",
    "Entry",
    "Readable",
    "Writable",
    "absolute",
    "create_exclusive",
    "discard_dir",
    "download",
    "exists",
    "find",
    "full_disk",
    "hide_dir",
    "is_dir",
    "list_dir",
    "local_path",
    "make_dirs",
    "open_read",
    "open_write",
    "publish_dir",
    "read_bytes",
    "read_json",
    "remove",
    "rename",
    "require_writable",
    "stat",
    "within",
    "write_bytes",
    "write_file",
    "write_json",
]
