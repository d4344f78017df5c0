"""Configurations: one frozen dataclass a command, whose fields are its flags."""

from tfos_job.config.augmentation import AugmentationConfig, InspectConfig
from tfos_job.config.convert import ConvertConfig
from tfos_job.config.defaults import (
    BRIGHTNESS,
    BUFFER_LIMIT_BYTES,
    CONTRAST,
    COSINE,
    DATASET,
    DATASET_NAMES,
    DECAY_TYPES,
    DEFAULT_CHARSET_SIZE,
    DEFAULT_IMAGE_SIZE,
    DEFAULT_MAX_NUMBER_OF_STEPS,
    EXPONENTIAL,
    FILES,
    GNT,
    IMAGES,
    MAX_WHITENED_VALUES,
    NETWORKS,
    NO_NORMALIZATION,
    NORMALIZATIONS,
    PCA,
    PER_IMAGE,
    PRELOAD_LIMIT_BYTES,
    PRELOADED,
    ZCA,
)
from tfos_job.config.doctor import DoctorConfig
from tfos_job.config.evaluate import EvaluateConfig
from tfos_job.config.flags import COMMAND, EXTENT, ORIGIN, RECIPE, Bond, from_dict, paths, to_dict
from tfos_job.config.run_results import PredictConfig, ReportConfig, TensorboardConfig
from tfos_job.config.synth import SynthConfig
from tfos_job.config.train import TrainConfig
from tfos_job.config.train_flags import LENGTHS
from tfos_job.config.verify import VerifyConfig

__all__ = [
    "BRIGHTNESS",
    "BUFFER_LIMIT_BYTES",
    "COMMAND",
    "CONTRAST",
    "COSINE",
    "DATASET",
    "DATASET_NAMES",
    "DECAY_TYPES",
    "DEFAULT_CHARSET_SIZE",
    "DEFAULT_IMAGE_SIZE",
    "DEFAULT_MAX_NUMBER_OF_STEPS",
    "EXPONENTIAL",
    "EXTENT",
    "FILES",
    "GNT",
    "IMAGES",
    "LENGTHS",
    "MAX_WHITENED_VALUES",
    "NETWORKS",
    "NORMALIZATIONS",
    "NO_NORMALIZATION",
    "ORIGIN",
    "PCA",
    "PER_IMAGE",
    "PRELOADED",
    "PRELOAD_LIMIT_BYTES",
    "RECIPE",
    "ZCA",
    "AugmentationConfig",
    "Bond",
    "ConvertConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "InspectConfig",
    "PredictConfig",
    "ReportConfig",
    "SynthConfig",
    "TensorboardConfig",
    "TrainConfig",
    "VerifyConfig",
    "from_dict",
    "paths",
    "to_dict",
]
