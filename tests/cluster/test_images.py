"""A folder of coloured pictures from `convert` to `predict`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cluster.command import SMALL, run

pytestmark = pytest.mark.cluster

COLOURS = {"fire engine": (200, 60, 60), "frog": (60, 200, 60)}  # of about the same grey
SUFFIXES = (".png", ".jpg", ".gif")


def paint(folder: Path, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = draw.normal(colour, 25, (20 + number % 9, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}{SUFFIXES[number % 3]}")


def test_colours_are_learned_from_a_folder(tmp_path: Path) -> None:
    paint(tmp_path / "train", 48, seed=1)
    paint(tmp_path / "test", 12, seed=2)
    dataset = ("--dataset_dir", tmp_path / "data")
    for split in ("train", "test"):
        images = ("--image_dir", tmp_path / split, "--num_channels", "3", "--dataset_split_name", split)
        assert run("convert", *dataset, *images).result()["num_classes"] == 2
    training = (*dataset, "--train_dir", tmp_path / "run", *SMALL, "--max_number_of_steps", "40")
    training = (*training, "--learning_rate", "1e-3", "--eval_steps", "0", "--validation_split_name", "test")
    report = run("train", *training, "--input_mode", "files").result()
    assert (report["state"], report["step"]) == ("finished", 40)
    evaluation = run("evaluate", *dataset, "--train_dir", tmp_path / "run").result()
    assert evaluation["top_1"] == pytest.approx(report["metrics"]["top_1"], abs=1e-9)
    assert (evaluation["num_examples"], evaluation["top_1"]) == (24, 1.0)
    pictures = sorted((tmp_path / "test").rglob("*.*"))
    lines = run("predict", "--train_dir", tmp_path / "run", *pictures).stdout.splitlines()
    for picture, line in zip(pictures, map(json.loads, lines), strict=True):
        assert line["top"][0]["character"] == picture.parent.name
        assert not line["inverted"]
