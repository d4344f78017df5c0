"""Files of the operating system: plain paths and `file:` URLs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Callable

from tfos_job.layout import join
from tfos_job.storage.backend import Entry, T, last_name
from tfos_job.storage.urls import FILE, scheme_of

BROKEN_LINK = "a link that leads nowhere, or back to a folder that it is in"
_SPECIAL = {
    stat.S_IFLNK: BROKEN_LINK,  # others are followed
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def local_path(path: str) -> str | None:
    """Returns the plain path of a plain path or a `file:` URL; None for any other scheme.

    Nothing is percent-decoded, as in Hadoop, TensorFlow and fsspec: a name in a URL is the name on the disk.
    """
    scheme = scheme_of(path)
    if scheme == FILE:
        return path[len("file:") :].removeprefix("//")
    return path if scheme is None else None


def _plain(path: str) -> str:
    plain = local_path(path)
    assert plain is not None, path
    return plain


class Local:
    """A local file system."""

    def open_read(self, path: str) -> io.RawIOBase:
        return open(_plain(path), "rb", buffering=0)

    def create(self, new_path: Callable[[], str]) -> io.RawIOBase:
        return open(_plain(new_path()), "xb", buffering=0)

    def sync(self, raw: io.RawIOBase) -> None:
        os.fsync(raw.fileno())

    def stat(self, path: str) -> Entry:
        return _entry(path, os.stat(_plain(path)))

    def list(self, path: str) -> list[Entry]:
        with os.scandir(_plain(path)) as entries:
            return [_entry(join(path, entry.name), _status(entry)) for entry in entries]

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

    def persist(self, attempt: Callable[[], T]) -> T:
        return attempt()


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Returns the status of an entry; of the link itself for a link that is broken or leads to a parent folder."""
    try:
        status = entry.stat()
    except OSError as error:
        if not entry.is_symlink() or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return entry.stat(follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode) and entry.is_symlink() and _leads_back(entry.path):
        return entry.stat(follow_symlinks=False)
    return status


def _leads_back(link: str) -> bool:
    """True if the target contains the link, or a folder on the way to it: following such a link never ends."""
    target = os.path.realpath(link)
    folder = os.path.abspath(os.path.dirname(link))
    while True:
        if os.path.commonpath([target, os.path.realpath(folder)]) == target:
            return True
        if folder == os.path.dirname(folder):
            return False
        folder = os.path.dirname(folder)


def _entry(path: str, status: os.stat_result) -> Entry:
    kind = stat.S_IFMT(status.st_mode)
    return Entry(last_name(path), path, status.st_size, status.st_mtime, kind == stat.S_IFDIR, _SPECIAL.get(kind, ""))
