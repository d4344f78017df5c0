"""The one door to files, wherever they are: every other module hands paths and URLs to these functions.

Two rules hold for all that is written here. A file appears under its own name whole or not at all: it is written aside
in the same folder and renamed. And each error names the path and the next step, as one of the classes of
`tfos_job.errors`; what a backend raises never leaves this package.

Plain paths and `file:` URLs go to the operating system (local.py), `hdfs://` and `viewfs://` to hdfs-native (hdfs.py),
and any other scheme to fsspec, for reading alone (generic.py).

What passes on HDFS (a NameNode that restarts, a DataNode that is gone or hangs) is tried again for
`patience.HDFS_TIMEOUT_S` from the first try on, or from the furthest byte that one has reached: operations on names;
`write_file`, `write_bytes`, `write_json` and `create_exclusive` as a whole, under a new temporary name each time; all
reading, from the byte on that was reached; the first bytes of `open_write`. What flows through `open_write` later
cannot be tried again from here: hdfs-native goes on without a DataNode that dies, and whoever opened the file may start
anew. No call waits longer than that for an answer: an unreachable NameNode is a `StorageError` then.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, cast

from tfos_job.errors import JobError, MissingInputError, SettingsError, StorageError
from tfos_job.storage.backend import BUFFER_BYTES, Backend, Entry, T
from tfos_job.storage.error_mapping import full_disk, job_errors
from tfos_job.storage.generic import Generic
from tfos_job.storage.hdfs import Hdfs
from tfos_job.storage.local import BROKEN_LINK, Local, local_path
from tfos_job.storage.retry import within
from tfos_job.storage.streams import Guarded
from tfos_job.storage.urls import FILE, HDFS_SCHEMES, canonical, scheme_of

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
    "stat",
    "within",
    "write_bytes",
    "write_file",
    "write_json",
]

_PIECE_BYTES = 4 << 20


class Readable(Protocol):
    """Any file object to read from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """Any file object to write to."""

    def write(self, data: bytes | memoryview, /) -> object: ...


def _backend(path: str) -> Backend:
    scheme = scheme_of(path)
    if scheme in (None, FILE):
        return Local()
    return Hdfs(path) if scheme in HDFS_SCHEMES else Generic(path)


# --- paths -----------------------------------------------------------------------------------------------------------


def absolute(path: str) -> str:
    """Makes a plain path absolute, since executors run in folders of their own, and a URL one with `//`.

    Raises:
      SettingsError: it is neither; all other functions raise that as well.
    """
    return os.path.abspath(path) if scheme_of(path) is None else canonical(path)


