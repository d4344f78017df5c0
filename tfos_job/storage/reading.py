"""Reading of files: as a stream, as a whole, and as a verified local copy."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
from typing import Any, BinaryIO, Protocol, cast

from tfos_job.storage.backend import BUFFER_BYTES
from tfos_job.storage.backends import backend_of, temporary_name
from tfos_job.storage.error_mapping import job_errors
from tfos_job.storage.names import rename
from tfos_job.storage.streams import Guarded

_PIECE_BYTES = 4 << 20
MOST_JSON_BYTES = 512 << 20
"""Of a JSON file that is read. The largest is the manifest of a split of a million GNT files, some 300 MB."""


class Readable(Protocol):
    """A file object opened for reading."""

    def read(self, size: int, /) -> bytes: ...


def open_read(path: str) -> BinaryIO:
    """Opens a file for buffered reading.

    Raises:
      MissingInputError: the file does not exist. Later reads may raise `StorageError`.
    """
    with job_errors(path, "read"):
        return cast(BinaryIO, io.BufferedReader(Guarded(backend_of(path).open_read(path), path), BUFFER_BYTES))


def read_bytes(path: str, most_bytes: int = -1) -> bytes:
    """The content of a file, or its first `most_bytes`: one more than are taken tells a file that is too large."""

    def attempt() -> bytes:
        with open_read(path) as stream:
            return stream.read(most_bytes)

    return backend_of(path).persist(attempt)


def read_json(path: str) -> Any:
    """Returns the value in a JSON file.

    Raises:
      MissingInputError: the file does not exist.
      ValueError: its content is not JSON, nested too deeply, or larger than `MOST_JSON_BYTES`; the caller turns
        that into an error of its own.
    """
    data = read_bytes(path, MOST_JSON_BYTES + 1)
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"it has more than {MOST_JSON_BYTES} bytes")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def download(path: str, target: str) -> str:
    """Copies a file to a local path, where it appears complete and replaces an older one.

    Failures that pass are retried from the byte reached, and the time limit of retries holds for each piece, so a large
    file may take longer. Compare the digest to detect that the file was replaced during the copy.

    Returns:
      SHA-256 (hex) of the bytes now at `target`.

    Raises:
      MissingInputError: the file does not exist.
      StorageError: it cannot be read any more, or the local disk is full.
    """
    backend, digest, temporary = backend_of(path), hashlib.sha256(), temporary_name(target)
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
        with job_errors(temporary, "write"), open(temporary, "xb") as file:
            while piece := backend.persist(functools.partial(next_piece, file.tell())):
                digest.update(piece)
                file.write(piece)
        rename(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        if source is not None:
            source.close()
    return digest.hexdigest()
