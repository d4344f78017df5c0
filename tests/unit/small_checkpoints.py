"""Small checkpoints, evaluations and damage, for tests."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from tfos_job import storage
from tfos_job.formats import manifest as manifests
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.networks import registry, variables
from tfos_job.run import checkpoint_files, checkpoints

META = {
    "model": {"model_name": "chinese_rec", "num_classes": 2, "image_size": 8, "num_channels": 1, "keep_prob": 1.0},
    "characters": "一丁",
    "charset_digest": "c" * 64,
    "dataset_digest": "d" * 64,
    "input_position": {"0": 12},
    "metrics": {"loss": 1.5},
}


def model_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """A network's variables as a checkpoint has them."""
    return {name: variable.numpy() for name, variable in variables.model_variables(model).items()}


def arrays(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {
        "model/fc1/kernel": rng.normal(size=(3, 4)).astype(np.float32),
        "model/dropout1_random/seed_generator_state": np.array([step, 7], np.uint32),
        "empty": np.zeros((0, 3), np.float32),
        "global_step": np.asarray(step, np.int64),
    }


def publish(run: RunLayout, *steps: int) -> None:
    for step in steps:
        checkpoints.publish(run, step, arrays(step), META)


def step_names(run: RunLayout) -> list[str]:
    return sorted(path.name for path in Path(run.checkpoints_dir).iterdir())


def record_evaluation(run: RunLayout, step: int, split_name: str, top_1: float) -> None:
    storage.make_dirs(run.evaluation_dir)
    storage.write_json(run.evaluation(step, split_name), {"top_1": top_1})


def damage(run: RunLayout, *steps: int) -> None:
    for step in steps:
        flip_byte(Path(run.checkpoint(step)) / checkpoint_files.VARIABLES_FILE)


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def publish_untrained(
    run: RunLayout, dataset_dir: str, split_name: str = "train", *, image_size: int = 16, step: int = 20, seed: int = 1
) -> str:
    """Publishes a network for a dataset that has learnt nothing; returns the checkpoint's folder."""
    dataset = DatasetLayout(dataset_dir)
    charset = manifests.load_charset(dataset)
    model = {"model_name": "hanzi_net", "num_classes": len(charset), "image_size": image_size, "keep_prob": 0.8}
    meta = {
        "model": model,
        "characters": "".join(charset.characters),
        "charset_digest": charset.digest,
        "dataset_digest": manifests.load(dataset.split(split_name)).digest,
        "input_position": {},
        "metrics": {},
    }
    return checkpoints.publish(run, step, model_arrays(registry.build(**model, seed=seed)), meta)