def _aside(path: str) -> str:
    """A name beside `path` that no reader takes for data (`_`) and no other writer uses."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}_{name}.{uuid.uuid4().hex}.tmp"


# --- reading ---------------------------------------------------------------------------------------------------------


def open_read(path: str) -> BinaryIO:
    """Opens a file for buffered reading.

    Raises:
      MissingInputError: it is not there. Reads may raise `StorageError` later on.
    """
    with job_errors(path, "read"):
        return cast(BinaryIO, io.BufferedReader(Guarded(_backend(path).open_read(path), path), BUFFER_BYTES))


def read_bytes(path: str) -> bytes:
    def attempt() -> bytes:
        with open_read(path) as stream:
            return stream.read()

    return _backend(path).persist(attempt)


def read_json(path: str) -> Any:
    """The value in a JSON file.

    Raises:
      MissingInputError: it is not there.
      ValueError: it is not JSON; what that means is for the caller to say.
    """
    return json.loads(read_bytes(path).decode("utf-8"))


def stat(path: str) -> Entry:
    """Raises `MissingInputError` where nothing is at `path`."""
    with job_errors(path, "look at"):
        return _backend(path).stat(path)


def exists(path: str) -> bool:
    try:
        stat(path)
    except MissingInputError:
        return False
    return True


def is_dir(path: str) -> bool:
    try:
        return stat(path).is_dir
    except MissingInputError:
        return False


def list_dir(path: str) -> list[Entry]:
    """What a folder holds, sorted by name."""
    with job_errors(path, "list"):
        return sorted(_backend(path).list(path), key=lambda entry: entry.name)


def find(path: str, suffix: str, *, with_hidden: bool = False) -> list[Entry]:
    """The files below `path` with names that end with `suffix`, sorted by path; a leading `_` or `.` hides a name.

    `_` and `.` mark what is unfinished or somebody's bookkeeping, as for Hadoop's own input formats. What people name
    as they like is listed with `with_hidden`.
    """
    found: list[Entry] = []
    for entry in list_dir(path):
        if entry.name.startswith(("_", ".")) and not with_hidden:
            continue
        if entry.is_dir:
            found += find(entry.path, suffix, with_hidden=with_hidden)
        elif entry.name.endswith(suffix):
            found.append(entry)
    return sorted(found, key=lambda entry: entry.path)


def download(path: str, target: str) -> str:
    """Copies a file to a local path, where it appears whole, replacing an older one.

    What passes is tried again from the byte on that was reached, so that the patience is for each piece: a large file
    may take longer than it. Whoever knows the digest sees whether the file was another one meanwhile.

    Returns:
      SHA-256 (hex) of the bytes that are at `target` now.

    Raises:
      MissingInputError: it is not there.
      StorageError: it cannot be read any more, or the local disk is full.
    """
    backend, digest, aside = _backend(path), hashlib.sha256(), _aside(target)
    source: BinaryIO | None = None

    def next_piece(offset: int) -> bytes:
        nonlocal source
        try:
            if source is None:
                source = open_read(path)
                source.seek(offset)
            return source.read(_PIECE_BYTES)
        except BaseException:
            source = None
            raise

    try:
        with job_errors(aside, "write"), open(aside, "xb") as file:
            while piece := backend.persist(functools.partial(next_piece, file.tell())):
                digest.update(piece)
                file.write(piece)
        rename(aside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    finally:
        if source is not None:
            source.close()
    return digest.hexdigest()


# --- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_write(path: str) -> Iterator[BinaryIO]:
    """Writes a file that appears, replacing an older one, when the block ends without an exception; else never."""
    backend = _backend(path)
    aside = ""

    def new_aside() -> str:
        nonlocal aside
        aside = _aside(path)  # another one for each try: one that was given up may still be carried out
        return aside

    def discard() -> None:
        # The first error is the one to tell: a temporary file that cannot be removed is found by its name.
        with contextlib.suppress(OSError, RuntimeError, JobError):
            backend.discard(aside)

    with job_errors(path, "write"):
        raw = backend.create(new_aside)
    stream = io.BufferedWriter(Guarded(raw, path), BUFFER_BYTES)
    try:
        try:
            yield cast(BinaryIO, stream)
            stream.flush()
            with job_errors(path, "write"):
                backend.sync(raw)
        except BaseException:
            with contextlib.suppress(OSError, RuntimeError, JobError):  # the first error is the one to tell
                stream.close()
            raise
        stream.close()
        with job_errors(path, "write"):
            backend.replace(aside, path)
    except BaseException:
        discard()
        raise


def write_file(path: str, write: Callable[[BinaryIO], T]) -> T:
    """As `open_write`, for a file that can be written again from its beginning where what passes went wrong.

    Args:
      path: of the file.
      write: writes all of it. It is called once more, with another file, for each further try.

    Returns:
      What the last `write` returned.
    """

    def attempt() -> T:
        with open_write(path) as stream:
            return write(stream)

    return _backend(path).persist(attempt)


def write_bytes(path: str, data: bytes) -> None:
    write_file(path, lambda stream: stream.write(data))


def write_json(path: str, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def create_exclusive(path: str, data: bytes) -> bool:
    """Creates `path` with `data` in it in one step, unless it exists.

    Returns:
      False where somebody else's file is there already.
    """
    aside = _aside(path)
    write_bytes(aside, data)
    try:
        with job_errors(path, "create"):
            try:
                _backend(path).move_new_file(aside, path)
            except FileExistsError:
                return False
        return True
    finally:
        remove(aside)


def make_dirs(path: str) -> None:
    """Makes a folder and those above it; an existing one is fine.

    Raises:
      SettingsError: a file is in its place, or in that of a folder above it.
    """
    with job_errors(path, "make"):
        try:
            _backend(path).make_dirs(path)
        except (FileExistsError, NotADirectoryError) as error:
            fact = "cannot make the folder: a file is there, or where one above it is to be"
            raise SettingsError(fact, place=path, next_step="Give another folder, or move the file away") from error


def remove(path: str) -> None:
    """Removes a file or a whole folder; nothing there is fine."""
    with job_errors(path, "remove"), contextlib.suppress(FileNotFoundError):
        _backend(path).remove(path)


def discard_dir(path: str) -> None:
    """Removes a folder that a task nobody could stop may still be writing to; nothing there is fine.

    It is renamed first: the task's paths lead nowhere from then on, and nothing is added while it is being removed.
    """
    aside = _aside(path)
    with job_errors(path, "remove"), contextlib.suppress(FileNotFoundError):
        _backend(path).move_dir(path, aside)
    remove(aside)


def rename(source: str, target: str) -> None:
    """Renames a file, replacing `target`, in one step."""
    with job_errors(source, "rename"):
        _backend(source).replace(source, target)


def publish_dir(source: str, target: str) -> None:
    """Makes the finished folder `source` appear as `target` by one rename.

    Raises:
      StorageError: `target` is there already; nothing has moved.
    """
    if exists(target):
        raise StorageError(
            "already there, so nothing was published over it",
            place=target,
            next_step="Another job may have written it: look at its manifest or report, then run again",
        )
    with job_errors(source, "publish"):
        _backend(source).move_dir(source, target)
