"""`--config FILE`: what a file may hold, what is stronger, and how a mistake in it is told."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.flags import parse_config
from tests.unit.test_dry_run import begun, contents, folder, settings  # noqa: F401 - a fixture
from tfos_job import cli, storage
from tfos_job.commands import parser, settings_document
from tfos_job.commands.registry import COMMANDS
from tfos_job.config import RECIPES, ConvertConfig, TrainConfig, to_dict
from tfos_job.config.flags import kind_of
from tfos_job.errors import BadDataError, FlagError, JobError, MissingInputError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.run import attempts, resume
from tfos_job.submit import main as submit

NEW = ["--dataset_dir", "/data", "--train_dir", "/no/such/run"]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes a file of settings; returns its path."""

    def write(text: str, name: str = "nightly.yaml") -> str:
        (tmp_path / name).write_text(text, "utf-8")
        return str(tmp_path / name)

    return write


def train(*flags: str) -> TrainConfig:
    found: TrainConfig = parse_config("train", flags)
    return found


# --- values ----------------------------------------------------------------------------------------------------------


def test_a_file_gives_flags_and_the_command_line_is_stronger(written: Any) -> None:
    path = written(
        "# nightly\ndataset_dir: /data\ntrain_dir: /no/such/run\nepoch: 10\nlearning_rate: 2e-3\nbatch_size: 64\n"
        "random_flip_left_right: true\nvalidation_split_name: test\nsave_seconds: none\ncache_gb:\nrandom_zoom: off\n"
    )
    found = train("--config", path, "--batch_size", "32", "--validation_split_name", "none")
    expected = TrainConfig(
        dataset_dir="/data",
        train_dir="/no/such/run",
        epoch=10,
        learning_rate=2e-3,
        batch_size=32,
        random_flip_left_right=True,
        save_seconds=None,
    )
    assert found == expected
    assert train(f"--config={path}", "--batch_size=32", "--validation_split_name=none") == expected


def test_a_file_may_lie_on_any_storage() -> None:
    fsspec.filesystem("memory").pipe("/nightly.yaml", b"\xef\xbb\xbfepoch: 3\n")  # as Windows saves UTF-8
    assert parser.parse(COMMANDS, ["train", "--config", "memory://nightly.yaml"]).given == {"epoch": 3}


def test_json_is_read_with_tabs_and_escapes(written: Any) -> None:
    path = written('{\n\t"dataset_dir": "/\\u5b89\\ud83d\\ude00",\n\t"learning_rate": 1e-3\n}\n', "c.json")
    found = train("--config", path, "--train_dir", "/no/such/run")
    assert (found.dataset_dir, found.learning_rate) == ("/安😀", 1e-3)


def test_what_the_command_line_says_in_another_way_replaces_the_files(written: Any) -> None:
    found = train("--config", written("epoch: 10\n"), *NEW, "--max_number_of_steps", "5")
    assert (found.max_number_of_steps, found.epoch) == (5, None)
    path = written("gnt_dir: /gnt\ncharset_size: 10\ndataset_dir: /data\n")
    converted = parse_config("convert", ["--config", path, "--image_dir", "/images", "--charset", "auto"])
    assert converted == ConvertConfig(image_dir="/images", dataset_dir="/data", charset="auto")
    path = written("train_dir: /night\ndataset_dir: /data\nconvert: {}\n")
    assert parse_config("report", ["--config", path]).train_dirs == ("/night",)
    assert parse_config("report", ["--config", path, "/a", "/b"]).train_dirs == ("/a", "/b")


def test_flags_are_stronger_than_the_file_and_the_file_than_the_recipe(written: Any) -> None:
    path = written("recipe: hanzi\nbatch_size: 32\nepoch: 7\n")
    found = train("--config", path, *NEW, "--epoch", "3")
    hanzi = RECIPES["hanzi"].settings
    assert (found.epoch, found.batch_size, found.random_zoom) == (3, 32, hanzi["random_zoom"])
    assert train("--config", path, *NEW, "--max_number_of_steps", "9").epoch is None


def test_flags_of_the_process_may_stand_in_it(written: Any) -> None:
    line = parser.parse(COMMANDS, ["convert", "--config", written("master: local[3]\nverbose: true\n")])
    assert (line.process.master, line.process.verbose, line.given) == ("local[3]", True, {})
    assert parser.parse(COMMANDS, ["convert", "--config", written("quiet: true\n"), "-v"]).process.verbose


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_a_file_may_be_empty(text: str, written: Any) -> None:
    assert parser.parse(COMMANDS, ["convert", "--config", written(text)]).given == {}


