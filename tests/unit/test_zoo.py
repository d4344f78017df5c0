from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from tfos_job.config import TrainConfig
from tfos_job.errors import SettingsError
from tfos_job.model import zoo


def test_the_flag_and_the_registry_name_the_same_networks() -> None:
    field = next(f for f in dataclasses.fields(TrainConfig) if f.name == "model_name")
    assert set(field.metadata["choices"]) == set(zoo.MODELS)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no network 'resnet'.*Known: chinese_rec"):
        zoo.build("resnet", num_classes=3, image_size=8, keep_prob=1.0, seed=0)


def test_choosing_a_network_or_a_checkpoint_does_not_import_tensorflow() -> None:
    code = "import sys, tfos_job.model.zoo, tfos_job.model.checkpoints; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
