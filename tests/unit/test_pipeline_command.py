"""The command line and the file of `pipeline`: sections of stages' flags, what is refused, what is told."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.unit.small_nights import SmallNights
from tfos_job import cli
from tfos_job.commands import parser, pipeline
from tfos_job.commands.pipeline import PIPELINE, configure, section_values, settings_of
from tfos_job.commands.registry import COMMANDS
from tfos_job.config import PipelineConfig
from tfos_job.config.process import ProcessConfig
from tfos_job.errors import FlagError, SettingsError

FILE = """# the file of the test
gnt_dir: /gnt
eval_gnt_dir: /frozen
work_dir: /work/
registry_dir: /models
recipe: hanzi
convert: {compact: true, on_bad_record: quarantine}
train: {epoch: 5, num_executors: 3}
gate: {min_top_1: 0.9, max_class_loss: 0.1}
"""
PLACES = {"gnt_dir": "/gnt", "eval_gnt_dir": "/frozen", "work_dir": "/work", "registry_dir": "/models"}


def read(tmp_path: Path, text: str, *words: str) -> PipelineConfig:
    path = tmp_path / "nightly.yaml"
    path.write_text(text, "utf-8")
    line = parser.parse(COMMANDS, ["pipeline", "--config", str(path), *words])
    found = parser.configuration(line.command, line.given)
    assert isinstance(found, PipelineConfig)
    return found


def test_a_file_has_the_flags_of_the_stages_in_sections(tmp_path: Path) -> None:
    config = read(tmp_path, FILE, "--run_id", "2026-12-01")
    assert config.convert == ("compact", "on_bad_record=quarantine")
    assert config.train == ("epoch=5", "num_executors=3")
    settings = settings_of(config, ProcessConfig(master="local[4]", quiet=True))
    assert settings.flags["promote"] == ("--min_top_1=0.9", "--max_class_loss=0.1")
    assert settings.flags["freeze"] == settings.flags["convert"] == ("--compact", "--on_bad_record=quarantine")
    assert settings.learned == ("epoch=5",)  # not the number of nodes
    assert (settings.layout.root, settings.master, settings.process) == ("/work", "local[4]", ("--quiet",))


def test_a_section_of_the_command_line_replaces_that_of_the_file(tmp_path: Path) -> None:
    config = read(tmp_path, FILE, "--train", "epoch=7", "--train", "batch_size=8")
    assert config.train == ("epoch=7", "batch_size=8")
    assert config.gate == ("min_top_1=0.9", "max_class_loss=0.1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("registry_dir: /models", "registri_dir: /models", "registri_dir is no flag of pipeline. Did you mean reg"),
        ("epoch: 5", "epochs: 5", "nightly.yaml:8: epochs is no flag of train. Did you mean epoch?"),
        ("min_top_1: 0.9", "min_top_1: 2.0", "nightly.yaml:9: min_top_1: 2.0 is not in 0 to 1"),
        ("gate: {", "gates: {", "gates is no flag of pipeline. Did you mean gate?"),
        ("gate: {min_top_1: 0.9, max_class_loss: 0.1}", "gate: 0.9", "gate is a section"),
        ("gate: {", "keep: {runs: 7}\ngate: {", ":9: keep is not something pipeline does. It removes nothing"),
        ("recipe: hanzi", "recipe: hanzy", "there is no recipe 'hanzy'. Did you mean hanzi?"),
        ("epoch: 5", "train_dir: /x", "--train train_dir: train_dir is set by the pipeline"),
        ("epoch: 5", "recipe: hanzi", "--train recipe: given together with --recipe"),
        ("epoch: 5", "validation_split_name: frozen", "the frozen set, by which the best checkpoint would be chosen"),
        ("epoch: 5", "num_ps_tasks: 3", "--train: --num_executors: 3 nodes with 3 parameter server"),
        ("epoch: 5", "epoch: 5, max_number_of_steps: 9", "--train: --epoch: given together with --max_number_of_steps"),
        ("gate: {", "evaluate: {checkpoint: /x}\ngate: {", "--evaluate checkpoint: a path"),
        ("gate: {", "gate: {force: true, ", "--gate: --force: given without --reason"),
    ],
)  # fmt: skip
def test_mistakes_of_a_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, FILE.replace(old, new))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("epochs=5", "epochs is no flag of train. Did you mean epoch?"),
        ("epoch", "its value is missing"),
        ("epoch=0", "0 is less than 1"),
        ("overwrite=true", "takes no value"),
    ],
)
def test_mistakes_of_a_command_line(word: str, message: str) -> None:
    with pytest.raises(FlagError) as raised:
        section_values("train", [word])
    assert message in str(raised.value)
    assert raised.value.place == f"--train {word}"


def test_what_decides_what_is_learned() -> None:
    config = configure({**PLACES, "train": ("save_steps=3", "learning_rate=0.1", "checkpoint_path=/x", "epoch=2")})
    settings = settings_of(config, ProcessConfig())
    assert settings.learned == ("checkpoint_path='/x'", "epoch=2", "learning_rate=0.1")
    assert settings.own_start


def test_accepting_a_charset_accepts_its_frozen_set() -> None:
    settings = settings_of(configure({**PLACES, "gate": ("accept_charset",)}), ProcessConfig())
    assert (settings.accept_charset, settings.accept_frozen_set) == (True, True)


@pytest.mark.parametrize("run_id", ["", " x", "a\nb", "a\x00b"])
def test_run_ids_that_are_no_words(run_id: str) -> None:
    with pytest.raises(FlagError):
        PipelineConfig(**PLACES, run_id=run_id)


def test_the_sections_are_flags_of_the_commands_and_none_is_left_out() -> None:
    flags = {item.name for item in PIPELINE.flags}
    assert set(PIPELINE.sections) <= flags
    for section, own in pipeline._OWN.items():
        names = {item.name for item in COMMANDS[PIPELINE.sections[section]].flags}
        assert own <= names


def test_a_dry_run_of_the_command_prints_the_plan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nights = SmallNights(tmp_path)
    words = ["pipeline", "--work_dir", nights.layout.root, "--registry_dir", nights.registry, "--run_id", "a:b"]
    words += ["--gnt_dir", f"{tmp_path}/gnt", "--eval_gnt_dir", f"{tmp_path}/frozen", "--train", "epoch=1", "--dry_run"]
    assert cli.main(words) == 0
    out, log = capfd.readouterr()
    plan = json.loads(out)
    assert (plan["run_id"], plan["already_ended"], len(plan["stages"])) == ("a:b", False, 7)
    lines = log.splitlines()
    for at, stage in enumerate(plan["stages"]):
        assert lines[2 * at].split()[:2] == [stage["stage"], "runs"]
        line: list[Any] = shlex.split(lines[2 * at + 1])
        assert line == ["tfos-job", *stage["command"]]
        parsed = parser.parse(COMMANDS, stage["command"])  # each is a command line of its command
        assert parsed.command.name == stage["command"][0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frozen", "gnt"]
    assert cli.main([*words[:-1], "--registry_dir", nights.registry, "--eval_gnt_dir", f"{tmp_path}/gnt"]) == 78
