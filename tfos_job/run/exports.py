"""Exported networks: `export.json`, the test for a whole version, and how one is published and kept.

::

    EXPORT_DIR/12/export.json      what it is: digest, step, classes, preprocessing, inputs and outputs, files
    EXPORT_DIR/12/…                what `inference/graph.py` has written, and files for other programs

A version is published whole by one rename, under the lock of EXPORT_DIR. Readers take the highest number, as TensorFlow
Serving does. No TensorFlow here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from tfos_job import storage
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats import hashing
from tfos_job.formats.form import Form
from tfos_job.formats.hashing import HashingReader
from tfos_job.layout import BUILDING_PREFIX, EXPORT_DOCUMENT, ExportLayout, RegistryLayout, export_version, join
from tfos_job.run.checkpoint_files import document_digest, files_misfit, misfit

FORMAT_VERSION = 1
_KINDS: dict[str, type] = {"version": int, "digest": str, "step": int, "files": dict}
_OF_NETWORK: dict[str, type | tuple[type, ...]] = {"classes": list, "preprocessing": dict, "top_k": int}
_OF_NETWORK |= {"ink": (dict, type(None))}
_PREPROCESSING: dict[str, type] = {"image_size": int, "num_channels": int, "antialias": bool, "on_paper": bool}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportInfo:
    """A version of an exported network: its folder, and its `export.json`."""

    path: str
    document: dict[str, Any]

    @property
    def version(self) -> int:
        return self.document["version"]

    @property
    def digest(self) -> str:
        """Of the model (`run/model_digest.py`)."""
        return self.document["digest"]

    @property
    def step(self) -> int:
        return self.document["step"]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.document["classes"])

    @property
    def form(self) -> Form:
        """Of the network's images."""
        found = self.document["preprocessing"]
        return Form(**{key: found[key] for key in ("image_size", "num_channels", "antialias")})

    @property
    def on_paper(self) -> bool:
        """Whether it knows ink on paper, so that the ink of other pictures must be found first."""
        return self.document["preprocessing"]["on_paper"]

    @property
    def ink(self) -> dict[str, Any] | None:
        """How the ink of training pictures looks (`inference/ink_statistics.py`); None if it is not known."""
        return self.document["ink"]


# --- reading ---------------------------------------------------------------------------------------------------------


def versions(export: ExportLayout) -> list[int]:
    """The published versions, highest first; not those without an `export.json`, which others have made."""
    return list(_published(export))


def newest(export: ExportLayout) -> int | None:
    """The highest of `versions`, without a question about lower ones; None if there is none."""
    return next(_published(export), None)


def _published(export: ExportLayout) -> Iterator[int]:
    return (number for number in numbers(export) if storage.exists(join(export.version(number), EXPORT_DOCUMENT)))


def numbers(export: ExportLayout) -> list[int]:
    """All folders that a server takes for versions, highest first."""
    if not storage.is_dir(export.root):
        return []
    found = [export_version(entry.name) for entry in storage.list_dir(export.root) if entry.is_dir]
    return sorted((number for number in found if number is not None), reverse=True)


def resolve(export_dir: str) -> str:
    """The folder of a version: `export_dir` itself, or that of its highest version.

    Raises:
      MissingInputError: there is none.
    """
    if storage.exists(join(export_dir, EXPORT_DOCUMENT)):
        return export_dir
    export = ExportLayout(export_dir)
    number = newest(export)
    if number is None:
        raise MissingInputError(
            f"no exported network there: no version with an {EXPORT_DOCUMENT}",
            place=export_dir,
            next_step="Make one with `tfos-job export`",
        )
    return export.version(number)


