"""Statistics of a split's pixels for normalization, computed from sums over its records.

The pixels are those of training, decoded and resized, in integer levels 0 to 255. So every sum is an integer below 2⁵³
and does not depend on the order of the records or the number of tasks.

::

    DATASET_DIR/statistics-train-64-pixels-KEY.npz      mean and standard deviation of each channel, over all records
    DATASET_DIR/statistics-train-64-whitening-KEY.npz   mean, eigenvalues and eigenvectors of images, over a sample

KEY identifies the subject (`Subject.key`): another subject, or an older version of the split, has another file.

This module has no TensorFlow: `input/statistics_process.py` decodes, in a process of its own on an executor.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfos_job import storage
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import npz

FORMAT_VERSION = 1
PIXELS, WHITENING = "pixels", "whitening"
MAX_WHITENING_RECORDS = 100_000
_LEVELS = 255
_HEADER = "header"

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The subject of statistics.

    Attributes:
      kind: `pixels` or `whitening`.
      split_name: name of the split.
      dataset_digest: `Manifest.digest` of the split.
      image_size: S, in pixels.
      num_channels: C.
      antialias: see `form.Form`.
    """

    kind: str
    split_name: str
    dataset_digest: str
    image_size: int
    num_channels: int
    antialias: bool = False

    @property
    def num_values(self) -> int:
        """The number of values of one image, D."""
        return self.image_size**2 * self.num_channels

    @property
    def key(self) -> str:
        """Twelve hex digits that differ for every other subject."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The statistics of `subject`, computed from `num_records` records. Pixels are 0 to 1, arrays float64.

    Attributes:
      arrays: `mean` [C] and `stddev` [C] of `pixels`; `mean` [D], `eigenvalues` [D] of the covariance, the largest
        first, and `eigenvectors` [D, D], float32, one a column, of `whitening`.
    """

    subject: Subject
    num_records: int
    arrays: Arrays

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the arrays."""
        return digest_of(self.arrays)


def digest_of(arrays: Arrays) -> str:
    """Returns the SHA-256 (hex) of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# --- sums -------------------------------------------------------------------------------------------------------------


def is_sampled(index: int, num_records: int, limit: int) -> bool:
    """True if record `index` is in the sample of at most `limit`, evenly spread over all `num_records`."""
    chosen = min(limit, num_records)
    return (index + 1) * chosen // num_records > index * chosen // num_records


def zero_sums(subject: Subject) -> dict[str, np.ndarray]:
    """Returns zeros: `count` [] of records, and a histogram of each channel, or sums and products of values."""
    count = np.zeros([], np.int64)
    if subject.kind == PIXELS:
        return {"count": count, "histograms": np.zeros([subject.num_channels, _LEVELS + 1], np.int64)}
    size = subject.num_values
    return {"count": count, "sums": np.zeros([size]), "products": np.zeros([size, size])}


def add_images(sums: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Adds images, uint8 [n, S, S, C], to `zero_sums`; at most 256 images per call for whitening."""
    sums["count"] += len(images)
    if "histograms" in sums:
        for channel, histogram in enumerate(sums["histograms"]):
            histogram += np.bincount(images[..., channel].ravel(), minlength=_LEVELS + 1)
        return
    assert len(images) <= MAX_EXACT_IMAGES
    values = images.reshape(len(images), -1).astype(np.float32)
    sums["sums"] += values.sum(axis=0, dtype=np.float64)
    sums["products"] += values.T @ values


MAX_EXACT_IMAGES = 256
"""256 · 255² is less than 2²⁴, so float32 represents a sum over this number of images, and each step of it, exactly."""


def statistics_of(subject: Subject, sums: Arrays) -> Statistics:
    """Computes statistics from the sums over the records."""
    count = int(sums["count"])
    if subject.kind == PIXELS:
        histograms = sums["histograms"]
        levels = np.arange(_LEVELS + 1)
        total = count * subject.image_size**2
        mean = histograms @ levels / total
        variance = histograms @ levels**2 / total - mean**2
        arrays = {"mean": mean / _LEVELS, "stddev": np.sqrt(np.maximum(variance, 0)) / _LEVELS}
    else:
        mean = sums["sums"] / count
        covariance = sums["products"] / count
        covariance -= np.outer(mean, mean)
        eigenvalues, eigenvectors = np.linalg.eigh(covariance)
        # The largest first. A vector's sign does not matter; it is fixed so that all runs have the same.
        eigenvalues, eigenvectors = np.maximum(eigenvalues[::-1], 0), eigenvectors[:, ::-1]
        largest = np.take_along_axis(eigenvectors, np.abs(eigenvectors).argmax(axis=0)[np.newaxis], axis=0)
        arrays = {
            "mean": mean / _LEVELS,
            "eigenvalues": eigenvalues / _LEVELS**2,
            "eigenvectors": (eigenvectors * np.sign(largest)).astype(np.float32),
        }
    return Statistics(subject=subject, num_records=count, arrays=arrays)


# --- files ------------------------------------------------------------------------------------------------------------


def write(path: str, statistics: Statistics) -> None:
    """Writes a file of statistics, which replaces an older one."""
    header = {
        "format_version": FORMAT_VERSION,
        "subject": vars(statistics.subject),
        "num_records": statistics.num_records,
        "digest": statistics.digest,
    }
    storage.write_bytes(path, to_bytes({_HEADER: np.array(json.dumps(header)), **statistics.arrays}))


def read(path: str) -> Statistics:
    """Reads a file of `write`.

    Raises:
      MissingInputError: it does not exist.
      BadDataError: it is damaged.
    """
    try:
        arrays = from_bytes(storage.read_bytes(path))
        header: dict[str, Any] = json.loads(str(arrays.pop(_HEADER)))
        if header["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {header['format_version']}, expected {FORMAT_VERSION}")
        found = Statistics(subject=Subject(**header["subject"]), num_records=header["num_records"], arrays=arrays)
        if found.digest != header["digest"]:
            raise ValueError(f"its arrays have the SHA-256 {found.digest[:12]}, expected {header['digest'][:12]}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadDataError(
            f"not statistics of a split: {error}", place=path, next_step="Remove it: `train` makes it again"
        ) from error
    return found


def read_fitting(path: str, subject: Subject) -> Statistics | None:
    """Returns the statistics at `path`; None if they are missing, damaged or of another subject."""
    try:
        found = read(path)
    except (MissingInputError, BadDataError):
        return None
    return found if found.subject == subject else None


def to_bytes(arrays: Arrays) -> bytes:
    """Returns the bytes of an .npz file."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def from_bytes(data: bytes) -> dict[str, np.ndarray]:
    """Reads the bytes of `to_bytes`; raises ValueError for other bytes."""
    return npz.load(data)
