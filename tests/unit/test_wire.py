"""benchmarks/wire.py, as far as it needs no rights; tests/hadoop/test_wire.py runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tfos_job.errors import FlagError, SettingsError
from tfos_job.networks import registry

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ARGUMENTS = {"num_classes": 3, "image_size": 16, "num_channels": 1, "keep_prob": 0.8, "seed": 0}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_without_the_rights_it_says_so_in_a_sentence(tmp_path: Path) -> None:
    environ = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, str(BENCHMARKS / "wire.py"), "--quick"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    (said,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (69, "")
    assert "network namespaces with tbf queues cannot be made here" in said


@pytest.mark.parametrize("name", ["chinese_rec", "hanzi_net"])
def test_an_idle_network_has_the_variables_of_the_other_and_a_dense_gradient_for_each(name: str) -> None:
    import tensorflow as tf

    idle = registry.build(f"steps.idle:{name}", **ARGUMENTS)
    other = registry.build(name, **ARGUMENTS)
    assert [(v.path, v.shape, v.trainable) for v in idle.variables] == [
        (v.path, v.shape, v.trainable) for v in other.variables
    ]

    @tf.function
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            logits = idle(tf.zeros([2, 16, 16, 1]), training=True)
        found = tape.gradient(logits, idle.trainable_variables)
        assert all(isinstance(gradient, tf.Tensor) for gradient in found)  # one that has all of its numbers
        return found

    before = [v.numpy() for v in idle.non_trainable_variables]
    shapes = [tuple(gradient.shape) for gradient in gradients()]
    assert shapes == [tuple(v.shape) for v in idle.trainable_variables]
    # Read and written, as by dropout and batch normalisation.
    assert all((v.numpy() != old).all() for v, old in zip(idle.non_trainable_variables, before, strict=True))


def test_flags_of_train_are_passed_on_and_others_refused(tmp_path: Path) -> None:
    from steps.cases import Case, cases_of, split_at_dashes

    own, sets_of_flags = split_at_dashes(["--quick", "--", "--num_ps_tasks", "2", "--num_executors", "4", "--"])
    assert own == ["--quick"]
    assert [case.flags for case in cases_of(["hanzi_net"], [32, 8], sets_of_flags)] == [sets_of_flags[0]] * 3 + [()] * 3
    config = Case("hanzi_net", computes=False, batch_size=8, flags=sets_of_flags[0]).config(tmp_path)
    assert (config.model_name, config.batch_size, config.num_workers) == ("steps.idle:hanzi_net", 8, 2)
    with pytest.raises(FlagError, match="there is no flag --wired"):
        Case("hanzi_net", computes=True, batch_size=8, flags=("--wired",)).config(tmp_path)
    for flags in (("--batch_size", "9"), ("--ps_place", "driver")):
        with pytest.raises(SettingsError):
            Case("hanzi_net", computes=True, batch_size=8, flags=flags).config(tmp_path)
