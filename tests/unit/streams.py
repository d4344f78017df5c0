"""Datasets as the product reads them: within a graph, which is traced once for all that tests have it read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfos_job.config import AugmentationConfig
from tfos_job.formats.form import Form
from tfos_job.input.pipeline import evaluation_dataset, training_dataset

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]

_SHARDS, _INTEGER = tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.int64)
_ALL = 1 << 20  # records: more than any test has


@dataclass(frozen=True, kw_only=True)
class InFours(Form):
    """Decodes so few records at a time that several groups fit into a test, and that their graph is soon made."""

    @property
    def group_size(self) -> int:
        return 4


@functools.cache
def training(*, augmentation: AugmentationConfig = AugmentationConfig(), **settings: Any) -> Callable[..., list[Batch]]:  # noqa: B008
    """What reads `training_dataset` with these settings, from any shards and position.

    As on a worker, which has what differs between workers from files of its own: none of it is known to the graph.
    """

    @tf.function(input_signature=[_SHARDS, *[_INTEGER] * 4])
    def graph(shards: tf.Tensor, count: tf.Tensor, num_records: tf.Tensor, seed: tf.Tensor, start: tf.Tensor) -> Batch:
        batches = training_dataset(
            shards, num_records=num_records, seed=seed, start_record=start, augmentation=augmentation, **settings
        )
        return next(iter(batches.take(count).batch(count)))

    def read(
        shards: Sequence[str], count: int, *, num_records: int, seed: int = 1, start_record: int = 0
    ) -> list[Batch]:
        integers = (tf.constant(value, tf.int64) for value in (count, num_records, seed, start_record))
        return list(zip(*(part.numpy() for part in graph(tf.constant(shards), *integers)), strict=True))

    return read


@functools.cache
def evaluation(**settings: Any) -> Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]:
    """What reads all images and labels of `evaluation_dataset` with these settings, from any shards."""

    @tf.function(input_signature=[_SHARDS])
    def graph(shards: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return next(iter(evaluation_dataset(shards, **settings).unbatch().batch(_ALL)))

    def read(shards: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = graph(tf.constant(shards))
        return images.numpy(), labels.numpy()

    return read
