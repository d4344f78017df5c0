"""A run may be somebody else's: what its documents name as its network is imported only if the user names it, too."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit import small_runs
from tests.unit.small_checkpoints import flip_byte
from tests.unit.small_runs import SPLIT, STEP, SmallRun
from tfos_job import storage
from tfos_job.commands import evaluate as evaluate_command
from tfos_job.commands import export as export_command
from tfos_job.commands import parser
from tfos_job.commands.registry import COMMANDS
from tfos_job.config import (
    EvaluateConfig,
    ExportConfig,
    InferConfig,
    InspectConfig,
    PredictConfig,
    ServeConfig,
    TrainConfig,
)
from tfos_job.errors import BadDataError, FlagError, MissingInputError, SettingsError
from tfos_job.inference import scoring_process
from tfos_job.inference.predictor import Predictor
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.local_jobs import report, serve
from tfos_job.local_jobs.evaluate import evaluate
from tfos_job.local_jobs.export import export
from tfos_job.local_jobs.inspect import inspect
from tfos_job.local_jobs.predict import predict
from tfos_job.run import checkpoints, own_network, summary
from tfos_job.run.checkpoint_files import document_digest
from tfos_job.run.model_digest import model_digest
from tfos_job.scoring import models
from tfos_job.scoring.plan import Model

NAME = "somebodys_network:build"
CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("it ran")
from tfos_job.networks.chinese_rec import build
"""


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Is there as soon as the module that the run names is imported."""
    marker = tmp_path / "marker"
    (tmp_path / "somebodys_network.py").write_text(CODE.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    sys.modules.pop("somebodys_network", None)


@pytest.fixture
def run(tmp_path: Path) -> SmallRun:
    """Of chinese_rec, under another name."""
    made = small_runs.make(tmp_path, 3)
    rename(made, NAME)
    storage.write_json(DatasetLayout(made.dataset_dir).charset, small_runs.CHARSET.to_json())
    return made


def rename(run: SmallRun, name: str) -> None:
    """What somebody who can write to a folder can do: its digest proves no origin."""
    model = storage.read_json(document_of(run))["model"]
    rewrite(run, {"model": model | {"model_name": name}})


def rewrite(run: SmallRun, change: dict[str, Any]) -> None:
    document = storage.read_json(document_of(run)) | change
    storage.write_json(document_of(run), document | {"document_sha256": document_digest(document)})


def document_of(run: SmallRun) -> str:
    return f"{RunLayout(run.train_dir).checkpoint(STEP)}/checkpoint.json"


def predict_config(run: SmallRun, **given: Any) -> PredictConfig:
    return PredictConfig(train_dir=run.train_dir, images=(f"{run.train_dir}/none.png",), **given)


def evaluate_config(run: SmallRun, **given: Any) -> EvaluateConfig:
    folders = {"train_dir": run.train_dir, "dataset_dir": run.dataset_dir}
    return EvaluateConfig(**folders, dataset_split_name=SPLIT, numbers_only=True, **given)


def export_config(run: SmallRun, **given: Any) -> ExportConfig:
    return ExportConfig(train_dir=run.train_dir, export_dir=f"{run.train_dir}/e", **given)


def of_run(run: SmallRun) -> Model:
    """As a process on an executor is told of it, without a name."""
    info, arrays = checkpoints.read_network(RunLayout(run.train_dir), "last")
    return Model(train_dir=run.train_dir, checkpoint=info.path, digest=model_digest(info, arrays), step=STEP)


def check(name: str, config: Any) -> None:
    """What `submit` does before anything is sent."""
    submission = COMMANDS[name].submission
    assert submission is not None
    submission.check(config)


def newest(config: ServeConfig) -> list[str]:
    """What `serve` does before it takes its address."""
    return [source.newest() for source in serve._sources(config)]


WAYS: dict[str, Callable[[SmallRun, dict[str, Any]], Any]] = {
    "Predictor": lambda run, given: Predictor(run.train_dir, **given),
    "evaluate": lambda run, given: evaluate(evaluate_config(run, **given)),
    "submit evaluate": lambda run, given: check("evaluate", evaluate_config(run, **given)),
    "evaluate, before Spark": lambda run, given: evaluate_command.check(evaluate_config(run, **given)),
    "submit infer": lambda run, given: check("infer", infer_config(run, **given)),
    "infer": lambda run, given: models.find(run.train_dir, "last", None, **given),
    "export": lambda run, given: export(export_config(run, **given)),
    "submit export": lambda run, given: check("export", export_config(run, **given)),
    "export, before TensorFlow": lambda run, given: export_command.check(export_config(run, **given)),
    "serve": lambda run, given: newest(ServeConfig(train_dir=run.train_dir, **given)),
    "serve several": lambda run, given: newest(ServeConfig(model=(f"a={run.train_dir}",), **given)),
}


def infer_config(run: SmallRun, **given: Any) -> InferConfig:
    Path(run.train_dir, "a.png").write_bytes(small_runs.png(run.glyphs[0]))
    return InferConfig(
        train_dir=run.train_dir,
        input=run.train_dir,
        output_dir=f"{run.dataset_dir}/out",
        output_format="jsonl",
        **given,
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_network_of_somebody_else_runs_only_if_it_is_named(way: str, run: SmallRun, marker: Path) -> None:
    with pytest.raises(SettingsError, match=f"Python that would be imported and called.*--model_name {NAME}") as caught:
        WAYS[way](run, {})
    assert caught.value.exit_code == 78
    with pytest.raises(SettingsError, match=f"^--model_name mine:build: .* is of the network '{NAME}'"):
        WAYS[way](run, {"model_name": "mine:build"})
    assert not marker.exists()
    WAYS[way](run, {"model_name": NAME})


def test_predict_names_it_before_it_looks_at_pictures(run: SmallRun, marker: Path) -> None:
    with pytest.raises(SettingsError, match="Python that would be imported and called"):
        list(predict(predict_config(run)))
    with pytest.raises(SettingsError, match="Python that would be imported and called"):
        check("predict", predict_config(run))
    assert not marker.exists()


def test_the_name_travels_to_executors_and_nothing_is_imported_there_without_it(run: SmallRun, marker: Path) -> None:
    with pytest.raises(SettingsError, match="Python that would be imported"):
        scoring_process.predictor_of(of_run(run), False)
    with pytest.raises(SettingsError, match="Python that would be imported"):
        scoring_process._judge(of_run(run), 1, (1,), lambda: None)
    assert not marker.exists()
    found = models.find(run.train_dir, "last", None, NAME)
    assert Model(**json.loads(json.dumps(vars(found)))).model_name == NAME
    assert scoring_process.predictor_of(found, False).digest == found.digest
    assert marker.exists()


def test_reports_and_pictures_of_a_run_import_nothing(run: SmallRun, marker: Path, tmp_path: Path) -> None:
    """Its config.json names it, too."""
    layout = RunLayout(run.train_dir)
    config = TrainConfig(dataset_dir=run.dataset_dir, train_dir=run.train_dir, model_name=NAME)
    storage.write_json(layout.config, dataclasses.asdict(config))
    storage.write_json(layout.report, {"model": {"model_name": NAME}, "state": "finished"})
    folder = str(tmp_path / "pictures")
    inspect(InspectConfig(dataset_dir=run.dataset_dir, train_dir=run.train_dir, output_dir=folder))
    assert report.lines(summary.read(run.train_dir), None, "")
    assert not marker.exists()


def test_the_newest_whole_checkpoint_counts(run: SmallRun) -> None:
    flip_byte(Path(RunLayout(run.train_dir).checkpoint(STEP)) / "checkpoint.json")
    own_network.check(RunLayout(run.train_dir), "last", None)  # whoever reads it says that there is none
    with pytest.raises(MissingInputError, match="no checkpoint that verifies"):
        Predictor(run.train_dir)


def test_several_models_share_the_name(run: SmallRun, tmp_path: Path) -> None:
    other = small_runs.make(tmp_path / "other", 3)
    both = ServeConfig(model=(f"own={run.train_dir}", f"other={other.train_dir}"), model_name=NAME)
    assert newest(both) == [run.train_dir, other.train_dir]
    with pytest.raises(SettingsError, match=r"is of the network 'chinese_rec'. Leave it out"):
        newest(ServeConfig(train_dir=other.train_dir, model_name=NAME))


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"model_name": None}},
        {"model": {"model_name": ["chinese_rec"]}},
        {"model": {}},
        {"model": 1.5},
        {"characters": True},
        {"characters": None},
    ],
    ids=str,
)
def test_a_network_that_is_none_is_damage(run: SmallRun, change: dict[str, Any]) -> None:
    rewrite(run, change)
    for way in (WAYS["Predictor"], WAYS["infer"], WAYS["submit evaluate"], WAYS["serve"]):
        with pytest.raises(BadDataError, match="names no network"):
            way(run, {})


def test_one_file_of_settings_names_the_network_of_all_commands(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("model_name: hanzi_net\ntrain_dir: r\n")
    config = ("--config", str(tmp_path / "settings.yaml"))
    for line in (["evaluate", "--dataset_dir", "d"], ["predict", "i"], ["export", "--export_dir", "e"], ["serve"]):
        assert parser.parse(COMMANDS, [*line, *config]).given["model_name"] == "hanzi_net"
    for kind in (PredictConfig, EvaluateConfig, InferConfig, ServeConfig):
        with pytest.raises(FlagError, match="there is no network 'hanzinet'"):
            kind(**{**NEEDED[kind], "model_name": "hanzinet"})


NEEDED: dict[type, dict[str, Any]] = {
    PredictConfig: {"train_dir": "r", "images": ("i",)},
    EvaluateConfig: {"train_dir": "r", "dataset_dir": "d"},
    InferConfig: {"train_dir": "r", "input": "i", "output_dir": "o"},
    ServeConfig: {"train_dir": "r"},
}
