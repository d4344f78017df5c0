"""A plan for tests to change, since a `TrainPlan` has no defaults."""

from __future__ import annotations

from tfos_job.config import AugmentationConfig
from tfos_job.run.plan import InputSpec, LearningRateSpec, TrainPlan
from tfos_job.run.specs import ModelSpec, NormalizationSpec

PLAN = TrainPlan(
    model=ModelSpec(model_name="chinese_rec", num_classes=10, image_size=16, num_channels=1, keep_prob=0.8),
    trainable_scopes=(),
    initial_weights=None,
    seed=0,
    num_workers=1,
    ps_placement="partitioned",
    input=InputSpec(
        mode="files",
        staged=False,
        window=16,
        batch_size=10,
        shuffle_buffer=1,
        antialias=False,
        augmentation=AugmentationConfig(),
        normalization=NormalizationSpec(kind="none", epsilon=None, limits=None, digest=None),
        statistics=None,
    ),
    learning_rate=LearningRateSpec(
        learning_rate=1.0, decay_type="exponential", decay_factor=1.0, decay_steps=1, warmup_steps=0, total_steps=20
    ),
    label_smoothing=0.0,
    wire_dtype="float32",
    push_every=1,
    start_step=0,
    total_steps=20,
    positions=(0,),
    save_steps=None,
    save_seconds=None,
    eval_steps=0,
    validation_shards=(),
)
