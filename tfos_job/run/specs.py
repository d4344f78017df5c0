"""Parts of a training's plan that other rooms use as well: network, normalization, augmentation, first weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.config import PCA, PER_IMAGE_RESCALE, RESCALE, ZCA, TrainConfig


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Arguments of `networks.registry.build` except the seed; as such in every checkpoint."""

    model_name: str
    num_classes: int
    image_size: int
    num_channels: int
    keep_prob: float


@dataclass(frozen=True, kw_only=True)
class NormalizationSpec:
    """`--normalization` as every checkpoint describes it.

    Attributes:
      kind: one of `config.NORMALIZATIONS`.
      epsilon: `--whitening_epsilon`; None for kinds that do not whiten.
      limits: `--rescale_min` and `--rescale_max`; None for kinds that do not rescale.
      digest: of the statistics of the training split; None for kinds without, and before they are made.
    """

    kind: str
    epsilon: float | None
    limits: tuple[float, float] | None
    digest: str | None

    @property
    def meaning(self) -> str:
        """What the weights of a network depend on: two trainings with the same meaning see images alike."""
        return self.kind + (f" to {self.limits[0]:g} … {self.limits[1]:g}" if self.limits is not None else "")

    def __str__(self) -> str:
        epsilon = f" with epsilon {self.epsilon}" if self.epsilon is not None else ""
        return self.meaning + epsilon


def normalization_of(config: TrainConfig) -> NormalizationSpec:
    """The normalization that the flags ask for, before there are statistics."""
    is_whitening = config.normalization in (PCA, ZCA)
    epsilon = config.whitening_epsilon if is_whitening else None
    limits = (config.rescale_min, config.rescale_max) if config.normalization in (RESCALE, PER_IMAGE_RESCALE) else None
    return NormalizationSpec(kind=config.normalization, epsilon=epsilon, limits=limits, digest=None)


def described_normalization(found: Mapping[str, Any]) -> NormalizationSpec:
    """The normalization that a checkpoint's document describes, without its digest; older ones have fewer keys."""
    limits = found.get("limits")
    return NormalizationSpec(
        kind=found["kind"], epsilon=found.get("epsilon"), limits=tuple(limits) if limits else None, digest=None
    )


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """Weights of another training, for one that starts without a checkpoint of its own.

    Attributes:
      path: a checkpoint, a run or a file of Keras's: see `training/finetuning.py`.
      exclude_scopes: of layers that keep their fresh weights.
      normalization: the `NormalizationSpec.meaning` of this training; that of the weights must be the same.
      charset_digest: of this training's classes.
    """

    path: str
    exclude_scopes: tuple[str, ...]
    normalization: str
    charset_digest: str


@dataclass(frozen=True, kw_only=True)
class RehearsalSpec:
    """The part of a plan that a network is built from."""

    model: ModelSpec
    trainable_scopes: tuple[str, ...]
    initial_weights: InitialWeights | None


def in_scopes(layer_name: str, scopes: Sequence[str]) -> bool:
    """True if the layer's name begins with one of the scopes; no number is cut in two."""
    return any(re.match(re.escape(scope) + (r"(?!\d)" if scope[-1].isdigit() else ""), layer_name) for scope in scopes)
