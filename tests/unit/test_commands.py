"""A new command is one declaration: the parser, the process, the submission and the reference take it from there."""

from __future__ import annotations

import dataclasses
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from tfos_job import cli
from tfos_job.commands.command import Command, Context, Submission, Work, batch_containers
from tfos_job.commands.registry import COMMANDS, SUBMISSIONS
from tfos_job.config.flags import Flags, flag, path
from tfos_job.submit import main as submit

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelConfig(Flags):
    dataset_dir: str = path("folder of the dataset")
    batch_size: int = flag("images per step", 128, minimum=1)


def run(config: LabelConfig, context: Context) -> None:
    context.emit({"batch_size": config.batch_size, "master": context.master})


LABEL = Command(
    name="label",
    config=LabelConfig,
    run=run,
    help="name the classes of a whole dataset",
    when_stopped="Run it again",
    on_spark=True,
    submission=Submission(
        profiles=("common", "batch"),
        containers=batch_containers,
        queue="night",
        size_of_work=lambda config: Work(of_pictures=True),
    ),
)


@pytest.fixture(autouse=True)
def label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, LABEL.name, LABEL)
    monkeypatch.setitem(SUBMISSIONS, LABEL.name, LABEL.submission)


def test_it_runs_with_its_flags(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["label", "--dataset_dir", "d", "--batch_size", "7", "--master", "local[1]"]) == 0
    assert capfd.readouterr().out == '{"batch_size": 7, "master": "local[1]"}\n'
    assert cli.main(["label", "--dataset_dir", "d", "--batch_size", "0"]) == 2
    assert "tfos-job label: error: --batch_size: 0 is less than 1" in capfd.readouterr().err


def test_it_is_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["label", "--dataset_dir", "hdfs://nn/d", "--hdfs_dir", "hdfs://nn/me", "--dry-run"]
    assert submit.main(words) == 0
    line = shlex.split(capsys.readouterr().out)
    assert line[-3:] == [f"{ROOT}/spark/label_job.py", "--dataset_dir", "hdfs://nn/d"]
    assert line[line.index("--queue") + 1] == "night"
    assert "spark.dynamicAllocation.enabled=true" in line
    assert submit.main(["label", "--dataset_dir", "/disk/d", "--hdfs_dir", "hdfs://nn/me", "--dry-run"]) == 78


def test_it_is_in_the_reference() -> None:
    text: Any = runpy.run_path(str(ROOT / "scripts" / "reference.py"))["render"]()
    assert "## label\n\nName the classes of a whole dataset.\n" in text
    assert "| `--batch_size` | whole number, 1 or more | `128` | images per step |" in text
