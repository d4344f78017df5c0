"""The plan of a training: typed, from the flags to the step. The driver builds it, the coordinator runs it.

It has no defaults: a value that is forgotten on the way fails, and no training runs with another one in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config import AugmentationConfig, TrainConfig
from tfos_job.formats.form import Form
from tfos_job.run.specs import InitialWeights, ModelSpec, NormalizationSpec, normalization_of
from tfos_job.run.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The input pipeline of every worker.

    Attributes:
      mode, staged, window, batch_size, shuffle_buffer, augmentation: of `input.pipeline.training_dataset`.
      antialias: of `Form`.
      normalization: of the images, after augmentation.
      statistics: path of those that `normalization` names; None if it needs none, or a checkpoint has them.
    """

    mode: str
    staged: bool
    window: int
    batch_size: int
    shuffle_buffer: int
    antialias: bool
    augmentation: AugmentationConfig
    normalization: NormalizationSpec
    statistics: str | None


@dataclass(frozen=True, kw_only=True)
class LearningRateSpec:
    """The flags that `training.optimizer.Schedule` follows.

    Attributes:
      learning_rate: the highest one.
      decay_type: one of `config.DECAY_TYPES`.
      decay_factor, decay_steps: of `exponential`.
      warmup_steps: of the linear rise from 0.
      total_steps: of the run; `cosine` is at 0 then.
    """

    learning_rate: float
    decay_type: str
    decay_factor: float
    decay_steps: int
    warmup_steps: int
    total_steps: int


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """All that the loop and an engine need to know.

    Attributes:
      model: the network.
      trainable_scopes: of `training.finetuning.train_only`; empty for all.
      initial_weights: of a training that starts without a checkpoint of its own; None for fresh weights.
      seed: of initial weights and dropout.
      num_workers: that take steps.
      ps_placement: of variables on parameter servers: one of `config.defaults.PS_PLACEMENTS`.
      input: from shards to batches.
      learning_rate: of each step.
      label_smoothing: of `training.step.mean_loss`.
      wire_dtype: of `training.step.train_step`.
      push_every: batches of a step.
      start_step: the global step of the variables that training starts from.
      total_steps: the global step that it ends at.
      positions: records of its stream that each worker had consumed by `start_step`.
      save_steps, save_seconds: between checkpoints; None for none of these.
      eval_steps: between evaluations; 0 for one at the end.
      validation_shards: as TensorFlow on a worker opens them; empty for no evaluation.
    """

    model: ModelSpec
    trainable_scopes: tuple[str, ...]
    initial_weights: InitialWeights | None
    seed: int
    num_workers: int
    ps_placement: str
    input: InputSpec
    learning_rate: LearningRateSpec
    label_smoothing: float
    wire_dtype: str
    push_every: int
    start_step: int
    total_steps: int
    positions: tuple[int, ...]
    save_steps: int | None
    save_seconds: int | None
    eval_steps: int
    validation_shards: tuple[str, ...]

    @property
    def form(self) -> Form:
        """The form of the images that records are decoded to."""
        model = self.model
        return Form(image_size=model.image_size, num_channels=model.num_channels, antialias=self.input.antialias)


def plan_of(
    config: TrainConfig,
    data: TrainingData,
    *,
    start_step: int,
    positions: tuple[int, ...],
    normalization: NormalizationSpec,
    statistics: str | None,
) -> TrainPlan:
    """The plan of a run.

    Args:
      config: its flags.
      data: its dataset.
      start_step: the global step that it begins at.
      positions: records of its stream that each worker has consumed by then.
      normalization: with the digest of the statistics.
      statistics: path of those; None where there are none to read.
    """
    return TrainPlan(
        model=data.model,
        trainable_scopes=config.scopes_to_train,
        initial_weights=initial_weights_of(config, data),
        seed=config.seed,
        num_workers=config.num_workers,
        ps_placement=config.ps_placement,
        input=_input_of(config, data, normalization, statistics),
        learning_rate=learning_rate_of(config, data.total_steps),
        label_smoothing=config.label_smoothing,
        wire_dtype=config.wire_dtype,
        push_every=config.push_every,
        start_step=start_step,
        total_steps=data.total_steps,
        positions=positions,
        save_steps=config.save_steps,
        save_seconds=config.save_seconds,
        eval_steps=config.eval_steps,
        validation_shards=data.validation.readable_paths if data.validation else (),
    )


def _input_of(
    config: TrainConfig, data: TrainingData, normalization: NormalizationSpec, statistics: str | None
) -> InputSpec:
    return InputSpec(
        mode=data.input_mode,
        staged=data.is_remote,
        window=data.window,
        batch_size=config.batch_size,
        shuffle_buffer=data.shuffle_buffer,
        antialias=data.reader.antialias,
        augmentation=config.augmentation,
        normalization=normalization,
        statistics=statistics,
    )


def learning_rate_of(config: TrainConfig, total_steps: int) -> LearningRateSpec:
    """The learning rate that the flags ask for."""
    return LearningRateSpec(
        learning_rate=config.learning_rate,
        decay_type=config.learning_rate_decay_type,
        decay_factor=config.learning_rate_decay_factor,
        decay_steps=config.decay_steps,
        warmup_steps=config.warmup_steps,
        total_steps=total_steps,
    )


def initial_weights_of(config: TrainConfig, data: TrainingData) -> InitialWeights | None:
    """The weights that `--checkpoint_path` names; None for fresh ones."""
    if config.checkpoint_path is None:
        return None
    return InitialWeights(
        path=config.checkpoint_path,
        exclude_scopes=config.scopes_to_exclude,
        normalization=normalization_of(config).meaning,
        charset_digest=data.charset.digest,
    )
