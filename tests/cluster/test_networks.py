"""Networks other than the seed's, through the whole job, on folders of coloured images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from tests.command import run
from tests.unit.small_checkpoints import model_arrays
from tfos_job import Predictor
from tfos_job.config import ConvertConfig
from tfos_job.jobs.convert_images import convert_images
from tfos_job.layout import RunLayout
from tfos_job.networks import registry
from tfos_job.run import checkpoints

pytestmark = pytest.mark.cluster

CLASSES = {"red": 0, "green": 1, "traffic light": 2}
NUM_IMAGES = 16  # of each class
OWN_NETWORK = """
import keras

def build(*, num_classes, image_size, num_channels, keep_prob, seed):
    images = keras.Input((image_size, image_size, num_channels), name="images")
    x = keras.layers.GlobalAveragePooling2D(name="mean")(images)
    kernel = keras.initializers.GlorotUniform(seed=seed)
    return keras.Model(images, keras.layers.Dense(num_classes, kernel_initializer=kernel, name="fc")(x), name="mine")
"""


@pytest.fixture(scope="module")
def dataset(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that are bright in the channel of their class, of each format."""
    folder = tmp_path_factory.mktemp("networks")
    draw = np.random.default_rng(0)
    for name, channel in CLASSES.items():
        (folder / "images" / name).mkdir(parents=True)
        for number in range(NUM_IMAGES):
            pixels = draw.integers(0, 60, (*draw.integers(60, 90, 2), 3), np.uint8)
            pixels[:, :, channel] += 150
            suffix = ("png", "jpg", "gif")[number % 3]
            Image.fromarray(pixels).save(folder / "images" / name / f"{number}.{suffix}")
    config = ConvertConfig(image_dir=str(folder / "images"), num_channels=3, dataset_dir=str(folder / "data"))
    assert convert_images(spark, config).num_records == len(CLASSES) * NUM_IMAGES
    return folder / "data"


def test_inception_v3_is_fine_tuned(dataset: Path, tmp_path: Path) -> None:
    """From the checkpoint of a network that has learnt nothing, on two servers: what moves is what is asked about."""
    network = {"model_name": "inception_v3", "num_classes": 5, "image_size": 75, "num_channels": 3, "keep_prob": 0.8}
    meta: dict[str, Any] = dict.fromkeys(checkpoints.META_KEYS) | {"model": network}
    origin = RunLayout(str(tmp_path / "origin"))
    checkpoints.publish(origin, 1, model_arrays(registry.build(**network, seed=1)), meta)
    start = ("--checkpoint_path", origin.root, "--checkpoint_exclude_scopes", "logits")
    scopes = ("--trainable_scopes", "mixed10,logits", "--learning_rate", 1e-3)
    inception = ("--model_name", "inception_v3", "--image_size", 75, "--batch_size", 4, "--max_number_of_steps", 1)
    nodes = ("--num_executors", 3, "--num_ps_tasks", 2)
    run("train", "--dataset_dir", dataset, *nodes, *inception, *start, *scopes, "--train_dir", tmp_path / "tuned")
    before, after = arrays(origin), arrays(RunLayout(str(tmp_path / "tuned")))
    same_shape = {name for name in before if name.startswith("model/") and before[name].shape == after[name].shape}
    moved = {name for name in same_shape if (before[name] != after[name]).any()}
    layers = {name.removeprefix("model/").partition("/")[0].partition("_")[0] for name in moved}
    assert {"mixed10"} <= layers <= {"mixed10", "logits", "dropout"}
    kept = "model/mixed9_conv2d_76/kernel"
    assert (before[kept] == after[kept]).all()
    # The classes' layer is another one, and is trained: Adam has seen its gradients.
    assert after["model/logits/kernel"].shape[-1] == len(CLASSES)
    moments = [name for name in after if "logits" in name and ("momentum" in name or "velocity" in name)]
    assert moments
    assert all(after[name].any() for name in moments)


def test_a_network_of_ones_own(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_network.py").write_text(OWN_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    settings = ("--model_name", "own_network:build", "--image_size", 16, "--batch_size", 8, "--learning_rate", 0.05)
    folders = ("--dataset_dir", dataset, "--train_dir", tmp_path / "run")
    files = ("--input_mode", "files", "--validation_split_name", "train")
    wire = ("--wire_dtype", "bfloat16", "--push_every", 2)
    trained = run("train", *folders, *settings, *files, *wire, "--max_number_of_steps", 60).result()
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["wire_dtype"], report["push_every"], report["records_read"]) == ("bfloat16", 2, [60 * 2 * 8])
    evaluation = run("evaluate", *folders, *settings[:2], "--dataset_split_name", "train").result()
    assert evaluation["top_1"] == trained["metrics"]["top_1"] == 1.0
    answers = Predictor(tmp_path / "run", model_name=settings[1]).predict(images(dataset))
    assert [answer["top"][0]["character"] for answer in answers] == list(CLASSES)


def arrays(layout: RunLayout) -> dict[str, np.ndarray]:
    info = checkpoints.latest(layout)
    assert info is not None
    return checkpoints.load(info)


def images(dataset: Path) -> list[Any]:
    return [dataset.parent / "images" / name / "1.jpg" for name in CLASSES]
