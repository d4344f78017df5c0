"""The other file systems of fsspec, for reading: `s3://`, `gs://`, `http://`, `webhdfs://`, `memory://` …

Writing is not supported: a file must appear complete and a folder by one rename, but an object store has no rename, and
fsspec's generic one copies file by file.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from tfos_job.errors import SettingsError
from tfos_job.layout import join
from tfos_job.storage.backend import Entry, T, last_name
from tfos_job.storage.error_mapping import job_errors

# The names that fsspec's file systems have for a file's time; there is no common one.
_TIME_KEYS = ("mtime", "LastModified", "last_modified", "updated", "modificationTime", "created")


class Generic:
    """The file system of a URL, with the path of that URL on it."""

    def __init__(self, url: str) -> None:
        import fsspec  # slow to import, and needed for these URLs alone

        self._scheme = url.partition(":")[0]
        try:
            fsspec.get_filesystem_class(self._scheme)
        except ValueError as error:
            raise SettingsError(
                f"no file system has the scheme {self._scheme}://",
                place=url,
                next_step="Give a plain path, hdfs://, or a scheme that fsspec knows, such as s3://",
            ) from error
        except ImportError as error:  # fsspec knows the scheme, and says which package it needs
            raise SettingsError(
                f"a package for {self._scheme}:// is missing: {error}",
                place=url,
                next_step="Install it in the environment of the job, or copy the data to hdfs:// or a disk",
            ) from error
        with job_errors(url, "reach"), _os_errors():
            self._fs, self._name = fsspec.core.url_to_fs(url)

    def open_read(self, path: str) -> io.RawIOBase:
        with _os_errors():
            return _FsspecStream(self._fs.open(self._name, "rb"))

    def stat(self, path: str) -> Entry:
        with _os_errors():
            return _entry(path, self._fs.info(self._name))

    def list(self, path: str) -> list[Entry]:
        with _os_errors():
            self._fs.invalidate_cache()  # another process may have added files
            if not self._fs.isdir(self._name):
                self._fs.info(self._name)  # raises if nothing is there
                raise NotADirectoryError(path)
            found = [(last_name(info["name"]), info) for info in self._fs.ls(self._name, detail=True)]
        # An object store may list a marker object with the folder's own name.
        own_name = self._name.rstrip("/")
        return [_entry(join(path, name), info) for name, info in found if info["name"].rstrip("/") != own_name]

    def persist(self, attempt: Callable[[], T]) -> T:
        return attempt()  # these file systems retry by themselves

    def create(self, new_path: Callable[[], str]) -> NoReturn:
        self._refuse(new_path())

    def _refuse(self, path: str) -> NoReturn:
        raise SettingsError(
            f"{self._scheme}:// can be read from, not written to: what is written must appear whole, and that needs a "
            "rename in one step",
            place=path,
            next_step="Write to hdfs:// or to a disk, and copy the finished folder from there",
        )

    def sync(self, raw: io.RawIOBase) -> NoReturn:
        raise AssertionError("nothing was created")

    def make_dirs(self, path: str) -> None:
        self._refuse(path)

    def remove(self, path: str) -> None:
        self._refuse(path)

    def replace(self, source: str, target: str) -> None:
        self._refuse(target)

    def move_new_file(self, source: str, target: str) -> None:
        self._refuse(target)

    def move_dir(self, source: str, target: str) -> None:
        self._refuse(target)

    def discard(self, path: str) -> None:
        """Nothing was created."""


class _FsspecStream(io.RawIOBase):
    """A raw stream over a file of fsspec; its exceptions are OSErrors."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with _os_errors():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with _os_errors():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            with _os_errors():
                self._file.close()


@contextmanager
def _os_errors() -> Iterator[None]:
    """Converts the exceptions of fsspec's libraries into OSErrors, unless they are OSErrors already."""
    try:
        yield
    except (OSError, RuntimeError, ImportError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _entry(path: str, info: dict[str, Any]) -> Entry:
    return Entry(last_name(path), path, int(info.get("size") or 0), _time_s(info), info["type"] == "directory")


def _time_s(info: dict[str, Any]) -> float:
    """Returns Unix time; 0 if the file system reports none."""
    value = next((info[key] for key in _TIME_KEYS if info.get(key) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    # WebHDFS counts milliseconds.
    return float(value) / 1000 if "modificationTime" in info else float(value)
