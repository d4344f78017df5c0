"""A TensorFlowOnSpark batch job: GNT shards to TFRecords to a trained classifier, on a Hadoop cluster.

The functions of the commands and their configurations are here for Python programs (docs/training.md, "From Python").
Each is imported when it is first used, so that this package itself imports nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfos_job.commands.convert import convert
    from tfos_job.commands.feeding import train_arrays, train_dataframe
    from tfos_job.commands.train import train
    from tfos_job.config import (
        ConvertConfig,
        EvaluateConfig,
        ExportConfig,
        FeedConfig,
        InferConfig,
        InspectConfig,
        PredictConfig,
        SynthConfig,
        TrainConfig,
        VerifyConfig,
    )
    from tfos_job.inference.predictor import Predictor
    from tfos_job.jobs.arrays import convert_arrays
    from tfos_job.jobs.dataframe import convert_dataframe
    from tfos_job.jobs.infer import infer
    from tfos_job.jobs.predict_udf import predict_udf
    from tfos_job.jobs.verify import verify
    from tfos_job.local_jobs.evaluate import evaluate
    from tfos_job.local_jobs.export import export
    from tfos_job.local_jobs.inspect import inspect
    from tfos_job.local_jobs.predict import predict
    from tfos_job.local_jobs.synth import synthesize

__version__ = "0.1.0"

__all__ = [
    "ConvertConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FeedConfig",
    "InferConfig",
    "InspectConfig",
    "PredictConfig",
    "Predictor",
    "SynthConfig",
    "TrainConfig",
    "VerifyConfig",
    "convert",
    "convert_arrays",
    "convert_dataframe",
    "evaluate",
    "export",
    "infer",
    "inspect",
    "predict",
    "predict_udf",
    "synthesize",
    "train",
    "train_arrays",
    "train_dataframe",
    "verify",
]
_MODULES = {
    "Predictor": "inference.predictor",
    "convert": "commands.convert",
    "convert_arrays": "jobs.arrays",
    "convert_dataframe": "jobs.dataframe",
    "evaluate": "local_jobs.evaluate",
    "export": "local_jobs.export",
    "infer": "jobs.infer",
    "inspect": "local_jobs.inspect",
    "predict": "local_jobs.predict",
    "predict_udf": "jobs.predict_udf",
    "synthesize": "local_jobs.synth",
    "train": "commands.train",
    "train_arrays": "commands.feeding",
    "train_dataframe": "commands.feeding",
    "verify": "jobs.verify",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'config')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
