"""The plan of a training: what the flags say arrives, and nothing else passes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.plan import PLAN
from tests.unit.dataset import config, data
from tfos_job.errors import SettingsError
from tfos_job.formats.form import Form
from tfos_job.run.assignment import Assignment, assignment_of
from tfos_job.run.json_values import from_json, to_json
from tfos_job.run.plan import TrainPlan, plan_of
from tfos_job.run.specs import InitialWeights, NormalizationSpec

ZCA = NormalizationSpec(kind="zca", epsilon=0.05, limits=None, digest="s" * 64)
FLAGS: dict[str, Any] = {
    "seed": 3,
    "ps_placement": "greedy",
    "batch_size": 48,
    "shuffle_buffer": 77,
    "random_zoom": 0.25,
    "random_transpose": True,
    "learning_rate": 4e-3,
    "learning_rate_decay_type": "cosine",
    "learning_rate_decay_factor": 0.5,
    "decay_steps": 11,
    "warmup_steps": 4,
    "label_smoothing": 0.1,
    "wire_dtype": "bfloat16",
    "push_every": 2,
    "save_steps": 9,
    "save_seconds": 60,
    "eval_steps": 6,
    "trainable_scopes": "fc3",
    "checkpoint_path": "/weights",
    "checkpoint_exclude_scopes": "fc2, fc3",
    "normalization": "zca",
    "whitening_epsilon": 0.05,
}


def plan(**changes: Any) -> TrainPlan:
    settings = config(**(FLAGS | changes))
    return plan_of(
        settings, data(settings), start_step=7, positions=(130, 120), normalization=ZCA, statistics="/data/zca.npz"
    )


def test_each_flag_arrives() -> None:
    found = plan()
    assert (found.seed, found.num_workers, found.label_smoothing) == (3, 2, 0.1)
    assert (found.wire_dtype, found.push_every) == ("bfloat16", 2)
    assert found.ps_placement == "greedy"
    assert (found.start_step, found.total_steps, found.positions) == (7, 20, (130, 120))
    assert (found.save_steps, found.save_seconds, found.eval_steps) == (9, 60, 6)
    assert (found.input.mode, found.input.batch_size, found.input.shuffle_buffer) == ("files", 48, 77)
    assert (found.input.augmentation.random_zoom, found.input.augmentation.random_transpose) == (0.25, True)
    assert dataclasses.astuple(found.learning_rate) == (4e-3, "cosine", 0.5, 11, 4, 20)
    assert found.trainable_scopes == ("fc3",)
    assert found.initial_weights == InitialWeights(
        path="/weights", exclude_scopes=("fc2", "fc3"), normalization="zca", charset_digest=data().charset.digest
    )
    assert found.form == Form(image_size=16, num_channels=1, antialias=False)
    assert plan(checkpoint_path=None, checkpoint_exclude_scopes="").initial_weights is None


@pytest.mark.parametrize("of", [TrainPlan, type(PLAN.input), type(PLAN.learning_rate), type(PLAN.model)])
def test_nothing_has_a_default(of: type) -> None:
    for item in dataclasses.fields(of):
        assert item.default is item.default_factory is dataclasses.MISSING, item.name


def assignment() -> Assignment:
    settings = config(**FLAGS)
    return Assignment(
        run=assignment_of(settings, data(settings), plan(), checkpoint=None, lock_token="t"),
        driver=("host", 1),
        key="00",
        attempt=2,
        cluster={"ps": ["host:2"], "worker": []},
        scratch="/scratch",
    )


def test_an_assignment_arrives_as_it_was() -> None:
    assert from_json(Assignment, to_json(assignment())) == assignment()


def test_a_checkpoint_says_what_it_always_said() -> None:
    found = to_json(assignment().run.meta)
    assert list(found) == [
        "model", "characters", "dataset_name", "charset_digest", "dataset_digest", "trainable_scopes", "order",
        "normalization",
    ]  # fmt: skip
    assert found["characters"] == "一丁"
    assert found["normalization"] == {"kind": "zca", "epsilon": 0.05, "limits": None, "digest": "s" * 64}
    assert found["model"] == {
        "model_name": "chinese_rec", "num_classes": 2, "image_size": 16, "num_channels": 1, "keep_prob": 0.8,
    }  # fmt: skip


def without(values: dict[str, Any], *path: str) -> dict[str, Any]:
    *parents, name = path
    inner = values
    for parent in parents:
        inner = inner[parent]
    del inner[name]
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (without(to_json(PLAN), "label_smoothing"), "missing required field `label_smoothing`"),
        (without(to_json(PLAN), "input", "batch_size"), "missing required field `batch_size` - at `\\$.input`"),
        # It has a default, for those who augment by hand; here it must be said.
        (without(to_json(PLAN), "input", "augmentation", "random_hue"), "missing field `random_hue`"),
        (to_json(PLAN) | {"lable_smoothing": 0.1}, "unknown field `lable_smoothing`"),
        (to_json(PLAN) | {"seed": "3"}, "Expected `int`, got `str` - at `\\$.seed`"),
        (to_json(PLAN) | {"positions": [1, None]}, "Expected `int`, got `null`"),
    ],
)
def test_a_plan_that_is_not_whole_fails(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        from_json(TrainPlan, values)
