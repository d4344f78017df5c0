"""Some of the pictures that a run was trained on: for the proof of an export, and for how drawings are to look."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from tfos_job import storage
from tfos_job.errors import BadDataError, JobError, SettingsError
from tfos_job.formats import manifest, readers, sampling, tf_example
from tfos_job.formats.form import Form
from tfos_job.inference import ink_statistics
from tfos_job.inference.ink_statistics import InkStatistics
from tfos_job.inference.pictures import read_picture
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.run.checkpoint_files import CheckpointInfo

_NUM_RECORDS = 300
_SEED = 0  # of their choice

_Read = TypeVar("_Read")
_log = logging.getLogger(__name__)


class TrainingPictures:
    """Some pictures, read once; there is none where the dataset is gone, is damaged, or is another one by now.

    Args:
      run: that was trained on them.
      info: its checkpoint.

    Attributes:
      ink: how the ink in them looks, measured without TensorFlow; None where they are no ink on paper, or, which is
        logged, there is no picture or no ink.
    """

    def __init__(self, run: RunLayout, info: CheckpointInfo) -> None:
        none: tuple[list[bytes], list[str]] = [], []
        self._examples, self._shards = _or(none, lambda: _examples(run, info))
        self.ink: InkStatistics | None = None
        if self._examples:
            self.ink = _or(None, lambda: _ink(self._examples, info))

    def images(self, form: Form) -> np.ndarray:
        """The pictures as the network sees them, uint8 [n, S, S, C]. By TensorFlow."""
        none = np.zeros((0, *form.shape), np.uint8)
        return _or(none, lambda: _decoded(self._examples, self._shards, form)) if self._examples else none


def _or(otherwise: _Read, read: Callable[[], _Read]) -> _Read:
    """What is read; something else, and a warning, where that cannot be done."""
    try:
        return read()
    except (JobError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("The pictures of the training cannot be read, so nothing is known of their ink: %s", error)
        return otherwise


def _examples(run: RunLayout, info: CheckpointInfo) -> tuple[list[bytes], list[str]]:
    """Their Examples, and the shards of these."""
    settings = storage.read_json(run.config)
    split = DatasetLayout(settings["dataset_dir"]).split(settings["dataset_split_name"])
    contents = manifest.load(split)
    if contents.digest != info.dataset_digest:
        raise SettingsError("holds other records than when the run was trained", place=split.root)
    examples, shards, _ = sampling.read(split, contents, num_images=_NUM_RECORDS, seed=_SEED)
    return examples, shards


def _ink(examples: list[bytes], info: CheckpointInfo) -> InkStatistics | None:
    if not readers.resolve(None, info.dataset_name, info.path).on_paper:
        return None
    found = ink_statistics.measure(map(_stored, examples))
    if found is None:
        raise BadDataError(f"none of {len(examples)} has any")
    return found


def _decoded(examples: list[bytes], shards: list[str], form: Form) -> np.ndarray:
    import tensorflow as tf

    from tfos_job.input.damage import data_errors
    from tfos_job.input.decoding import decode

    with data_errors(shards):
        images: np.ndarray = decode(tf.constant(examples), form)[0].numpy()
        return images


def _stored(example: bytes) -> np.ndarray:
    """The grey pixels of a record as they are stored, uint8 [h, w]."""
    features = tf_example.decode_example(example)
    data, height, width = (features[f"image/{name}"] for name in ("encoded", "height", "width"))
    assert isinstance(data, bytes)
    if features["image/format"] != b"raw":
        return read_picture(data, "a training picture")[:, :, 0]
    return np.frombuffer(data, np.uint8).reshape(int(height), int(width))
