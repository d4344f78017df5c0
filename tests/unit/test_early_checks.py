"""What is not there is told before TensorFlow is loaded for it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.manifests import example
from tfos_job import cli, storage
from tfos_job.commands import evaluate, export, inspect, report
from tfos_job.errors import MissingInputError
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.run import checkpoints

SPLIT = ("--dataset_split_name", "train")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`dataset` with the manifest of its split train, and `run` with its settings and what is named as a checkpoint."""
    split = DatasetLayout(str(tmp_path / "dataset")).split("train")
    storage.make_dirs(split.root)
    storage.write_json(split.manifest, example().to_json())
    run = RunLayout(str(tmp_path / "run"))
    storage.make_dirs(run.checkpoint(20))
    storage.make_dirs(run.evaluation_dir)
    storage.write_json(run.config, {"validation_split_name": "test"})
    storage.write_json(run.report, {"state": "finished"})
    (tmp_path / "file").touch()
    (tmp_path / "locked" / "checkpoints" / "step-00000020").mkdir(parents=True)
    (tmp_path / "locked" / "evaluation").touch()
    return tmp_path


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    storage.require_writable(str(tmp_path / "a" / "b"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "b"]


@pytest.mark.parametrize(
    ("command", "flags", "exit_code", "words"),
    [
        (evaluate, ("--dataset_dir", "none", "--train_dir", "run", *SPLIT), 66, "no such split"),
        (
            evaluate,
            ("--dataset_dir", "file", "--train_dir", "run", *SPLIT),
            66,
            "a file, and --dataset_dir is a folder",
        ),
        (evaluate, ("--dataset_dir", "dataset", "--train_dir", "none", *SPLIT), 66, "none: no such folder"),
        (
            evaluate,
            ("--dataset_dir", "dataset", "--train_dir", "run", *SPLIT, "--checkpoint", "best"),
            66,
            "no checkpoint that verifies and was evaluated on a --validation_split_name; there is step-00000020",
        ),
        (
            evaluate,
            ("--dataset_dir", "dataset", "--train_dir", "run", *SPLIT, "--checkpoint", "none"),
            66,
            "no checkpoint there",
        ),
        (
            evaluate,
            ("--dataset_dir", "dataset", "--train_dir", "locked", *SPLIT),
            78,
            "locked/evaluation: cannot make the folder: a file is there",
        ),
        (export, ("--train_dir", "none", "--export_dir", "out"), 66, "none: no such folder. Check --train_dir"),
        (report, ("--train_dir", "none", "--html", "page.html"), 66, "no such run"),
        (report, ("--train_dir", "run", "--html", "file/page.html"), 78, "file: cannot make the folder"),
        (report, ("--train_dir", "run", "--html", "/proc/self/page.html"), 66, "/proc/self: cannot write it"),
        (inspect, ("--dataset_dir", "none", "--output_dir", "out", *SPLIT), 66, "no such split"),
        (inspect, ("--dataset_dir", "dataset", "--output_dir", "file", *SPLIT), 78, "a file is there"),
        (
            inspect,
            ("--dataset_dir", "dataset", "--output_dir", "out", *SPLIT, "--train_dir", "none"),
            66,
            "none: no such run",
        ),
    ],
)
def test_what_is_not_there_needs_no_tensorflow(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: ModuleType,
    flags: tuple[str, ...],
    exit_code: int,
    words: str,
) -> None:
    def load(**_: object) -> None:
        raise AssertionError("TensorFlow is loaded")

    monkeypatch.setattr(command, "load_tensorflow", load)
    monkeypatch.chdir(root)
    name = command.__name__.rpartition(".")[2]
    assert cli.main([name, *flags]) == exit_code
    told = capfd.readouterr().err
    assert words in told


def test_a_checkpoint_is_required_by_its_name_alone(root: Path) -> None:
    run = RunLayout(str(root / "run"))
    checkpoints.require(run, "last")
    checkpoints.require(run, run.checkpoint(20))
    with pytest.raises(MissingInputError, match="there is step-00000020"):
        checkpoints.require(run, "best")
    storage.write_json(run.evaluation(20, "test"), {"top_1": 0.5})
    checkpoints.require(run, "best")
    with pytest.raises(MissingInputError, match="there is nothing"):
        checkpoints.require(RunLayout(str(root)), "last")
