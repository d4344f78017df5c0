"""The one door to `file://` and `hdfs://`: every other module hands paths and URLs to these functions.

Two rules hold for all that is written here. A file appears under its own name whole or not at all: it is written aside
in the same folder and renamed. And each error names the path and the next step, as one of the classes of
`tfos_job.errors`; what a backend raises never leaves this module.

Local paths go to the operating system, `hdfs://` and `viewfs://` to hdfs-native through fsspec. Renames on HDFS are the
client's own: fsspec's generic `mv` moves a folder *into* an existing one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, cast
from urllib.parse import urlsplit

from tfos_job.errors import AccessError, JobError, MissingInputError, SettingsError, StorageError
from tfos_job.layout import join

BUFFER_BYTES = 1 << 20
_QUOTA_ERRNOS = (errno.EDQUOT,)
_REMOTE_SCHEMES = ("hdfs", "viewfs")


@dataclass(frozen=True)
class Entry:
    """One name in a folder. `path` is the folder as it was given, joined with `name`; `mtime_s` is Unix time."""

    name: str
    path: str
    size_bytes: int
    mtime_s: float
    is_dir: bool


class Readable(Protocol):
    """Any file object to read from."""

    def read(self, size: int, /) -> bytes: ...


class Writable(Protocol):
    """Any file object to write to."""

    def write(self, data: bytes, /) -> object: ...


# --- paths -----------------------------------------------------------------------------------------------------------


def local_path(path: str) -> str | None:
    """The plain path behind a plain path or a `file:` URL; None for any other scheme.

    As with Hadoop, TensorFlow and fsspec nothing is percent-decoded: a name in a URL is the name on the disk.
    """
    if path.startswith("file:"):
        return path[len("file:") :].removeprefix("//")
    return None if "://" in path else path


def absolute(path: str) -> str:
    """Makes a plain path absolute, since executors run in folders of their own; leaves URLs alone."""
    return path if "://" in path or path.startswith("file:") else os.path.abspath(path)


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
    with _job_errors(path, "read"):
        return cast(BinaryIO, io.BufferedReader(_Guarded(_backend(path).open_read(path), path), BUFFER_BYTES))


def read_bytes(path: str) -> bytes:
    with open_read(path) as stream:
        return stream.read()


def read_json(path: str) -> Any:
    """The value in a JSON file.

    Raises:
      MissingInputError: it is not there.
      ValueError: it is not JSON; what that means is for the caller to say.
    """
    return json.loads(read_bytes(path).decode("utf-8"))


def stat(path: str) -> Entry:
    """Raises `MissingInputError` where nothing is at `path`."""
    with _job_errors(path, "look at"):
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
    with _job_errors(path, "list"):
        return sorted(_backend(path).list(path), key=lambda entry: entry.name)


def find(path: str, suffix: str) -> list[Entry]:
    """The files below `path` with names that end with `suffix`, sorted by path; a leading `_` or `.` hides a name.

    `_` and `.` mark what is unfinished or somebody's bookkeeping, as for Hadoop's own input formats.
    """
    found: list[Entry] = []
    for entry in list_dir(path):
        if entry.name.startswith(("_", ".")):
            continue
        if entry.is_dir:
            found += find(entry.path, suffix)
        elif entry.name.endswith(suffix):
            found.append(entry)
    return sorted(found, key=lambda entry: entry.path)


# --- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_write(path: str) -> Iterator[BinaryIO]:
    """Writes a file that appears, replacing an older one, when the block ends without an exception; else never."""
    aside = _aside(path)
    backend = _backend(path)
    try:
        with _job_errors(path, "write"):
            raw = backend.create(aside)
        stream = io.BufferedWriter(_Guarded(raw, path), BUFFER_BYTES)
        try:
            yield cast(BinaryIO, stream)
            stream.flush()
            with _job_errors(path, "write"):
                backend.sync(raw)
        finally:
            stream.close()
        with _job_errors(path, "write"):
            backend.replace(aside, path)
    except BaseException:
        # The first error is the one to tell: a temporary file that cannot be removed is found by its name.
        with contextlib.suppress(OSError, RuntimeError, JobError):
            remove(aside)
        raise


def write_bytes(path: str, data: bytes) -> None:
    with open_write(path) as stream:
        stream.write(data)


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
        with _job_errors(path, "create"):
            try:
                _backend(path).move_new_file(aside, path)
            except FileExistsError:
                return False
        return True
    finally:
        remove(aside)


def make_dirs(path: str) -> None:
    """Makes a folder and those above it; an existing one is fine."""
    with _job_errors(path, "make the folder"):
        _backend(path).make_dirs(path)


def remove(path: str) -> None:
    """Removes a file or a whole folder; nothing there is fine."""
    with _job_errors(path, "remove"), contextlib.suppress(FileNotFoundError):
        _backend(path).remove(path)


def discard_dir(path: str) -> None:
    """Removes a folder that a task nobody could stop may still be writing to; nothing there is fine.

    It is renamed first: the task's paths lead nowhere from then on, and nothing is added while it is being removed.
    """
    aside = _aside(path)
    with _job_errors(path, "remove"), contextlib.suppress(FileNotFoundError):
        _backend(path).move_dir(path, aside)
    remove(aside)


def rename(source: str, target: str) -> None:
    """Renames a file, replacing `target`, in one step."""
    with _job_errors(source, "rename"):
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
    with _job_errors(source, "publish"):
        _backend(source).move_dir(source, target)


# --- errors ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _job_errors(path: str, verb: str) -> Iterator[None]:
    """The one place where a backend's exceptions become this package's."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingInputError(f"cannot {verb} it: not there", place=path, next_step="Check the path") from error
    except (NotADirectoryError, IsADirectoryError) as error:
        kind = "a file, not a folder" if isinstance(error, NotADirectoryError) else "a folder, not a file"
        raise MissingInputError(f"cannot {verb} it: {kind}", place=path, next_step="Check the path") from error
    except (OSError, RuntimeError) as error:  # hdfs-native raises RuntimeError for what the NameNode refuses
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if _is_refusal(error):
            raise AccessError(
                f"cannot {verb} it: {reason}",
                place=path,
                next_step="Check the owner, the permissions and the quota of the folder",
            ) from error
        raise StorageError(
            f"cannot {verb} it: {reason}", place=path, next_step="Check the disk or the file system, then run again"
        ) from error


