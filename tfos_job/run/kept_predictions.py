"""The predictions of an evaluation as a file, so that another model is compared on the same records.

An .npz with the four columns of `run/predictions.py`, 16 bytes a record, `shard_sizes`, and `header`: JSON that says
whose predictions they are, and for which records. It is read strictly, since a promotion follows from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.layout import RunLayout
from tfos_job.run.predictions import Predictions
from tfos_job.statistics import pixel_statistics

FORMAT_VERSION = 1
_HEADER = "header"
_COLUMNS = {"labels": np.int32, "predicted": np.int32, "probabilities": np.float32, "losses": np.float32}
_SIZES = "shard_sizes"
_UNREADABLE = (
    *(ValueError, KeyError, OSError, EOFError, MemoryError, RecursionError),
    *(zipfile.BadZipFile, msgspec.MsgspecError),
)


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Whose predictions, and for which records.

    Attributes:
      model_digest: `run/model_digest.py`.
      step, checkpoint: of the checkpoint; the path of its folder.
      dataset_dir, split: of the records.
      dataset_digest: `digest` of the split's manifest: the same one, the same records in the same order.
      charset_digest, num_classes: of the split and the model.
      metrics: as `evaluate` prints them.
      train_flags: the run's settings; None if they cannot be read.
      created, package_version: when, and by which version.
    """

    format_version: int = FORMAT_VERSION
    model_digest: str
    step: int
    checkpoint: str
    dataset_dir: str
    split: str
    dataset_digest: str
    charset_digest: str
    num_classes: int
    metrics: dict[str, int | float]
    train_flags: dict[str, Any] | None
    created: str
    package_version: str


@dataclass(frozen=True)
class KeptPredictions:
    """The predictions of an evaluation, and whose they are."""

    header: Header
    predictions: Predictions


def to_bytes(kept: KeptPredictions) -> bytes:
    """The bytes of the file."""
    arrays = {name: getattr(kept.predictions, name).astype(kind) for name, kind in _COLUMNS.items()}
    arrays[_SIZES] = np.array(kept.predictions.shard_sizes, np.int64)
    header = json.dumps(msgspec.to_builtins(kept.header), sort_keys=True, ensure_ascii=False)
    return pixel_statistics.to_bytes({_HEADER: np.frombuffer(header.encode(), np.uint8), **arrays})


def write_predictions(run: RunLayout, kept: KeptPredictions) -> str:
    """Writes the predictions for a run's checkpoint into its folder, in place of earlier ones; returns their path."""
    path = run.evaluation_predictions(kept.header.step, kept.header.split)
    storage.make_dirs(run.evaluation_dir)
    storage.write_bytes(path, to_bytes(kept))
    return path


def read(path: str, sha256: str | None = None) -> tuple[KeptPredictions, bytes]:
    """Reads a file of `to_bytes`; returns its bytes, too.

    Args:
      path: of the file.
      sha256: which its bytes must have (hex); None for any.

    Raises:
      BadDataError: it is damaged, or of another version.
      MissingInputError: there is none.
    """
    data = storage.read_bytes(path)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise _bad(path, f"does not have the SHA-256 {sha256}")
    try:
        _require_stored(data)
        arrays = pixel_statistics.from_bytes(data)
        header = msgspec.json.decode(arrays[_HEADER].tobytes(), type=Header)
        if header.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version {header.format_version}, expected {FORMAT_VERSION}")
        return KeptPredictions(header, _predictions(arrays, header.num_classes)), data
    except _UNREADABLE as error:
        raise _bad(path, f"no predictions of an evaluation: {error}") from error


def _require_stored(data: bytes) -> None:
    """Raises ValueError for a compressed member, which may be any number of times as large in memory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        packed = [member.filename for member in archive.infolist() if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"{packed[0]} is compressed")


def _predictions(arrays: Mapping[str, np.ndarray], num_classes: int) -> Predictions:
    """Raises ValueError or KeyError for arrays that no evaluation has made."""
    columns = {name: arrays[name] for name in _COLUMNS}
    sizes = arrays[_SIZES]
    for name, kind in {**_COLUMNS, _SIZES: np.int64}.items():
        if arrays[name].dtype != kind or arrays[name].ndim != 1:
            raise ValueError(f"{name} is {arrays[name].dtype} {list(arrays[name].shape)}, expected {kind.__name__} [N]")
    lengths = {len(column) for column in columns.values()} | {int(sizes.sum())}
    if len(lengths) != 1 or (sizes < 0).any():
        raise ValueError(f"its columns are of {sorted(lengths)} records")
    for name in ("labels", "predicted"):
        if ((columns[name] < 0) | (columns[name] >= num_classes)).any():
            raise ValueError(f"{name} has a class beyond the {num_classes} of the model")
    for name in ("probabilities", "losses"):
        if not np.isfinite(columns[name]).all():
            raise ValueError(f"{name} has a number that is not finite")
    return Predictions(**columns, shard_sizes=tuple(sizes.tolist()))


def _bad(path: str, fact: str) -> BadDataError:
    return BadDataError(fact, place=path, next_step="Evaluate the model again with `tfos-job evaluate`")
