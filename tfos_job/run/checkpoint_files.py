"""The files of one checkpoint, and the test for a whole one.

::

    step-00002000/
        variables.npz      every array under its name, uncompressed, loadable by numpy.load(..., allow_pickle=False)
        checkpoint.json    what belongs to them: step, shapes, sizes and SHA-256, network, charset, input position

A whole checkpoint has all files, of the right size and digest, that load and hold finite numbers.
"""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from tfos_job import storage
from tfos_job.config import GNT, NO_NORMALIZATION
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import npz, readers
from tfos_job.formats.form import Form
from tfos_job.formats.hashing import HashingReader, HashingWriter
from tfos_job.layout import join

FORMAT_VERSION = 1
OPTIMIZER_PREFIX = "optimizer/"  # of the names of arrays that training alone needs
VARIABLES_FILE = "variables.npz"
DOCUMENT_FILE = "checkpoint.json"
_KINDS: dict[str, type] = {"step": int, "files": dict, "variables": dict}
_OWN_KEYS = {"format_version", "step", "time", "variables", "files", "document_sha256"}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class CheckpointInfo:
    """A whole checkpoint: its folder, and its `checkpoint.json`. Older documents have fewer entries."""

    path: str
    document: dict[str, Any]

    @property
    def step(self) -> int:
        return self.document["step"]

    @property
    def model(self) -> dict[str, Any]:
        """The arguments of `networks.registry.build` except the seed. Without `num_channels` images are grey."""
        return {"num_channels": 1, **self.document["model"]}

    @property
    def normalization(self) -> dict[str, Any]:
        """`kind`, `epsilon` and the `digest` of the statistics, whose arrays are among the variables; default: none."""
        return self.document.get("normalization", {"kind": NO_NORMALIZATION})

    @property
    def characters(self) -> Sequence[str]:
        """The characters, or names, of the classes in the order of their ids."""
        return self.document["characters"]

    @property
    def dataset_name(self) -> str:
        """The reader of the training split; default: that of glyphs."""
        return self.document.get("dataset_name", GNT)

    @property
    def form(self) -> Form:
        """The form of the images that its network was trained with.

        Raises:
          SettingsError: there is no such reader any more.
        """
        return Form(
            image_size=self.model["image_size"],
            num_channels=self.model["num_channels"],
            antialias=readers.resolve(None, self.dataset_name, self.path).antialias,
        )

    @property
    def charset_digest(self) -> str:
        return self.document["charset_digest"]

    @property
    def dataset_digest(self) -> str:
        return self.document["dataset_digest"]

    @property
    def input_position(self) -> dict[str, Any]:
        return self.document["input_position"]

    @property
    def trainable_scopes(self) -> tuple[str, ...]:
        """The scopes that were trained; empty for all."""
        return tuple(self.document.get("trainable_scopes", ()))

    @property
    def size_bytes(self) -> int:
        """Bytes of its arrays."""
        return sum(file["size_bytes"] for file in self.document["files"].values())

    @property
    def meta(self) -> dict[str, Any]:
        """The values that `write` was given beside the variables."""
        return {key: value for key, value in self.document.items() if key not in _OWN_KEYS}


