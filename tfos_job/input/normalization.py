"""Normalization of images before the network, the same in training, evaluation and prediction.

In training it is the last step of the input pipeline, after augmentation; elsewhere it is the first layer of the
network that `networks.variables.restore_model` returns. Every checkpoint has its arrays, together with the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tfos_job.config import DATASET, NO_NORMALIZATION, PCA, PER_IMAGE, PER_IMAGE_MEAN, PER_IMAGE_RESCALE, RESCALE, ZCA
from tfos_job.errors import BadDataError
from tfos_job.run.specs import NormalizationSpec
from tfos_job.statistics import pixel_statistics

PREFIX = "normalization/"  # of its arrays in a checkpoint
_LEAST_STDDEV = 1 / 255
_LEAST_CONTRAST = 1 / 255  # of an image's values: one without contrast becomes its lowest value


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """One of the choices of `--normalization`; `none` leaves images unchanged.

    Attributes:
      arrays: float32; `mean` [C] and `stddev` [C] of `dataset`; `mean` [D] and `matrix` [D, D] of `pca` and `zca`,
        with D, the number of values of an image; `limits` [2], the lowest and the highest value, of `rescale` and
        `per_image_rescale`.
    """

    kind: str = NO_NORMALIZATION
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Normalizes images.

        Args:
          images: float32 [B, S, S, C], about 0 to 1: augmentation may exceed that.

        Returns:
          float32 [B, S, S, C]; for `none` the same tensor.
        """
        if self.kind == NO_NORMALIZATION:
            return images
        if self.kind == PER_IMAGE:
            return tf.image.per_image_standardization(images)
        if self.kind == PER_IMAGE_MEAN:
            return images - tf.reduce_mean(images, axis=[1, 2, 3], keepdims=True)
        if self.kind in (RESCALE, PER_IMAGE_RESCALE):
            return self._rescaled(images)
        if self.kind == DATASET:
            return (images - self.arrays["mean"]) * (1 / self.arrays["stddev"])
        shape = images.shape[1:]
        values = tf.reshape(images, [-1, shape.num_elements()]) - self.arrays["mean"]
        return tf.reshape(tf.matmul(values, self.arrays["matrix"]), [-1, *shape])

    def _rescaled(self, images: tf.Tensor) -> tf.Tensor:
        low, high = self.arrays["limits"]
        if self.kind == PER_IMAGE_RESCALE:
            darkest = tf.reduce_min(images, axis=[1, 2, 3], keepdims=True)
            contrast = tf.reduce_max(images, axis=[1, 2, 3], keepdims=True) - darkest
            images = (images - darkest) / tf.maximum(contrast, _LEAST_CONTRAST)
        return images * (high - low) + low

    def variables(self) -> dict[str, np.ndarray]:
        """Returns the arrays by their names in a checkpoint."""
        return {PREFIX + name: array for name, array in self.arrays.items()}


def restore(described: Mapping[str, Any], variables: Mapping[str, np.ndarray]) -> Normalization:
    """Restores a normalization from a checkpoint: its description in the document, and its arrays by name."""
    arrays = {name.removeprefix(PREFIX): array for name, array in variables.items() if name.startswith(PREFIX)}
    return Normalization(kind=described["kind"], arrays=arrays)


def of_limits(spec: NormalizationSpec) -> Normalization:
    """The normalization of a kind that needs no statistics."""
    return Normalization(
        kind=spec.kind, arrays={} if spec.limits is None else {"limits": np.asarray(spec.limits, np.float32)}
    )


def from_statistics(kind: str, epsilon: float | None, found: pixel_statistics.Statistics) -> Normalization:
    """Computes a normalization from statistics.

    `dataset` subtracts each channel's mean and divides by its standard deviation. `pca` projects an image on the
    eigenvectors of the covariance and divides by √(eigenvalue + epsilon): the values are uncorrelated, of variance 1
    (except for epsilon), and have no position in the image. `zca` rotates them back to the image's coordinates, so that
    neighbours stay neighbours (https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf, appendix A).

    Args:
      kind: `dataset`, `pca` or `zca`.
      epsilon: `--whitening_epsilon`; None for `dataset`, which does not whiten.
      found: statistics of the training split.
    """
    arrays = {"mean": found.arrays["mean"]}
    if kind == DATASET:
        arrays["stddev"] = np.maximum(found.arrays["stddev"], _LEAST_STDDEV)
    else:
        assert kind in (PCA, ZCA)
        assert epsilon is not None
        vectors = found.arrays["eigenvectors"]
        scaled = vectors * (1 / np.sqrt(found.arrays["eigenvalues"] + epsilon)).astype(np.float32)
        arrays["matrix"] = scaled @ vectors.T if kind == ZCA else scaled
    return Normalization(kind=kind, arrays={name: array.astype(np.float32) for name, array in arrays.items()})


def of_plan(
    spec: NormalizationSpec, statistics: str | None, variables: Mapping[str, np.ndarray] | None
) -> Normalization:
    """Returns the normalization of a run: that of its checkpoint, if it has one, else that of its plan.

    Args:
      spec: of the plan.
      statistics: path of the statistics; None for kinds that need none.
      variables: the arrays of the checkpoint that training starts from; None for a fresh start.

    Raises:
      MissingInputError: the statistics do not exist.
      BadDataError: they are damaged, or not those of the plan.
    """
    if variables is not None and any(name.startswith(PREFIX) for name in variables):
        return restore({"kind": spec.kind}, variables)
    if statistics is None:
        return of_limits(spec)
    found = pixel_statistics.read(statistics)
    if found.digest != spec.digest:
        wanted = (spec.digest or "none")[:12]
        raise BadDataError(
            f"the statistics have the SHA-256 {found.digest[:12]}, this run began with {wanted}",
            place=statistics,
            next_step="Another run has made new ones: run train again",
        )
    return from_statistics(spec.kind, spec.epsilon, found)
