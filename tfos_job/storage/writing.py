"""Writing of files: under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol, cast

from tfos_job.errors import JobError
from tfos_job.storage.backend import BUFFER_BYTES, T
from tfos_job.storage.backends import backend_of, temporary_name
from tfos_job.storage.error_mapping import job_errors
from tfos_job.storage.names import make_dirs, remove
from tfos_job.storage.streams import Guarded


class Writable(Protocol):
    """A file object opened for writing."""

    def write(self, data: bytes | memoryview, /) -> object: ...


@contextlib.contextmanager
def open_write(path: str) -> Iterator[BinaryIO]:
    """Writes a file that appears, and replaces an older one, when the block ends without an exception."""
    backend = backend_of(path)
    temporary = ""

    def new_temporary() -> str:
        nonlocal temporary
        temporary = temporary_name(path)  # a new one for each try: the server may still carry out an abandoned one
        return temporary

    def discard() -> None:
        # Report the first error. A temporary file that cannot be removed is recognised by its name.
        with contextlib.suppress(OSError, RuntimeError, JobError):
            backend.discard(temporary)

    with job_errors(path, "write"):
        raw = backend.create(new_temporary)
    stream = io.BufferedWriter(Guarded(raw, path), BUFFER_BYTES)
    try:
        try:
            yield cast(BinaryIO, stream)
            stream.flush()
            with job_errors(path, "write"):
                backend.sync(raw)
        except BaseException:
            with contextlib.suppress(OSError, RuntimeError, JobError):  # report the first error
                stream.close()
            raise
        stream.close()
        with job_errors(path, "write"):
            backend.replace(temporary, path)
    except BaseException:
        discard()
        raise


def write_file(path: str, write: Callable[[BinaryIO], T]) -> T:
    """Writes a file as `open_write` does, and writes it again from its beginning after a failure that passes.

    Args:
      path: of the file.
      write: writes the whole file to the stream; called again, with another stream, for each further try.

    Returns:
      The result of the last `write`.
    """

    def attempt() -> T:
        with open_write(path) as stream:
            return write(stream)

    return backend_of(path).persist(attempt)


def write_bytes(path: str, data: bytes) -> None:
    write_file(path, lambda stream: stream.write(data))


def write_json(path: str, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


def require_writable(folder: str) -> None:
    """Makes a folder if it is missing, and writes a file there and removes it, for work whose result comes later.

    Raises:
      JobError: what the result's own writing would raise.
    """
    make_dirs(folder)
    trial = temporary_name(f"{folder.rstrip('/')}/trial")
    try:
        write_bytes(trial, b"")
    except JobError as error:
        raise type(error)(error.fact, place=folder, next_step=error.next_step) from error
    remove(trial)


def create_exclusive(path: str, data: bytes) -> bool:
    """Creates a file with this content in one step, unless it exists.

    Returns:
      False if the file of another writer exists.
    """
    temporary = temporary_name(path)
    write_bytes(temporary, data)
    try:
        with job_errors(path, "create"):
            try:
                backend_of(path).move_new_file(temporary, path)
            except FileExistsError:
                return False
        return True
    finally:
        remove(temporary)
