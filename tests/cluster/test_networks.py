"""Networks other than the seed's, through the whole job, on folders of coloured images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.command import run
from tfos_job.layout import RunLayout
from tfos_job.model import checkpoints

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

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
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    converted = run("convert", "--image_dir", folder / "images", "--num_channels", 3, "--dataset_dir", folder / "data")
    assert converted.result()["num_records"] == len(CLASSES) * NUM_IMAGES
    return folder / "data"


def test_inception_v3_learns_and_is_fine_tuned(dataset: Path, tmp_path: Path) -> None:
    inception = ("--dataset_dir", dataset, "--model_name", "inception_v3", "--image_size", 75, "--batch_size", 8)
    first = run("train", *inception, "--train_dir", tmp_path / "first", "--max_number_of_steps", 4, timeout_s=400)
    assert first.result()["step"] == 4
    start = ("--checkpoint_path", tmp_path / "first", "--checkpoint_exclude_scopes", "logits")
    scopes = ("--trainable_scopes", "mixed10,logits", "--learning_rate", 1e-3)
    tuned = ("train", *inception, *start, *scopes, "--train_dir", tmp_path / "tuned")
    run(*tuned, "--max_number_of_steps", 2, timeout_s=400)
    before, after = arrays(tmp_path / "first"), arrays(tmp_path / "tuned")
    moved = {name for name in before if name.startswith("model/") and (before[name] != after[name]).any()}
    layers = {name.removeprefix("model/").partition("/")[0] for name in moved}
    assert {layer.partition("_")[0] for layer in layers} == {"mixed10", "logits", "dropout"}
    kept = "model/mixed9_conv2d_76/kernel"
    assert (before[kept] == after[kept]).all()
    refused = run("train", *inception, "--train_dir", tmp_path / "tuned", "--max_number_of_steps", 4, code=78)
    assert "trainable scopes mixed10, logits, asked to go on with trainable scopes all" in refused.stderr
    evaluation = run("evaluate", *("--dataset_dir", dataset, "--train_dir", tmp_path / "tuned"), *TRAIN).result()
    assert evaluation["num_examples"] == len(CLASSES) * NUM_IMAGES


TRAIN = ("--dataset_split_name", "train")


def test_a_network_of_ones_own(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN_NETWORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = ("--model_name", "mine:build", "--image_size", 16, "--batch_size", 16, "--learning_rate", 0.05)
    folders = ("--dataset_dir", dataset, "--train_dir", tmp_path / "run")
    files = ("--input_mode", "files", "--validation_split_name", "train")
    trained = run("train", *folders, *settings, *files, "--max_number_of_steps", 60).result()
    evaluation = run("evaluate", *folders, *TRAIN).result()
    assert evaluation["top_1"] == trained["metrics"]["top_1"] == 1.0
    lines = run("predict", "--train_dir", tmp_path / "run", *images(dataset)).stdout.splitlines()
    assert [json.loads(line)["top"][0]["character"] for line in lines] == list(CLASSES)


def arrays(train_dir: Path) -> dict[str, np.ndarray]:
    info = checkpoints.latest(RunLayout(str(train_dir)))
    assert info is not None
    return checkpoints.load(info)


def images(dataset: Path) -> list[Any]:
    return [dataset.parent / "images" / name / "1.jpg" for name in CLASSES]
