"""The pictures that `predict` is given on its command line: files, all files of folders, and standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tfos_job import storage
from tfos_job.config.defaults import STDIN
from tfos_job.conversion import sources
from tfos_job.conversion.folders import FoundFile, shown
from tfos_job.errors import AccessError, BadDataError, MissingInputError
from tfos_job.formats.image_files import MAX_BYTES
from tfos_job.inference.pictures import Request


def requests_of(images: Sequence[str]) -> list[Request]:
    """The pictures in order, those of a folder sorted by their names. Nothing but standard input is read yet.

    What is not there, and a folder without a picture, is a request with the error about it.

    Raises:
      SettingsError: no file system has such a name.
      StorageError: a file system has failed.
    """
    return [request for image in images for request in _of(image)]


def _of(image: str) -> Iterator[Request]:
    if image == STDIN:
        yield Request(image, sys.stdin.buffer.read(MAX_BYTES + 1))
        return
    try:
        files = _in_folder(image) if storage.stat(image).is_dir else None
    except (AccessError, MissingInputError) as error:
        yield Request(image, error)
        return
    if files is None:
        yield Request(image, image)
        return
    for file in files:
        path = f"{image.rstrip('/')}/{file.name}"
        yield Request(path, _special(path, file.special) if file.special else path)


def _in_folder(folder: str) -> list[FoundFile]:
    found = sources.images_below(folder)
    files = shown(found)
    if not files:
        raise MissingInputError(
            f"none of its {len(found)} files is an image", place=folder, next_step="Give a PNG, JPEG or GIF"
        )
    return files


def _special(path: str, kind: str) -> BadDataError | MissingInputError:
    """The error about what is no file: reading it might never end."""
    if kind == storage.BROKEN_LINK:
        return MissingInputError(kind, place=path, next_step="Mount or restore what it leads to, or remove it")
    return BadDataError(f"{kind}, not a file", place=path, next_step="Move it away")
