"""The last look at a network before servers get it: it is loaded once, from what is to be published, and asked."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfos_job.errors import BadDataError, JobError, StorageError
from tfos_job.formats.form import Form
from tfos_job.inference import saved_model
from tfos_job.inference.parity import parity
from tfos_job.run import exports

_SUM_TOLERANCE = 1e-3  # of probabilities in float32
_NO_ANSWER = (tf.errors.OpError, AttributeError, IndexError, KeyError, TypeError, ValueError)


def bless(folder: str) -> None:
    """Proves the files of an exported version, loads it, and asks each signature about two pictures.

    Args:
      folder: of the version; local or not.

    Raises:
      BadDataError: a file is another, the graph does more than compute, or an answer is none: too few classes, numbers
        that are no probabilities, or other ones by another signature.
    """
    info = exports.read(folder)
    images = _pictures(info.form)
    try:
        with exports.local_files(info) as local:
            by_signature = saved_model.answers(local, info.path, images)
        expected = (len(by_signature), len(images), len(info.classes))
        if by_signature.shape != expected:
            raise ValueError(f"answers of shape {list(by_signature.shape)}, expected {list(expected)}")
        if not np.isfinite(by_signature).all() or (np.abs(by_signature.sum(axis=2) - 1) > _SUM_TOLERANCE).any():
            raise ValueError("answers that are no probabilities")
        for found in by_signature[1:]:
            parity("another signature", by_signature[0], found)
    except (BadDataError, StorageError):
        raise
    except (JobError, *_NO_ANSWER) as error:
        raise BadDataError(
            f"the network does not answer: {error}", place=folder, next_step="Export it again, and promote that version"
        ) from error


def _pictures(form: Form) -> np.ndarray:
    """White paper, and a cross on it, uint8 [2, S, S, C]."""
    found = np.full((2, *form.shape), 255, np.uint8)
    middle, width = form.image_size // 2, max(1, form.image_size // 16)
    found[1, middle : middle + width], found[1, :, middle : middle + width] = 0, 0
    return found
