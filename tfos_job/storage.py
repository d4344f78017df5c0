"""The one door to `file://` and `hdfs://`: every other module hands paths and URLs to these functions.

Two rules hold for all that is written here. A file appears under its own name whole or not at all: it is written aside
in the same folder and renamed. And each error names the path and the next step, as one of the classes of
`tfos_job.errors`; what a backend raises never leaves this module.

Local paths go to the operating system, `hdfs://` and `viewfs://` to hdfs-native through fsspec. Renames on HDFS are the
client's own: fsspec's generic `mv` moves a folder *into* an existing one.

What passes on HDFS (a NameNode that restarts, a DataNode that is gone) is tried again for `HDFS_TIMEOUT_S` from the
first try on: every operation on names, `read_bytes`, `read_json`, `write_bytes`, `write_json` and `create_exclusive` as
a whole, the last three under a new temporary name each time. What flows through `open_read` and `open_write` cannot be
tried again from here; hdfs-native goes on to another DataNode by itself, and whoever opened the file may start anew.
No call waits longer than `HDFS_TIMEOUT_S` for an answer: an unreachable NameNode is a `StorageError` then.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from tfos_job.errors import AccessError, JobError, MissingInputError, SettingsError, StorageError
from tfos_job.layout import join

BUFFER_BYTES = 1 << 20
HDFS_TIMEOUT_S = 120.0  # a NameNode restarts within a minute; hdfs-native alone would wait for ever for a hung one
_RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # the last one again and again
_CLEANUP_TIMEOUT_S = 1.0
_QUOTA_ERRNOS = (errno.EDQUOT,)
_REMOTE_SCHEMES = ("hdfs", "viewfs")

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


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
    backend = _backend(path)
    aside = ""

    def create() -> io.RawIOBase:
        nonlocal aside
        aside = _aside(path)  # another one for each try: one that was given up may still be carried out
        try:
            return backend.create(aside)
        except BaseException:
            discard()
            raise

    def discard() -> None:
        # The first error is the one to tell: a temporary file that cannot be removed is found by its name.
        with contextlib.suppress(OSError, RuntimeError, JobError):
            backend.discard(aside)

    with _job_errors(path, "write"):
        raw = backend.persist(create)
    try:
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
        discard()
        raise


def write_bytes(path: str, data: bytes) -> None:
    def attempt() -> None:
        with open_write(path) as stream:
            stream.write(data)

    _backend(path).persist(attempt)


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


# --- patience --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def patience(limit_s: float) -> Iterator[None]:
    """All that this thread asks of HDFS within the `with` shares `limit_s`, instead of `HDFS_TIMEOUT_S` a call."""
    assert not hasattr(_patience, "deadline_s"), "patience within patience"
    _patience.deadline_s = time.monotonic() + limit_s
    try:
        yield
    finally:
        del _patience.deadline_s


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
        reason = _reason(error)
        if _is_refusal(error):
            raise AccessError(
                f"cannot {verb} it: {reason}",
                place=path,
                next_step="Check the owner, the permissions and the quota of the folder",
            ) from error
        raise StorageError(
            f"cannot {verb} it: {reason}", place=path, next_step="Check the disk or the file system, then run again"
        ) from error


# hdfs-native's RuntimeError has Rust's debug form of the error: `RPCError("java.Class", "message\\n\\tat stack …")`, or
# `DataTransferError("…")`, `SASLError("…")` and the like.
_RPC_ERROR = re.compile(r'(?:Fatal)?RPCError\("(?P<kind>[^"]*)", "(?P<message>.*)"\)', re.DOTALL)
_REFUSALS = (
    "AccessControlException",
    "AuthorizationException",
    "QuotaExceededException",
    "SaslException",
    "InvalidToken",
)
_CLIENT_REFUSALS = ("SASLError", "GSSAPIError", "NoSASLMechanism")
# What a NameNode says while it starts or hands over, and where its view of the DataNodes is behind. All else that it
# says, it would say again.
_PASSING_KINDS = ("SafeModeException", "RetriableException", "StandbyException", "NotReplicatedYetException")
_PASSING_WORDS = ("could only be written to", "could only be replicated to", "Name node is in safe mode")
_CLIENT_FINAL = ("InvalidPath", "InvalidArgument", "UrlParseError", "XmlParseError", "Unsupported", *_CLIENT_REFUSALS)


def _rpc_error(error: BaseException) -> tuple[str, str] | None:
    """The Java class and the message, without the stack, of what the NameNode answered."""
    match = _RPC_ERROR.fullmatch(str(error)) if isinstance(error, RuntimeError) else None
    return (
        (match["kind"].rpartition(".")[2], match["message"].split("\\n", 1)[0].replace('\\"', '"')) if match else None
    )


def _reason(error: OSError | RuntimeError) -> str:
    """One line; the NameNode's Java stack stays behind."""
    if rpc_error := _rpc_error(error):
        return ": ".join(part for part in rpc_error if part)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).split("\n", 1)[0]