def _is_refusal(error: OSError | RuntimeError) -> bool:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in _QUOTA_ERRNOS:
        return True
    return any(word in str(error) for word in ("AccessControlException", "QuotaExceededException", "SaslException"))


class _Guarded(io.RawIOBase):
    """A raw stream whose reads and writes raise this package's errors. The buffer above it keeps the calls few."""

    def __init__(self, raw: io.RawIOBase, path: str) -> None:
        self._raw = raw
        self._path = path

    def readable(self) -> bool:
        return self._raw.readable()

    def writable(self) -> bool:
        return self._raw.writable()

    def seekable(self) -> bool:
        return self._raw.seekable()

    def readinto(self, buffer: Any) -> int:
        with _job_errors(self._path, "read"):
            data = self._raw.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        with _job_errors(self._path, "write"):
            return self._raw.write(data) or 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _job_errors(self._path, "read"):
            self._raw.seek(offset, whence)
            return self._raw.tell()

    def tell(self) -> int:
        return self._raw.tell()

    def close(self) -> None:
        if not self.closed:
            with _job_errors(self._path, "close"):
                self._raw.close()
        super().close()


# --- backends --------------------------------------------------------------------------------------------------------


class _Backend(Protocol):
    """What a file system must be able to do; each raises OSError or RuntimeError."""

    def open_read(self, path: str) -> io.RawIOBase: ...
    def create(self, path: str) -> io.RawIOBase: ...
    def sync(self, raw: io.RawIOBase) -> None: ...
    def stat(self, path: str) -> Entry: ...
    def list(self, path: str) -> list[Entry]: ...
    def make_dirs(self, path: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def replace(self, source: str, target: str) -> None: ...
    def move_new_file(self, source: str, target: str) -> None: ...
    def move_dir(self, source: str, target: str) -> None: ...


def _backend(path: str) -> _Backend:
    if local_path(path) is not None:
        return _Local()
    if urlsplit(path).scheme in _REMOTE_SCHEMES:
        return _Hdfs(path)
    raise SettingsError(
        f"cannot use {urlsplit(path).scheme}:// here", place=path, next_step="Give a plain path, file:// or hdfs://"
    )


def _plain(path: str) -> str:
    plain = local_path(path)
    assert plain is not None, path
    return plain


class _Local:
    def open_read(self, path: str) -> io.RawIOBase:
        return open(_plain(path), "rb", buffering=0)

    def create(self, path: str) -> io.RawIOBase:
        return open(_plain(path), "xb", buffering=0)

    def sync(self, raw: io.RawIOBase) -> None:
        os.fsync(raw.fileno())

    def stat(self, path: str) -> Entry:
        return self._entry(path, os.stat(_plain(path)))

    def list(self, path: str) -> list[Entry]:
        with os.scandir(_plain(path)) as entries:
            return [self._entry(join(path, entry.name), entry.stat()) for entry in entries]

    def make_dirs(self, path: str) -> None:
        os.makedirs(_plain(path), exist_ok=True)

    def remove(self, path: str) -> None:
        plain = _plain(path)
        if os.path.isdir(plain) and not os.path.islink(plain):
            shutil.rmtree(plain)
        else:
            os.unlink(plain)

    def replace(self, source: str, target: str) -> None:
        os.replace(_plain(source), _plain(target))

    def move_new_file(self, source: str, target: str) -> None:
        os.link(_plain(source), _plain(target))  # unlike rename, link refuses an existing target

    def move_dir(self, source: str, target: str) -> None:
        os.rename(_plain(source), _plain(target))

    @staticmethod
    def _entry(path: str, status: os.stat_result) -> Entry:
        is_folder = (status.st_mode & 0o170000) == 0o040000
        return Entry(path.rstrip("/").rpartition("/")[2], path, status.st_size, status.st_mtime, is_folder)


class _Hdfs:
    """hdfs-native. Whole writes are not retried here yet; each call retries as the client does by itself."""

    def __init__(self, url: str) -> None:
        import fsspec  # Only those who use HDFS pay for it.

        with _job_errors(url, "reach"):
            self._fs = fsspec.core.url_to_fs(url)[0]
        self._client = self._fs.client

    def open_read(self, path: str) -> io.RawIOBase:
        return cast(io.RawIOBase, self._client.read(urlsplit(path).path))

    def create(self, path: str) -> io.RawIOBase:
        return cast(io.RawIOBase, self._fs.open(path, "wb", overwrite=False))

    def sync(self, raw: io.RawIOBase) -> None:
        """Nothing to do: closing the file completes it on the DataNodes."""

    def stat(self, path: str) -> Entry:
        return self._entry(path, self._fs.info(path))

    def list(self, path: str) -> list[Entry]:
        if not self._fs.info(path)["type"] == "directory":
            raise NotADirectoryError(path)
        return [self._entry(join(path, info["name"].rpartition("/")[2]), info) for info in self._fs.ls(path)]

    def make_dirs(self, path: str) -> None:
        self._fs.makedirs(path, exist_ok=True)

    def remove(self, path: str) -> None:
        self._fs.rm(path, recursive=True)

    def replace(self, source: str, target: str) -> None:
        self._client.rename(urlsplit(source).path, urlsplit(target).path, overwrite=True)

    def move_new_file(self, source: str, target: str) -> None:
        try:
            self._client.rename(urlsplit(source).path, urlsplit(target).path, overwrite=False)
        except (OSError, RuntimeError) as error:
            if self._fs.exists(target):
                raise FileExistsError(target) from error
            raise

    def move_dir(self, source: str, target: str) -> None:
        self._client.rename(urlsplit(source).path, urlsplit(target).path, overwrite=False)

    @staticmethod
    def _entry(path: str, info: dict[str, Any]) -> Entry:
        name = path.rstrip("/").rpartition("/")[2]
        return Entry(name, path, info["size"], info["modification_time"] / 1000, info["type"] == "directory")