def write(folder: str, step: int, variables: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes the files of a checkpoint into an empty folder.

    Args:
      folder: of the checkpoint.
      step: the global step.
      variables: arrays by name; names may hold `/`.
      meta: JSON values, which come back as `CheckpointInfo.meta`.
    """
    files = {VARIABLES_FILE: _write_variables(join(folder, VARIABLES_FILE), variables)}
    document = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "variables": {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in variables.items()},
        "files": files,
        **meta,
    }
    document["document_sha256"] = document_digest(document)
    storage.write_json(join(folder, DOCUMENT_FILE), document)


def read(path: str, leave_out: tuple[str, ...] = ()) -> tuple[CheckpointInfo, Arrays]:
    """A checkpoint and its arrays, if it is whole.

    Args:
      path: of its folder.
      leave_out: beginnings of the names of arrays that are not wanted: the file's digest is proved, and no more.

    Raises:
      BadDataError: it is torn or damaged; the error says where.
      MissingInputError: it is gone.
    """
    document = _read_document(path)
    return CheckpointInfo(path, document), read_variables(path, document, leave_out)


def read_info(path: str) -> CheckpointInfo:
    """A checkpoint's document, whose arrays are not looked at; raises as `read` does."""
    return CheckpointInfo(path, _read_document(path))


def prove(path: str) -> None:
    """Proves that a checkpoint's files are those that were written, in little memory.

    Raises:
      BadDataError: it is torn or damaged; the error says where.
      MissingInputError: it is gone.
    """
    expected = _read_document(path)["files"][VARIABLES_FILE]
    try:
        with storage.open_read(join(path, VARIABLES_FILE)) as stream:
            reader = HashingReader(stream)
            while reader.read(storage.BUFFER_BYTES):
                pass
    except MissingInputError as error:
        raise _absent(path, VARIABLES_FILE) from error
    _require_same(path, expected, reader.size_bytes, reader.sha256)


def first_not_finite(variables: Mapping[str, np.ndarray]) -> str | None:
    """The first variable that holds NaN or Inf; None without one."""
    for name, array in variables.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            return name
    return None


def misfit(document: Mapping[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> str:
    """The first entry of a document that is missing or of another type, in words; empty without one."""
    for name, kind in kinds.items():
        if not isinstance(document.get(name), kind):
            return f"{name!r} is {type(document[name]).__name__}" if name in document else f"{name!r} is missing"
    return ""


def files_misfit(files: Mapping[str, Any]) -> str:
    """The same of the files that a document names."""
    for name, of_file in files.items():
        fact = misfit(of_file, {"size_bytes": int, "sha256": str}) if isinstance(of_file, dict) else "is no object"
        if fact:
            return f"file {name}: {fact}"
    return ""


def document_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document without its own digest."""
    content = {key: value for key, value in document.items() if key != "document_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_variables(path: str, variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes an .npz front to back, as HDFS needs it (`numpy.savez` wants to seek), hashing on the way."""

    def write(stream: BinaryIO) -> dict[str, Any]:
        writer = HashingWriter(stream)
        with zipfile.ZipFile(writer, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
            for name, array in variables.items():
                # A ZipInfo without a time: the same variables give the same bytes.
                with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        return {"size_bytes": writer.size_bytes, "sha256": writer.sha256}

    return storage.write_file(path, write)


def _absent(path: str, name: str) -> BadDataError | MissingInputError:
    """The error for a file of a checkpoint that is not there: it is published whole, and removed as a whole."""
    if storage.is_dir(path):
        return _torn(path, f"{name} is missing")
    return MissingInputError(
        "the checkpoint is gone: a training removes all but its last ones and its best",
        place=path,
        next_step="Give `last`, `best` or another one",
    )


def _torn(path: str, fact: str) -> BadDataError:
    return BadDataError(f"not a whole checkpoint: {fact}", place=path, next_step="Use another one, or remove it")


def _read_document(path: str) -> dict[str, Any]:
    try:
        document = storage.read_json(join(path, DOCUMENT_FILE))
    except MissingInputError as error:
        raise _absent(path, DOCUMENT_FILE) from error
    except ValueError as error:
        raise _torn(path, f"{DOCUMENT_FILE} is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
        raise _torn(path, f"{DOCUMENT_FILE} is not of format version {FORMAT_VERSION}")
    if document.get("document_sha256") != document_digest(document):
        raise _torn(path, f"{DOCUMENT_FILE} does not have its own digest")
    fact = misfit(document, _KINDS) or files_misfit(document["files"])
    if not fact and VARIABLES_FILE not in document["files"]:
        fact = f"file {VARIABLES_FILE} is missing"
    if fact:
        raise _torn(path, f"{DOCUMENT_FILE}: {fact}")
    return document


def _require_same(path: str, expected: Mapping[str, Any], size_bytes: int, sha256: str) -> None:
    if size_bytes != expected["size_bytes"]:
        raise _torn(path, f"{VARIABLES_FILE} has {size_bytes} bytes, expected {expected['size_bytes']}")
    if sha256 != expected["sha256"]:
        raise _torn(path, f"{VARIABLES_FILE} does not have the SHA-256 {expected['sha256']}")


def read_variables(path: str, document: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> Arrays:
    """The arrays of the checkpoint at `path`, which must be those of its document; raises as `read` does."""
    expected = document["files"][VARIABLES_FILE]
    try:
        data = storage.read_bytes(join(path, VARIABLES_FILE))
    except MissingInputError as error:
        raise _absent(path, VARIABLES_FILE) from error
    _require_same(path, expected, len(data), hashlib.sha256(data).hexdigest())
    try:
        arrays = npz.load(data, leave_out)
    except ValueError as error:
        raise _torn(path, f"{VARIABLES_FILE} does not load ({error})") from error
    shapes = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in arrays.items()}
    if shapes != {name: of for name, of in document["variables"].items() if not name.startswith(leave_out)}:
        raise _torn(path, f"{VARIABLES_FILE} does not hold the variables that {DOCUMENT_FILE} names")
    broken = first_not_finite(arrays)
    if broken:
        raise _torn(path, f"variable {broken} is not finite")
    return arrays
