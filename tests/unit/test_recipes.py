"""`train --recipe`: what a name stands for, what is stronger, and what the documents say of it."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from pathlib import Path

import pytest

from tests.flags import parse_config
from tfos_job import storage
from tfos_job.commands import flag_text
from tfos_job.config import RECIPES, TrainConfig, to_dict
from tfos_job.config.recipes import with_recipe
from tfos_job.errors import SettingsError
from tfos_job.layout import RunLayout
from tfos_job.run import resume

ROOT = Path(__file__).resolve().parents[2]
NEW = ["--dataset_dir", "/data", "--train_dir"]


def documented_recipes() -> dict[str, list[str]]:
    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    section = text.partition("\n## Recipes\n")[2].partition("\n## ")[0]
    parts = section.split("\n**`")[1:]
    return {part.partition("`")[0]: shlex.split(part.split("```\n")[1]) for part in parts}


def test_the_documents_show_the_recipes_as_they_are() -> None:
    assert documented_recipes() == {name: shlex.split(recipe.flags) for name, recipe in RECIPES.items()}
    text = " ".join((ROOT / "docs" / "training.md").read_text("utf-8").replace("`", "").split())
    assert all(recipe.about in text for recipe in RECIPES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_flags_that_it_is_shown_as(name: str, tmp_path: Path) -> None:
    by_name = parse_config("train", [*NEW, str(tmp_path), "--recipe", name])
    spelled = parse_config("train", [*NEW, str(tmp_path), *shlex.split(RECIPES[name].flags)])
    assert by_name == dataclasses.replace(spelled, recipe=name)
    assert by_name == TrainConfig(dataset_dir="/data", train_dir=str(tmp_path), recipe=name, **RECIPES[name].settings)


def test_a_flag_is_stronger_than_the_recipe_and_the_recipe_than_a_default(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tfos_job")
    found = parse_config("train", [*NEW, str(tmp_path), "--random_zoom", "0.3", "--recipe", "hanzi"])
    assert (found.random_zoom, found.epoch, found.batch_size, found.decay_steps) == (0.3, 40, 64, 2000)
    assert f"Recipe hanzi: {RECIPES['hanzi'].flags}" in caplog.text
    assert "Given otherwise than in the recipe: --random_zoom" in caplog.text


def test_a_length_that_is_given_replaces_the_recipes() -> None:
    found = with_recipe({"recipe": "hanzi", "max_number_of_steps": 10})
    assert (found["max_number_of_steps"], "epoch" in found) == (10, False)
    assert with_recipe({"recipe": "hanzi", "max_number_of_steps": None})["epoch"] == 40


def test_an_unknown_recipe_is_told_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"--recipe: there is no recipe 'hanzi_net'. Did you mean hanzi\?"):
        with_recipe({"recipe": "hanzi_net"})


def test_on_a_run_that_has_begun_a_recipe_counts_as_given(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    begun = parse_config("train", [*NEW, run.root, "--recipe", "hanzi", "--random_zoom", "0.3"])
    storage.write_json(run.config, to_dict(begun))
    storage.make_dirs(run.checkpoint(10))
    assert parse_config("train", ["--train_dir", run.root]) == begun  # which has the recipe's name
    again = parse_config("train", ["--train_dir", run.root, "--recipe", "hanzi"])
    with pytest.raises(SettingsError, match=r"random_zoom 0.3 → 0.15"):
        resume.require_same_recipe(run, begun, again)
    other = parse_config("train", ["--train_dir", run.root, "--recipe", "hwdb", "--random_zoom", "0.3"])
    with pytest.raises(SettingsError, match=r"batch_size 64 → 128, warmup_steps 200 → 5000"):
        resume.require_same_recipe(run, begun, other)
    named = parse_config("train", ["--train_dir", run.root, "--recipe", "hwdb", "--random_zoom", "0.2"])
    with pytest.raises(SettingsError, match="Leave out --recipe, --random_zoom to go on"):
        resume.require_same_recipe(run, begun, named)  # the flags that were given, not those that they stand for


def test_the_names_are_words_that_a_shell_can_complete() -> None:
    item = TrainConfig.__dataclass_fields__["recipe"]
    assert set(flag_text.words(item)) == {*RECIPES, "none"}


def test_a_run_of_a_recipe_that_is_no_more_goes_on(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path))
    stored = to_dict(TrainConfig(dataset_dir="/data", train_dir=run.root)) | {"recipe": "of_old"}
    storage.write_json(run.config, stored)
    assert parse_config("train", ["--train_dir", run.root]).recipe == "of_old"
