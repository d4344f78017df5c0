"""What a command takes from a run that is there, what it may change, and what it is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.flags import parse_config
from tfos_job import storage
from tfos_job.config import COMMAND, EXTENT, ORIGIN, RECIPE, Bond, TrainConfig, to_dict
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.run import resume

RUN: dict[str, Any] = {"dataset_dir": "/data", "train_dir": "/run", "epoch": 8, "batch_size": 64, "learning_rate": 4e-3}


def names(bond: Bond) -> set[str]:
    return {field.name for field in dataclasses.fields(TrainConfig) if field.metadata["bond"] is bond}


def test_each_flag_is_of_one_kind() -> None:
    assert {"train_dir", "overwrite", "change_settings", "dry_run"} == names(COMMAND)
    assert {"restore", "checkpoint_path", "checkpoint_exclude_scopes"} == names(ORIGIN)
    assert names(RECIPE) >= {"model_name", "label_smoothing", "learning_rate", "random_zoom", "batch_size", "seed"}
    assert names(RECIPE) >= {"wire_dtype", "push_every"}
    assert names(EXTENT) >= {"dataset_dir", "epoch", "save_seconds", "num_executors", "num_gpus", "cache_gb"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"dataset_dir": "/data", "epoch": 8, "batch_size": 64, "learning_rate": 4e-3}),
        ({"batch_size": 32}, {"batch_size": 32, "epoch": 8}),
        # A length replaces the other kind of length.
        ({"max_number_of_steps": 402}, {"max_number_of_steps": 402, "epoch": None}),
        ({"epoch": 9}, {"max_number_of_steps": None, "epoch": 9}),
        # Neither what says where a run begins, to one that has begun, nor what is one command's.
        ({}, {"checkpoint_path": None, "restore": "auto", "overwrite": False}),
    ],
)
def test_what_is_not_given_is_the_runs(given: dict[str, Any], expected: dict[str, Any]) -> None:
    stored = TrainConfig(**RUN, checkpoint_path="/weights", overwrite=True)
    config = TrainConfig(**resume.inherited(stored, given, has_begun=True), train_dir="/run", **given)
    assert {name: getattr(config, name) for name in expected} == expected


def test_a_run_without_a_checkpoint_still_begins_where_it_was_to_begin() -> None:
    stored = TrainConfig(**RUN, checkpoint_path="/weights", checkpoint_exclude_scopes="fc2")
    found = resume.inherited(stored, {}, has_begun=False)
    assert (found["checkpoint_path"], found["checkpoint_exclude_scopes"]) == ("/weights", "fc2")


def test_another_recipe_is_refused_by_name_old_and_new() -> None:
    stored, run = TrainConfig(**RUN), RunLayout("/run")
    other = dataclasses.replace(stored, batch_size=128, learning_rate=2e-4, num_executors=3, random_zoom=0.15)
    with pytest.raises(SettingsError) as caught:
        resume.require_same_recipe(run, stored, other)
    assert "batch_size 64 → 128, learning_rate 0.004 → 0.0002" in str(caught.value)
    assert "random_zoom 0 → 0.15" in str(caught.value)
    assert "--change_settings" in str(caught.value)
    assert "num_executors" not in str(caught.value)
    wanted = dataclasses.replace(other, change_settings=True)
    assert {change.name for change in resume.require_same_recipe(run, stored, wanted)} == {
        "batch_size", "learning_rate", "random_zoom",
    }  # fmt: skip
    assert resume.require_same_recipe(run, stored, dataclasses.replace(stored, epoch=9, save_steps=None)) == []


ALL_REDUCE = {"num_ps_tasks": 0, "num_executors": 2}


@pytest.mark.parametrize(
    ("before", "changes", "words"),
    [
        ({"num_executors": 3}, ALL_REDUCE, "num_executors 3 → 2, num_ps_tasks 1 → 0"),
        (ALL_REDUCE, {"num_ps_tasks": 1}, "num_ps_tasks 0 → 1"),
        (ALL_REDUCE, {"num_executors": 4}, "num_executors 2 → 4"),
        (ALL_REDUCE, {"num_gpus": 2}, "num_gpus 0 → 2"),
        (ALL_REDUCE, {"num_gpus": 1}, None),
        ({}, {"num_ps_tasks": 0, "num_executors": 1}, None),
        ({}, {"num_executors": 4}, None),
    ],
)
def test_another_number_of_batches_in_a_step_is_another_recipe(
    before: dict[str, Any], changes: dict[str, Any], words: str | None
) -> None:
    stored, run = TrainConfig(**RUN, **before), RunLayout("/run")
    config = dataclasses.replace(stored, **changes)
    if words is None:
        assert resume.require_same_recipe(run, stored, config) == []
        return
    with pytest.raises(SettingsError, match=f"{words}. Leave out --{next(iter(words.split()))}.*--change_settings"):
        resume.require_same_recipe(run, stored, config)
    resume.require_same_recipe(run, stored, dataclasses.replace(config, change_settings=True))


def test_a_size_that_follows_from_the_network_is_the_same_given() -> None:
    stored = TrainConfig(**RUN)
    assert resume.changes(stored, dataclasses.replace(stored, image_size=64), RECIPE, EXTENT) == []


def test_the_command_line_goes_on_with_a_run(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    stored = TrainConfig(**{**RUN, "train_dir": run.root}, random_transpose=True, validation_split_name="test")
    storage.write_json(run.config, to_dict(stored))
    assert parse_config("train", ["--train_dir", run.root]) == stored
    # What a run has can be taken back.
    taken = parse_config(
        "train", ["--train_dir", run.root, "--random_transpose", "false", "--validation_split_name", "none"]
    )
    assert (taken.random_transpose, taken.validation_split_name) == (False, None)
    assert parse_config("train", ["--train_dir", run.root, "--dataset_name", "none"]).dataset_name is None
    with pytest.raises(MissingInputError, match="a new run needs a dataset"):
        parse_config("train", ["--train_dir", run.root, "--overwrite"])
    fresh = parse_config("train", ["--train_dir", run.root, "--dataset_dir", "/data", "--overwrite"])
    assert (fresh.batch_size, fresh.learning_rate, fresh.random_transpose) == (128, 2e-4, False)


def test_a_run_from_before_there_was_a_type_of_the_wire_keeps_what_it_had(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    values = to_dict(TrainConfig(**{**RUN, "train_dir": run.root}))
    assert values.pop("wire_dtype") == "bfloat16"
    storage.write_json(run.config, values)
    assert parse_config("train", ["--train_dir", run.root]).wire_dtype == "float32"


def test_a_run_that_is_not_there_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no run there to go on with.*--dataset_dir"):
        parse_config("train", ["--train_dir", str(tmp_path / "typo")])


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [("{", BadDataError, "not JSON"), (json.dumps({"lerning_rate": 1}), SettingsError, "unknown setting lerning_rate")],
)
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, text: str, kind: type[Exception], words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(kind, match=words) as caught:
        parse_config("train", ["--train_dir", str(tmp_path)])
    assert str(tmp_path / "config.json") in str(caught.value)
