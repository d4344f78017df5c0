"""The digest by which answers name their model: the same for a checkpoint, its copies and its exports. numpy alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from tfos_job.formats import readers
from tfos_job.run.checkpoint_files import CheckpointInfo

PREPROCESSING_VERSION = 1
"""Rises when the same picture becomes other pixels (`input/decoding.py`), so that digests differ as answers do."""
_PREFIXES = ("model/", "normalization/")


def model_digest(info: CheckpointInfo, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 (hex) over all that an answer about a picture follows from: weights, classes, preprocessing.

    Args:
      info: of the checkpoint.
      arrays: its arrays by name; those of the optimizer are not looked at.

    Raises:
      SettingsError: this version has no such reader.
    """
    reader = readers.resolve(None, info.dataset_name, info.path)
    model = {key: value for key, value in info.model.items() if key != "keep_prob"}
    subject = {
        "model": model,
        "classes": list(info.characters),
        "normalization": info.normalization["kind"],
        "on_paper": reader.on_paper,
        "antialias": reader.antialias,
        "preprocessing": PREPROCESSING_VERSION,
    }
    digest = hashlib.sha256(_line(subject))
    for name in sorted(name for name in arrays if name.startswith(_PREFIXES)):
        array = np.ascontiguousarray(arrays[name])
        digest.update(_line([name, str(array.dtype), list(array.shape)]))
        digest.update(array.reshape(-1).view(np.uint8).data)  # not a copy: hundreds of megabytes
    return digest.hexdigest()


def _line(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"
