"""Configurations: one frozen dataclass a command, whose fields are its flags."""

from tfos_job.config.augmentation import AugmentationConfig, InspectConfig
from tfos_job.config.clean import CleanConfig
from tfos_job.config.convert import ConvertConfig
from tfos_job.config.defaults import (
    AUTO_FILL,
    BFLOAT16,
    BRIGHTNESS,
    BUFFER_LIMIT_BYTES,
    CONSTANT,
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
    FLOAT32,
    GNT,
    IMAGES,
    LENGTHS,
    MAX_WHITENED_VALUES,
    NEAREST,
    NETWORKS,
    NO_NORMALIZATION,
    NORMALIZATIONS,
    PCA,
    PER_IMAGE,
    PER_IMAGE_MEAN,
    PER_IMAGE_RESCALE,
    PRELOAD_LIMIT_BYTES,
    PRELOADED,
    REFLECT,
    RESCALE,
    WIRE_BYTES,
    WRAP,
    ZCA,
)
from tfos_job.config.doctor import DoctorConfig
from tfos_job.config.evaluate import EvaluateConfig
from tfos_job.config.export import ExportConfig
from tfos_job.config.feed import FeedConfig
from tfos_job.config.flags import COMMAND, EXTENT, ORIGIN, RECIPE, Bond, from_dict, paths, to_dict
from tfos_job.config.infer import InferConfig
from tfos_job.config.pipeline import PipelineConfig
from tfos_job.config.promotion import HistoryConfig, PromoteConfig, RollbackConfig
from tfos_job.config.recipes import RECIPES
from tfos_job.config.run_results import PredictConfig, ReportConfig, TensorboardConfig
from tfos_job.config.serve import ServeConfig
from tfos_job.config.synth import SynthConfig
from tfos_job.config.train import TrainConfig
from tfos_job.config.verify import VerifyConfig

__all__ = [
    "AUTO_FILL",
    "BFLOAT16",
    "BRIGHTNESS",
    "BUFFER_LIMIT_BYTES",
    "COMMAND",
    "CONSTANT",
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
    "FLOAT32",
    "GNT",
    "IMAGES",
    "LENGTHS",
    "MAX_WHITENED_VALUES",
    "NEAREST",
    "NETWORKS",
    "NORMALIZATIONS",
    "NO_NORMALIZATION",
    "ORIGIN",
    "PCA",
    "PER_IMAGE",
    "PER_IMAGE_MEAN",
    "PER_IMAGE_RESCALE",
    "PRELOADED",
    "PRELOAD_LIMIT_BYTES",
    "RECIPE",
    "RECIPES",
    "REFLECT",
    "RESCALE",
    "WIRE_BYTES",
    "WRAP",
    "ZCA",
    "AugmentationConfig",
    "Bond",
    "CleanConfig",
    "ConvertConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FeedConfig",
    "HistoryConfig",
    "InferConfig",
    "InspectConfig",
    "PipelineConfig",
    "PredictConfig",
    "PromoteConfig",
    "ReportConfig",
    "RollbackConfig",
    "ServeConfig",
    "SynthConfig",
    "TensorboardConfig",
    "TrainConfig",
    "VerifyConfig",
    "from_dict",
    "paths",
    "to_dict",
]