def read(path: str) -> ExportInfo:
    """The `export.json` of a version's folder.

    Raises:
      BadDataError: it is damaged.
      MissingInputError: there is none.
    """
    try:
        document = storage.read_json(join(path, EXPORT_DOCUMENT))
    except ValueError as error:
        raise _damaged(path, f"{EXPORT_DOCUMENT} is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
        raise _damaged(path, f"{EXPORT_DOCUMENT} is not of format version {FORMAT_VERSION}")
    if document.get("document_sha256") != document_digest(document):
        raise _damaged(path, f"{EXPORT_DOCUMENT} does not have its own digest")
    fact = misfit(document, _KINDS) or files_misfit(document["files"])
    if fact:
        raise _damaged(path, f"{EXPORT_DOCUMENT}: {fact}")
    for name in document["files"]:
        if ".." in name.split("/") or name.startswith("/"):  # copies of the files are written under these names
            raise _damaged(path, f"{EXPORT_DOCUMENT} names a file outside of the version: {name}")
    return ExportInfo(path, document)


def require_network(info: ExportInfo) -> None:
    """Raises BadDataError unless the document has what answers need: classes, preprocessing, ink, top-k."""
    document = info.document
    preprocessing = document.get("preprocessing")
    fact = misfit(document, _OF_NETWORK) or misfit(preprocessing or {}, _PREPROCESSING)
    if not fact and not all(isinstance(name, str) for name in document["classes"]):
        fact = "a class has a name that is no text"
    if fact:
        raise _damaged(info.path, f"{EXPORT_DOCUMENT}: {fact}")


def prove(info: ExportInfo) -> None:
    """Proves that the files of a version are those that were written.

    Raises:
      BadDataError: one is missing or another; the error says which.
    """
    for name in info.document["files"]:
        try:
            with storage.open_read(join(info.path, name)) as stream:
                reader = HashingReader(stream)
                while reader.read(storage.BUFFER_BYTES):
                    pass
        except MissingInputError as error:
            raise _damaged(info.path, f"{name} is missing") from error
        _require_same(info, name, reader.size_bytes, reader.sha256)


@contextlib.contextmanager
def local_files(info: ExportInfo) -> Iterator[str]:
    """Yields a local folder with the proved files of a version: its own, or a copy during the `with` block.

    Raises:
      BadDataError: as `prove`.
    """
    local = storage.local_path(info.path)
    if local is not None:
        prove(info)
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="tfos_job-") as folder:
        for name in info.document["files"]:
            target = join(folder, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            try:
                sha256 = storage.download(join(info.path, name), target)
            except MissingInputError as error:
                raise _damaged(info.path, f"{name} is missing") from error
            _require_same(info, name, os.path.getsize(target), sha256)
        yield folder


def _require_same(info: ExportInfo, name: str, size_bytes: int, sha256: str) -> None:
    expected = info.document["files"][name]
    if size_bytes != expected["size_bytes"]:
        raise _damaged(info.path, f"{name} has {size_bytes} bytes, expected {expected['size_bytes']}")
    if sha256 != expected["sha256"]:
        raise _damaged(info.path, f"{name} does not have the SHA-256 {expected['sha256']}")


def _damaged(path: str, fact: str) -> BadDataError:
    return BadDataError(f"not a whole export: {fact}", place=path, next_step="Use another version, or export it again")


def refuse_registry(export: ExportLayout) -> None:
    """Raises SettingsError for a folder of promoted versions, to which `promote` alone publishes."""
    if storage.is_dir(RegistryLayout(export.root).history_dir):  # there before its first version
        raise SettingsError(
            "is a registry of promoted models, and servers take what is published there",
            place=export.root,
            next_step="Export to another --export_dir, then `tfos-job promote`",
        )


# --- writing ---------------------------------------------------------------------------------------------------------


def publish(
    export: ExportLayout, folder: str, document: Mapping[str, Any], guard: Callable[[], None] = lambda: None
) -> ExportInfo:
    """Publishes what is in a local folder as the next version. The caller has the lock.

    Args:
      export: where.
      folder: local, with the version's files.
      document: the content of `export.json`; number, files and digest are added.
      guard: called last before it is published; raises if the lock is somebody else's by now.

    Raises:
      StorageError: the file system failed; nothing is published.
    """
    sweep(export)
    building = export.building(uuid.uuid4().hex)
    try:
        files = {name: _copy(join(folder, name), join(building, name)) for name in sorted(_names(folder))}
        number = max(numbers(export), default=0) + 1
        whole = {"format_version": FORMAT_VERSION, **document, "version": number, "files": files}
        whole["document_sha256"] = document_digest(whole)
        storage.write_json(join(building, EXPORT_DOCUMENT), whole)
        guard()
        storage.publish_dir(building, export.version(number))
    except BaseException:
        storage.remove(building)
        raise
    return ExportInfo(export.version(number), whole)


def copy(info: ExportInfo, folder: str, number: int) -> None:
    """Copies the proved files of a version into a new folder, as what is to be version `number` elsewhere.

    Raises:
      BadDataError: as `prove`.
    """
    with local_files(info) as local:
        for name in sorted(info.document["files"]):
            copied = _copy(join(local, name), join(folder, name))
            _require_same(info, name, copied["size_bytes"], copied["sha256"])
    whole = {**info.document, "version": number}
    whole["document_sha256"] = document_digest(whole)
    storage.write_json(join(folder, EXPORT_DOCUMENT), whole)


def retain(export: ExportLayout, num_versions: int) -> list[int]:
    """Removes all but the highest versions, and none that others have made; returns the removed. Needs the lock."""
    removed = versions(export)[num_versions:]
    for number in removed:
        storage.discard_dir(export.version(number))
        _log.info("removed version %d of %s", number, export.root)
    return removed


def sweep(export: ExportLayout) -> None:
    """Removes what a command that ended before its rename has left. Needs the lock."""
    for entry in storage.list_dir(export.root):
        if entry.name.startswith(BUILDING_PREFIX):
            storage.remove(entry.path)


def _names(folder: str) -> Iterator[str]:
    """The files below a local folder."""
    for parent, _, names in os.walk(folder):
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in names)


def _copy(source: str, target: str) -> dict[str, Any]:
    """Copies a local file; returns its size and digest."""
    storage.make_dirs(target.rpartition("/")[0])
    return storage.write_file(target, functools.partial(_write, source))


def _write(source: str, stream: BinaryIO) -> dict[str, Any]:
    copied = hashing.copy(source, stream)
    return {"size_bytes": copied.size_bytes, "sha256": copied.sha256}
