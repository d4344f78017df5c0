"""The nearest of the known names."""

from __future__ import annotations

import dataclasses

import pytest

from tfos_job.config import TrainConfig
from tfos_job.config.nearest import nearest, suggestion

FLAGS = [field.name for field in dataclasses.fields(TrainConfig)]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("--epochs", "epoch"),
        ("learning-rate", "learning_rate"),
        ("learn_rate", "learning_rate"),
        ("BATCH_SIZE", "batch_size"),
        ("batchsize", "batch_size"),
        ("num_executor", "num_executors"),
        ("num_ps", "num_ps_tasks"),
        ("dataset", "dataset_dir"),
        ("lr", "learning_rate"),
        ("xyzzy", None),
        ("q", None),
        ("", None),
    ],
)
def test_the_nearest_flag(word: str, found: str | None) -> None:
    assert nearest(word, FLAGS) == found


def test_initials_of_two_names_name_neither() -> None:
    assert nearest("xy", ["xenon_yield", "xray_yoke"]) is None
    assert nearest("xy", ["xenon_yield", "other"]) == "xenon_yield"


def test_a_suggestion_has_the_nearest_name_or_all() -> None:
    assert suggestion("hanzinet", ["chinese_rec", "hanzi_net"]) == "Did you mean hanzi_net?"
    assert suggestion("--qqq", ["epoch", "seed"], prefix="--") == "Known: --epoch, --seed"
