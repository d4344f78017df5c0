"""Operations on names: stat, list, find, make, rename, publish and remove."""

from __future__ import annotations

import contextlib

from tfos_job.errors import MissingInputError, SettingsError, StorageError
from tfos_job.storage.backend import Entry
from tfos_job.storage.backends import backend_of, temporary_name
from tfos_job.storage.error_mapping import job_errors


def stat(path: str) -> Entry:
    """Returns the entry of a file or folder.

    Raises:
      MissingInputError: nothing is at `path`.
    """
    with job_errors(path, "look at"):
        return backend_of(path).stat(path)


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
    """Returns the entries of a folder, sorted by name."""
    with job_errors(path, "list"):
        return sorted(backend_of(path).list(path), key=lambda entry: entry.name)


def find(path: str, suffix: str, *, with_hidden: bool = False) -> list[Entry]:
    """Returns the files below `path` whose names end with `suffix`, sorted by path.

    A leading `_` or `.` hides a file or folder, as in Hadoop's input formats: it is unfinished, or another
    program's bookkeeping. `with_hidden` lists those as well, for folders in which users choose the names.
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


def make_dirs(path: str) -> None:
    """Makes a folder and its parents; ignored when it exists.

    Raises:
      SettingsError: a file has its name, or the name of one of its parents.
    """
    with job_errors(path, "make"):
        try:
            backend_of(path).make_dirs(path)
        except (FileExistsError, NotADirectoryError) as error:
            fact = "cannot make the folder: a file is there, or in place of a folder above it"
            raise SettingsError(fact, place=path, next_step="Give another folder, or move the file away") from error


def remove(path: str) -> None:
    """Removes a file, or a folder with its contents; ignored when nothing is there."""
    with job_errors(path, "remove"), contextlib.suppress(FileNotFoundError):
        backend_of(path).remove(path)


def discard_dir(path: str) -> None:
    """Removes a folder that a task may still write to; ignored when it does not exist.

    The folder is renamed first: the task's paths no longer exist, so it adds nothing during the removal.
    """
    remove(hide_dir(path))


def hide_dir(path: str) -> str:
    """Renames a folder, by one step, to a name that no reader looks for, and returns that; it need not exist."""
    hidden = temporary_name(path)
    with job_errors(path, "remove"), contextlib.suppress(FileNotFoundError):
        backend_of(path).move_dir(path, hidden)
    return hidden


def rename(source: str, target: str) -> None:
    """Renames a file in one step and replaces `target`."""
    with job_errors(source, "rename"):
        backend_of(source).replace(source, target)


def publish_dir(source: str, target: str) -> None:
    """Publishes the finished folder `source` as `target` by one rename.

    Raises:
      StorageError: `target` exists; nothing was renamed.
    """
    if exists(target):
        raise StorageError(
            "already there, so nothing was published over it",
            place=target,
            next_step="Another job may have written it: look at its manifest or report, then run again",
        )
    with job_errors(source, "publish"):
        backend_of(source).move_dir(source, target)