# --- sections --------------------------------------------------------------------------------------------------------

NIGHTLY = """\
dataset_dir: /data
train_dir: /no/such/run     # of train and evaluate
convert:
  gnt_dir: /gnt
train:
  epoch: 3
evaluate:
doctor: {num_executors: 2}
"""


def test_a_file_may_have_a_section_for_each_command(written: Any) -> None:
    path = ["--config", written(NIGHTLY)]
    assert parse_config("convert", path) == ConvertConfig(gnt_dir="/gnt", dataset_dir="/data")
    assert train(*path) == TrainConfig(dataset_dir="/data", train_dir="/no/such/run", epoch=3)
    assert parse_config("evaluate", path).train_dir == "/no/such/run"
    assert parse_config("verify", path).dataset_dir == "/data"


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "line", "words"),
    [
        ("epoch: 3\nlerning_rate: 1\n", FlagError, 2, "lerning_rate is no flag of train. Did you mean learning_rate?"),
        ("batch-size: 3\n", FlagError, 1, "batch-size is no flag of train. Did you mean batch_size?"),
        ("xyzzy: 3\n", FlagError, 1, "xyzzy is no flag of train. docs/reference.md has the flags"),
        ("config: other.yaml\n", FlagError, 1, "config is no flag of train"),
        ("gnt_dir: /gnt\n", FlagError, 1, "gnt_dir is no flag of train. It is one of synth, convert, verify"),
        ("\nepoch: forty\n", FlagError, 2, "epoch: 'forty' is not a whole number"),
        ("epoch: 1.5\n", FlagError, 1, "epoch: 1.5 is not a whole number"),
        ("epoch: !!int x\n", FlagError, 1, "epoch: 'x' is not a whole number"),
        (f"epoch: {'9' * 5000}\n", FlagError, 1, "99' is not a whole number"),
        ("epoch: true\n", FlagError, 1, "epoch: True is not a whole number"),
        ('learning_rate: "high"\n', FlagError, 1, "learning_rate: 'high' is not a number"),
        ("learning_rate: '0.1'\n", FlagError, 1, "learning_rate: '0.1' is not a number"),
        ("learning_rate: .nan\n", FlagError, 1, "learning_rate: '.nan' is not a number"),
        ("overwrite: yes\n", FlagError, 1, "overwrite: 'yes' is not true or false"),
        ("train_dir: 2026\n", FlagError, 1, 'train_dir: 2026 is not a text. Write it in quotes: "2026"'),
        ("train_dir: ''\n", FlagError, 1, "train_dir: its value is empty"),
        ("batch_size:\n", FlagError, 1, "batch_size: nothing, not a whole number. Leave the line out"),
        ("epoch: [1, 2]\n", FlagError, 1, "epoch: a list, not a whole number"),
        ("epoch: 0\n", FlagError, 1, "epoch: 0 is less than 1"),
        ("model_name: hanzinet\n", FlagError, 1, "model_name: there is no network 'hanzinet'. Did you mean hanzi_net?"),
        ("epoch: 3\nseed: 1\nepoch: 4\n", FlagError, 3, "epoch is there twice, first in line 1. Remove one of them"),
        ('{"epoch": 3, "epoch": 4}', FlagError, 0, "epoch is there twice"),
        ('{"seed": 1,\n "epoch": "x"}', FlagError, 2, "epoch: 'x' is not a whole number"),
        ("[a, b]\n", FlagError, 1, "no list of settings. Write a line `NAME: VALUE` for each flag"),
        ("epoch 3\n", FlagError, 1, "no list of settings"),
        ("1: 2\n", FlagError, 1, "1 is no flag of train"),
        ("[1]: 2\n", FlagError, 1, "a key that is no name"),
        ("a: &a {b: *a}\n", FlagError, 1, "an alias of what it stands in"),
        ("epoch: 3\n\tseed: 1\n", BadDataError, 2, "not YAML: found character '\\t' that cannot start any token"),
        ("epoch: {\n", BadDataError, 2, "not YAML"),
        ("[" * 2000, BadDataError, 0, "nested too deeply"),
        ('{"a":' * 9000, BadDataError, 0, "nested too deeply"),
        ("trian:\n  epoch: 3\n", FlagError, 1, "there is no command trian. Did you mean train?"),
        ("train: 3\nconvert: {}\n", FlagError, 1, "train is a command. Write its flags into the lines below it"),
        ("epok: 3\ntrain: {}\n", FlagError, 1, "epok is no flag of any command. Did you mean epoch?"),
        ("train:\n  epoch: 3\n  convert:\n    seed: 1\n", FlagError, 3, "convert is no flag of train"),
        ("train:\n  epoch: {a: 1}\n", FlagError, 2, "epoch: settings of their own, not a whole number"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(
    text: str, kind: type[JobError], line: int, words: str, written: Any
) -> None:
    path = written(text)
    with pytest.raises(kind) as caught:
        parser.parse(COMMANDS, ["train", "--config", path])
    assert words in str(caught.value)
    assert caught.value.place == (f"{path}:{line}" if line else path)
    assert caught.value.exit_code == (65 if kind is BadDataError else 2)


def test_a_file_of_somebody_else_makes_no_object_and_grows_to_nothing(written: Any, tmp_path: Path) -> None:
    """Tags of Python are texts; 30 levels of ten aliases each would be 10^30 settings."""
    marker = tmp_path / "marker"
    for tag in (f"!!python/object/apply:os.system ['touch {marker}']", "!!python/name:os.system x", "!anything x"):
        with pytest.raises(FlagError, match="epoch"):
            parser.parse(COMMANDS, ["train", "--config", written(f"epoch: {tag}\n")])
    assert not marker.exists()
    levels = [
        f"a{level}: &a{level} {{{', '.join(f'k{n}: *a{level - 1}' for n in range(10))}}}" for level in range(1, 30)
    ]
    with pytest.raises(FlagError, match="there is no command a0"):
        parser.parse(COMMANDS, ["train", "--config", written("\n".join(["a0: &a0 {epoch: 3}", *levels]))])


def test_a_list_of_files_is_given_on_the_command_line(written: Any) -> None:
    with pytest.raises(FlagError, match=r"images is no flag. Give IMAGE on the command line"):
        parser.parse(COMMANDS, ["predict", "--config", written("images: [a.png]\n")])


def test_a_file_that_is_not_there_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no\.yaml"):
        parser.parse(COMMANDS, ["train", "--config", str(tmp_path / "no.yaml")])
    (tmp_path / "b").write_bytes(b"epoch: \xff\n")
    with pytest.raises(BadDataError, match="not UTF-8"):
        parser.parse(COMMANDS, ["train", "--config", str(tmp_path / "b")])


def test_the_command_ends_with_the_words_and_the_code(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = written("epocs: 3\n")
    assert cli.main(["train", "--config", path]) == 2
    assert capsys.readouterr().err == (
        f"tfos-job train: error: {path}:1: epocs is no flag of train. Did you mean epoch?\n"
    )


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "a: 010\nb: 1e3\nc: no\nd: 2026-11-29\ne: ~\nf: TRUE\ng: 1:30\nh: -.5\ni: '7'\nj: +7\n"
    found = {name: node.value for name, node in settings_document.parse(text, "f").items()}
    assert found == {
        "a": 10, "b": 1000.0, "c": "no", "d": "2026-11-29", "e": None, "f": True, "g": "1:30", "h": -0.5, "i": "7",
        "j": 7,
    }  # fmt: skip


# --- the record of a run ----------------------------------------------------------------------------------------------


def test_the_settings_of_a_run_are_those_of_another_one(tmp_path: Path) -> None:
    run = RunLayout(str(tmp_path / "old"))
    old = TrainConfig(
        dataset_dir="/data",
        train_dir=run.root,
        max_number_of_steps=70,
        save_seconds=None,
        trainable_scopes="logits",
        random_transpose=True,
        checkpoint_path="/weights",
        overwrite=True,
        recipe="hanzi",
        batch_size=7,
    )
    storage.make_dirs(run.root)
    storage.write_json(run.config, to_dict(old))
    attempts.begin(run, 1, old, [], "digest")
    new = str(tmp_path / "new")
    # With all that it was trained with and began from, and none of the folder, nor of the wish to clear it. The values
    # are all given, so that the recipe, of which it has the name, changes nothing.
    expected = dataclasses.replace(old, train_dir=new, overwrite=False)
    for record in (run.config, run.attempt(1)):
        assert train("--config", record, "--train_dir", new) == expected
    shorter = train("--config", run.config, "--train_dir", new, "--epoch", "2")
    assert shorter == dataclasses.replace(expected, epoch=2, max_number_of_steps=None)
    # A recipe of the command line is a flag as any other: the record's values of its settings do not undo it.
    other = train("--config", run.config, "--train_dir", new, "--recipe", "hwdb", "--batch_size", "9")
    of_recipe = dict(RECIPES["hwdb"].settings) | {"recipe": "hwdb", "batch_size": 9, "max_number_of_steps": None}
    assert other == dataclasses.replace(expected, **of_recipe)
    with pytest.raises(FlagError, match="--train_dir is needed: the settings of a run are taken for another one"):
        train("--config", run.config)
    with pytest.raises(FlagError, match="which are flags of train, not of evaluate"):
        parse_config("evaluate", ["--config", run.config])


def test_a_setting_of_a_file_counts_as_given(folder: Path, written: Any) -> None:  # noqa: F811 - the fixture
    config = begun(folder)
    run = RunLayout(config.train_dir)
    same = train("--config", written("batch_size: 10\nsave_steps: 5\n"), "--train_dir", run.root)
    assert resume.require_same_recipe(run, config, same) == []
    assert (same.save_steps, same.max_number_of_steps) == (5, 20)
    other = train("--config", written("batch_size: 11\n"), "--train_dir", run.root)
    with pytest.raises(SettingsError, match="batch_size 10 → 11"):
        resume.require_same_recipe(run, config, other)


# --- on the way to a cluster ------------------------------------------------------------------------------------------


FORMS = {
    "port_range": "40000-40099",
    "model_name": "a.b:c",
    "dataset_split_name": "test-1",
    "validation_split_name": "test-2",
    "top_k": "1,2",
    "deadlines": "build=20,stall=30",
    "formats": "saved_model,onnx",
}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_line_is_the_same_without_its_file(name: str, tmp_path: Path, written: Any) -> None:
    """Every flag of every command, with a value that is not its default, through the file and back to flags."""
    values: dict[str, Any] = {}
    for item in dataclasses.fields(COMMANDS[name].config):
        kind = kind_of(item)
        if "nargs" in item.metadata or item.name == "change_settings":  # with it, this would be the record of a run
            continue
        if "choices" in item.metadata:
            values[item.name] = item.metadata["choices"][-1]
        elif kind == "bool":
            values[item.name] = not item.default
        elif kind.startswith("tuple"):
            values[item.name] = ("a=-odd näme", "b=c")
        elif kind in ("int", "float"):
            values[item.name] = max({"int": 1, "float": 0.125}[kind], item.metadata.get("minimum", 0))
        else:
            values[item.name] = "-odd näme"
        if item.name in FORMS and kind == "str" and "choices" not in item.metadata:
            values[item.name] = FORMS[item.name]
    path = written(json.dumps(values), "all.json")
    line = parser.parse(COMMANDS, [name, "--config", path, "--log_format", "json"])
    again = parser.parse(COMMANDS, [name, *line.without_file()])
    assert dict(again.given) == dict(line.given) == values
    assert again.process == dataclasses.replace(line.process, config=None)


def test_submit_resolves_the_file_on_its_own_host(
    written: Any,
    capsys: pytest.CaptureFixture[str],
    folder: Path,  # noqa: F811 - the fixture
) -> None:
    before = contents(folder)
    path = written(
        f"dataset_dir: file://{folder}/data\ntrain:\n  train_dir: file://{folder}/run\n  epoch: 3\n  save_seconds:\n"
        "  image_size: 16\n  master: yarn\n  dry_run: true\n"
    )
    assert submit.main(["train", "--config", path, "--hdfs_dir", "hdfs://nn/me", "--epoch", "4"]) == 0
    captured = capsys.readouterr()
    line = shlex.split(captured.out)
    sent = line[next(at for at, word in enumerate(line) if word.endswith("train_job.py")) + 1 :]
    assert sent == [
        f"--dataset_dir=file://{folder}/data", f"--train_dir=file://{folder}/run", "--image_size=16", "--epoch=4",
        "--save_seconds=none",
    ]  # fmt: skip
    assert {name: value for name, value in contents(folder).items() if name != "nightly.yaml"} == before


def test_submits_dry_run_also_says_what_train_would_do(
    folder: Path,  # noqa: F811 - the fixture
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO")
    config = settings(folder, dataset_dir=f"file://{folder}/data", train_dir=f"file://{folder}/run")
    flags = [f"--{name}={getattr(config, name)}" for name in ("dataset_dir", "train_dir", "image_size")]
    assert submit.main(["train", *flags, "--hdfs_dir", "hdfs://nn/me", "--dry_run"]) == 0
    assert capsys.readouterr().out.startswith("spark-submit --master yarn")
    assert "What `train` would do" in caplog.text
    assert "1 parameter server, 1 worker on yarn" in caplog.text