def _is_refusal(error: OSError | RuntimeError) -> bool:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in _QUOTA_ERRNOS:
        return True
    if rpc_error := _rpc_error(error):
        return rpc_error[0].endswith(_REFUSALS) or any(word in rpc_error[1] for word in _REFUSALS)
    return isinstance(error, RuntimeError) and str(error).startswith(_CLIENT_REFUSALS)


def _is_passing(error: BaseException) -> bool:
    """Whether an error of hdfs-native may be gone at the next try; those of this package are judged by their cause."""
    if isinstance(error, JobError):
        return isinstance(error, StorageError) and error.__cause__ is not None and _is_passing(error.__cause__)
    if isinstance(
        error, FileNotFoundError | FileExistsError | PermissionError | NotADirectoryError | IsADirectoryError
    ):
        return False
    if rpc_error := _rpc_error(error):
        kind, message = rpc_error
        return kind in _PASSING_KINDS or any(word in message for word in _PASSING_WORDS)
    if isinstance(error, RuntimeError):
        return not str(error).startswith(_CLIENT_FINAL)
    return isinstance(error, OSError)  # the connection


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

    def readall(self) -> bytes:  # RawIOBase's own asks for 8 KiB at a time
        return b"".join(iter(lambda: self.read(BUFFER_BYTES) or b"", b""))

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

    def discard(self, path: str) -> None:
        """Removes what a failed write left, where that is quickly done."""

    def persist(self, attempt: Callable[[], _T]) -> _T:
        """Makes an attempt, and others while it fails with what passes. It raises OSError, RuntimeError or JobError."""


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

    def discard(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.remove(path)

    def persist(self, attempt: Callable[[], _T]) -> _T:
        return attempt()

    @staticmethod
    def _entry(path: str, status: os.stat_result) -> Entry:
        is_folder = (status.st_mode & 0o170000) == 0o040000
        return Entry(path.rstrip("/").rpartition("/")[2], path, status.st_size, status.st_mtime, is_folder)


class _Hdfs:
    """hdfs-native. Calls are bounded in time; those on names, and whole attempts given to `persist`, are repeated."""

    def __init__(self, url: str) -> None:
        import fsspec  # Only those who use HDFS pay for it.

        _use_localised_conf()
        parts = urlsplit(url)
        with _job_errors(url, "reach"):
            self._client = fsspec.core.url_to_fs(f"{parts.scheme}://{parts.netloc}/")[0].client

    def open_read(self, path: str) -> io.RawIOBase:
        return _HdfsFile(self._call(lambda: self._client.read(_hdfs_path(path))))

    def create(self, path: str) -> io.RawIOBase:
        from hdfs_native import WriteOptions

        options = WriteOptions(overwrite=False, create_parent=False)  # a discarded folder must not come back
        return _HdfsFile(_answer(lambda: self._client.create(_hdfs_path(path), options)))

    def sync(self, raw: io.RawIOBase) -> None:
        """Nothing to do: closing the file completes it on the DataNodes."""

    def stat(self, path: str) -> Entry:
        status = self._call(lambda: self._client.get_file_info(_hdfs_path(path)))
        return self._entry(path, status)

    def list(self, path: str) -> list[Entry]:
        if not self.stat(path).is_dir:
            raise NotADirectoryError(path)
        found = self._call(lambda: list(self._client.list_status(_hdfs_path(path))))
        return [self._entry(join(path, status.path.rpartition("/")[2]), status) for status in found]

    def make_dirs(self, path: str) -> None:
        self._call(lambda: self._client.mkdirs(_hdfs_path(path), create_parent=True))

    def remove(self, path: str) -> None:
        self._call(lambda: self._client.delete(_hdfs_path(path), True))

    def replace(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=True)

    def move_new_file(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=False)

    def move_dir(self, source: str, target: str) -> None:
        self._move(source, target, overwrite=False)

    def discard(self, path: str) -> None:
        """Goes on aside where the NameNode is away, until it answers or the patience is at an end."""

        def remove() -> None:
            with contextlib.suppress(OSError, RuntimeError, JobError):
                self.remove(path)

        remover = threading.Thread(target=remove, name="hdfs discard", daemon=True)
        remover.start()
        remover.join(_CLEANUP_TIMEOUT_S)

    def persist(self, attempt: Callable[[], _T]) -> _T:
        """Attempts within attempts share the outermost one's time."""
        outermost = not hasattr(_patience, "deadline_s")
        if outermost:
            _patience.deadline_s = time.monotonic() + HDFS_TIMEOUT_S
        try:
            return self._persist(attempt, _patience.deadline_s)
        finally:
            if outermost:
                del _patience.deadline_s

    @staticmethod
    def _persist(attempt: Callable[[], _T], deadline_s: float) -> _T:
        tries = 0
        while True:
            try:
                return attempt()
            except (OSError, RuntimeError, JobError) as error:
                pause_s = _RETRY_PAUSES_S[min(tries, len(_RETRY_PAUSES_S) - 1)]
                if not _is_passing(error) or time.monotonic() + pause_s > deadline_s:
                    raise
                reason = str(error) if isinstance(error, JobError) else _reason(error)
                _log.warning("HDFS: %s; trying again in %g s", reason, pause_s)
            tries += 1
            time.sleep(pause_s)

    def _call(self, call: Callable[[], _T]) -> _T:
        return self.persist(lambda: _answer(call))

    def _move(self, source: str, target: str, *, overwrite: bool) -> None:
        """Renames. A rename whose answer was lost is known by the file's own time and size at the target."""
        before = self.stat(source)

        def attempt() -> None:
            try:
                self._client.rename(_hdfs_path(source), _hdfs_path(target), overwrite=overwrite)
            except FileNotFoundError:
                after = self._entry(source, self._client.get_file_info(_hdfs_path(target)))
                if after != before:
                    raise

        self._call(attempt)

    @staticmethod
    def _entry(path: str, status: Any) -> Entry:
        name = path.rstrip("/").rpartition("/")[2]
        return Entry(name, path, status.length, status.modification_time / 1000, status.isdir)


class _HdfsFile(io.RawIOBase):
    """hdfs-native's reader or writer, each call bounded in time. After one that failed the others fail with it.

    hdfs-native's reader has no `readinto`, so nothing of io may be put over it but `_Guarded`.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: OSError | RuntimeError | None = None

    def _ask(self, call: Callable[[], _T]) -> _T:
        if self._error is not None:
            raise self._error
        # Where the whole can be tried again, a call that hangs (a close does, with a DataNode that died unnoticed)
        # must leave time for it.
        can_be_repeated = hasattr(_patience, "deadline_s")
        try:
            return _answer(call, HDFS_TIMEOUT_S / 4 if can_be_repeated else HDFS_TIMEOUT_S)
        except (OSError, RuntimeError) as error:
            self._error = error
            # hdfs-native's writer closes itself when it is collected, which may be anywhere and wait for ever.
            self._file.close = lambda: None
            raise

    def readable(self) -> bool:
        return hasattr(self._file, "read_range")

    def writable(self) -> bool:
        return not self.readable()

    def seekable(self) -> bool:
        return self.readable()

    def read(self, size: int = -1, /) -> bytes:
        return self._ask(lambda: cast(bytes, self._file.read(size)))

    def write(self, data: Any, /) -> int:
        # As bytes: hdfs-native takes a memoryview, which BufferedWriter hands down, at a quarter of the speed.
        return self._ask(lambda: cast(int, self._file.write(bytes(data))))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return cast(int, self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._ask(self._file.close)


_patience = threading.local()  # `deadline_s` of the outermost `_Hdfs.persist` of this thread


def _answer(call: Callable[[], _T], timeout_s: float | None = None) -> _T:
    """The result of a call that may never return, waited for in this thread, where Ctrl-C is heard.

    A call that has not returned in time goes on in a thread that ends with the process.

    Args:
      call: what to do.
      timeout_s: how long to wait; never past the end of the patience of `_Hdfs.persist`.
    """
    left_s = getattr(_patience, "deadline_s", time.monotonic() + HDFS_TIMEOUT_S) - time.monotonic()
    timeout_s = max(0.0, left_s if timeout_s is None else min(left_s, timeout_s))
    results: list[_T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  # raised below, in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=work, name="hdfs", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise _more_exact(errors[0])
    if not results:
        raise TimeoutError(f"no answer for {timeout_s:.0f} s")
    return results[0]


def _more_exact(error: BaseException) -> BaseException:
    """The exception that a local file system would have raised, where hdfs-native has only words for it."""
    if isinstance(error, FileNotFoundError) and str(error).startswith("Path is not a file"):
        return IsADirectoryError(_reason(error))
    rpc_error = _rpc_error(error)
    if rpc_error and rpc_error[0] == "ParentNotDirectoryException":
        return NotADirectoryError(rpc_error[1])
    return error


def _hdfs_path(url: str) -> str:
    """The path in a URL, which is not percent-decoded and may hold `#` and `?`."""
    return "/" + url.partition("://")[2].partition("/")[2]


def _use_localised_conf() -> None:
    """In a YARN container without HADOOP_CONF_DIR: the copy of the configuration that Spark has put there."""
    localised = os.path.abspath("__spark_conf__/__hadoop_conf__")
    if not os.environ.get("HADOOP_CONF_DIR") and os.path.isdir(localised):
        os.environ["HADOOP_CONF_DIR"] = localised
