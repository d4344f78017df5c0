"""An entry of a registry's history: a JSON document about one promotion, rollback, or candidate that was kept out.

Documents are read strictly: a file of another program, or one that was changed by hand, is an error and no instruction.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import msgspec

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.run.checkpoint_files import document_digest

FORMAT_VERSION = 1
PROMOTED, ROLLED_BACK, KEPT = "promoted", "rolled_back", "kept"
_MOST_BYTES = 16 << 20
_UNREADABLE = (ValueError, TypeError, KeyError, RecursionError, msgspec.MsgspecError)
_PREDICTIONS = re.compile(r"0*([1-9][0-9]*)\.npz", re.ASCII)

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Number = Annotated[int, msgspec.Meta(ge=1)]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What a server answers with: `digest` is `run/model_digest.py`'s; `formats` are the exported ones.

    `has_ink`: whether the export knows how the ink of training pictures looks.
    """

    digest: Digest
    step: int
    charset_digest: Digest
    num_classes: Number
    top_k: Number
    formats: list[str]
    has_ink: bool


class FrozenSet(msgspec.Struct, frozen=True, kw_only=True):
    """The records that the model was judged by; `digest` is that of the split's manifest."""

    digest: Digest
    dataset_dir: str
    split: str
    num_records: Number


class PredictionsFile(msgspec.Struct, frozen=True, kw_only=True):
    """The model's predictions for the frozen set, in the folder of the history."""

    file: str
    size_bytes: int
    sha256: Digest


class PromotionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry.

    Attributes:
      kind: `promoted`, `rolled_back`, or `kept` of a candidate that was not promoted.
      version: under which servers find the model; None of `kept`.
      parent: the version that was the current one before; None if there was none.
      restores: of `rolled_back` the version whose files these are.
      time, who: when (UTC), and `user` and `host`.
      reason: in words.
      forced: whether a person has overruled the gate.
      model, frozen_set: as above.
      training, source, code, environment, flags, metrics: lineage, JSON values (docs/formats.md).
      gate: `Judgement.to_json`; None of `rolled_back`.
      predictions: None of `kept`.
      withdrawn: models that were rolled back from, by digest, each with its version.
    """

    format_version: int = FORMAT_VERSION
    kind: Literal["promoted", "rolled_back", "kept"]
    version: Number | None
    parent: Number | None
    restores: Number | None
    time: str
    who: dict[str, str]
    reason: str
    forced: bool
    model: Model
    frozen_set: FrozenSet
    training: dict[str, Any]
    source: dict[str, Any]
    code: dict[str, Any]
    environment: dict[str, Any]
    flags: dict[str, Any]
    metrics: dict[str, Any]
    gate: dict[str, Any] | None
    predictions: PredictionsFile | None
    withdrawn: dict[Digest, Number]


def to_bytes(entry: PromotionEntry) -> bytes:
    """The document, with its own digest.

    Raises:
      BadDataError: it could not be read again: an export or an evaluation is not what it claims to be.
    """
    try:
        document = msgspec.to_builtins(entry)
        document["document_sha256"] = document_digest(document)
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        data = (text + "\n").encode("utf-8")
        _parsed(data)
    except _UNREADABLE as error:
        raise BadDataError(
            f"what is to be recorded of it is no entry of a registry: {error}",
            place=str(entry.source.get("path", "")),
            next_step="Export it again",
        ) from error
    return data


def read(path: str, next_step: str, version: int | None = None) -> tuple[PromotionEntry, bytes]:
    """Reads a document; returns its bytes, too, which are copied as they are.

    Args:
      path: of the document.
      next_step: of the error about a bad one.
      version: which the entry must have; None for any.

    Raises:
      BadDataError: it is damaged, of another version, or contradicts itself.
      MissingInputError: there is none.
    """
    if storage.stat(path).size_bytes > _MOST_BYTES:
        raise BadDataError(f"more than {_MOST_BYTES >> 20} MiB", place=path, next_step=next_step)
    data = storage.read_bytes(path)
    try:
        entry = _parsed(data)
        if version is not None and entry.version != version:
            raise ValueError(f"it is about version {entry.version}, expected {version}")
    except _UNREADABLE as error:
        raise BadDataError(f"no entry of a registry: {error}", place=path, next_step=next_step) from error
    return entry, data


def _parsed(data: bytes) -> PromotionEntry:
    """Raises one of `_UNREADABLE` for bytes that are no entry."""
    entry = msgspec.json.decode(data, type=PromotionEntry)
    document = json.loads(data)
    if document["document_sha256"] != document_digest(document):
        raise ValueError("it does not have its own digest")
    _require_consistent(entry)
    return entry


def _require_consistent(entry: PromotionEntry) -> None:
    """Raises ValueError for fields that contradict each other: what follows relies on lower and lower numbers."""
    if entry.format_version != FORMAT_VERSION:
        raise ValueError(f"format_version {entry.format_version}, expected {FORMAT_VERSION}")
    if (entry.version is None) != (entry.kind == KEPT) or (entry.predictions is None) != (entry.kind == KEPT):
        raise ValueError(f"version {entry.version} of kind {entry.kind}")
    if (entry.restores is None) == (entry.kind == ROLLED_BACK):
        raise ValueError(f"{entry.kind} restores {entry.restores}")
    if entry.version is None or entry.predictions is None:
        return
    for name, number in (("parent", entry.parent), ("restores", entry.restores)):
        if number is not None and number >= entry.version:
            raise ValueError(f"{name} {number} is not before version {entry.version}")
    match = _PREDICTIONS.fullmatch(entry.predictions.file)
    if match is None or int(match[1]) > entry.version:
        raise ValueError(f"{entry.predictions.file} is no file of predictions")
