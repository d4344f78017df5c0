"""The main job on real handwriting, in bands around what was measured (README.md, "Shown on real input")."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import run

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(1500)]


# README.md, "A better recipe".
RECIPE = {
    "model_name": "hanzi_net",
    "learning_rate": 4e-3,
    "learning_rate_decay_type": "cosine",
    "warmup_steps": 200,
    "label_smoothing": 0.1,
    "random_rotation": 15,
    "random_zoom": 0.15,
    "random_crop": 0.15,
    "random_shear": 15,
    "random_width_shift": 0.08,
    "random_height_shift": 0.08,
    "elastic_distortion": 0.02,
}


def test_characters_of_writers_never_seen(real_data: Path, tmp_path: Path) -> None:
    """cmnist: 15 characters by 90 people, split by writer."""
    for split, writers in (("train", range(1, 71)), ("test", range(71, 91))):
        folder = tmp_path / split
        folder.mkdir()
        for writer in writers:
            name = f"{writer:03d}-m.gnt"
            (folder / name).symlink_to(real_data / "cmnist" / name)
    evaluation = main_job(tmp_path / "train", tmp_path / "test", tmp_path, epochs=5)
    assert evaluation["num_examples"] == 20 * 150
    assert 0.86 <= evaluation["top_1"] <= 0.92
    assert evaluation["top_3"] >= 0.96


def test_characters_that_look_alike(real_data: Path, tmp_path: Path) -> None:
    """casia-small: 53 classes of real CASIA pixels, re-packed. One seed; σ between seeds is about 0.005."""
    folder = real_data / "casia-small"
    evaluation = main_job(folder / "train", folder / "test", tmp_path, epochs=40, **RECIPE)
    assert evaluation["num_examples"] == 795
    assert 0.92 <= evaluation["top_1"] <= 0.98
    assert evaluation["top_3"] >= 0.97


def main_job(train_gnt: Path, test_gnt: Path, folder: Path, *, epochs: int, **flags: object) -> dict[str, float]:
    dataset = ("--dataset_dir", folder / "dataset")
    run("convert", "--gnt_dir", train_gnt, *dataset, "--charset", "auto")
    run("convert", "--gnt_dir", test_gnt, *dataset, "--dataset_split_name", "test")
    options = ["--epoch", epochs, "--batch_size", 64]
    for name, value in flags.items():
        options += [f"--{name}", value]
    run("train", *dataset, "--train_dir", folder / "run", *options, timeout_s=1400)
    evaluation: dict[str, float] = run("evaluate", *dataset, "--train_dir", folder / "run").result()
    return evaluation
