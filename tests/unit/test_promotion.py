"""From two checkpoints to what servers take, by the command line: evaluate, export, promote, rollback, history."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit import small_runs
from tests.unit.small_runs import CHARSET
from tfos_job import cli
from tfos_job.errors import BadDataError
from tfos_job.inference.blessing import bless
from tfos_job.inference.predictor import Predictor
from tfos_job.layout import ExportLayout, RunLayout
from tfos_job.run import checkpoints, exports
from tfos_job.run.checkpoint_files import document_digest

Main = Callable[..., Any]


@dataclass(frozen=True)
class Offered:
    """Two exported models, each with its predictions for the frozen set, and the number of right ones."""

    train_dir: str
    dataset_dir: str
    frozen_dir: str
    exports: tuple[str, str]
    predictions: tuple[str, str]
    num_right: tuple[int, int]


@pytest.fixture
def main(capfd: pytest.CaptureFixture[str]) -> Main:
    def main(*words: str, exit_code: int = 0) -> Any:
        """What a command writes to stdout and to stderr."""
        capfd.readouterr()
        assert cli.main(list(words)) == exit_code
        output = capfd.readouterr()
        return output.out, output.err

    return main


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Offered:
    root = tmp_path_factory.mktemp("offered")
    small = small_runs.make(root)
    frozen = small_runs.make(root / "frozen", 40)
    run = RunLayout(small.train_dir)
    first = checkpoints.verify(run.checkpoint(small_runs.STEP))
    document = {key: first.document[key] for key in checkpoints.META_KEYS if key in first.document}
    arrays = checkpoints.load(first)
    other = {name: array + np.float32(0.05) if name.endswith("/kernel") else array for name, array in arrays.items()}
    checkpoints.publish(run, small_runs.STEP * 2, other, document)
    folders, predictions, num_right = [], [], []
    for step in (small_runs.STEP, small_runs.STEP * 2):
        folder = str(root / f"exports-{step}")
        of_checkpoint = ["--train_dir", small.train_dir, "--checkpoint", run.checkpoint(step)]
        evaluated = ["--dataset_dir", frozen.dataset_dir, "--dataset_split_name", small_runs.SPLIT, "--numbers_only"]
        assert cli.main(["evaluate", *of_checkpoint, *evaluated]) == 0
        assert cli.main(["export", *of_checkpoint, "--export_dir", folder, "--top_k", "3"]) == 0
        folders.append(folder)
        predictions.append(run.evaluation_predictions(step, small_runs.SPLIT))
        num_right.append(round(40 * json.loads(Path(run.evaluation(step, small_runs.SPLIT)).read_text())["top_1"]))
    return Offered(
        small.train_dir, small.dataset_dir, frozen.dataset_dir, tuple(folders), tuple(predictions), tuple(num_right)
    )


def words(offered: Offered, number: int, registry: str) -> list[str]:
    place = ["--registry_dir", registry, "--export_dir", offered.exports[number]]
    return ["promote", *place, "--predictions", offered.predictions[number]]


def test_two_models_by_the_command_line(offered: Offered, main: Main, tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    out, err = main(*words(offered, 0, registry))
    first = json.loads(out)
    assert (first["decision"], first["version"], first["already_promoted"]) == ("promoted", 1, False)
    assert f"promoted: version 1 of {registry} is the current one: there is nothing to compare with" in err
    assert "no accuracy is asked for" in err
    predictor = Predictor.exported(registry)
    assert (predictor.digest, predictor.checkpoint) == (first["digest"], f"{registry}/1")

    out, _ = main(*words(offered, 0, registry))
    assert json.loads(out)["already_promoted"]

    out, err = main(*words(offered, 1, registry), "--min_top_1", "1", "--require_promotion", exit_code=65)
    kept = json.loads(out)
    assert (kept["decision"], kept["version"]) == ("kept", 1)
    assert kept["gate"]["tests"]["floor"]["num_correct"] == offered.num_right[1]
    assert "is below 1" in kept["reason"]
    assert err.rstrip().splitlines()[-1].startswith("tfos-job promote: error: model ")
    out, err = main(*words(offered, 1, registry), "--min_top_1", "1")
    assert json.loads(out)["decision"] == "kept"
    assert f"kept: version 1 of {registry} is the current one: top-1" in err

    out, _ = main(*words(offered, 1, registry), "--min_top_1", "1", "--force", "--reason", "a trial")
    assert json.loads(out)["version"] == 2
    assert Predictor.exported(registry).digest == json.loads(out)["digest"] != first["digest"]

    out, err = main("rollback", "--registry_dir", registry, "--reason", "it was a trial")
    back = json.loads(out)
    assert (back["version"], back["restores"], back["parent"], back["digest"]) == (3, 1, 2, first["digest"])
    assert f"version 3 of {registry} is published, with the files of version 1" in err
    assert Predictor.exported(registry).digest == first["digest"]

    out, _ = main("history", "--registry_dir", registry, "--format", "json")
    entries = json.loads(out)
    assert [entry["kind"] for entry in entries] == ["promoted", "kept", "kept", "promoted", "rolled_back"]
    assert [entry["is_current"] for entry in entries] == [False, False, False, False, True]
    assert entries[0]["training"]["dataset_digest"] != entries[0]["frozen_set"]["digest"]
    assert entries[0]["flags"]["train"]["dataset_dir"] == offered.dataset_dir
    assert entries[0]["source"]["checkpoint"] == RunLayout(offered.train_dir).checkpoint(small_runs.STEP)
    out, _ = main("history", "--registry_dir", registry)
    lines = out.splitlines()
    assert lines[0].split() == ["version", "time", "(UTC)", "what", "top-1", "step", "model", "by", "reason"]
    assert len(lines) == 6
    assert lines[4].split()[0] == "2"
    assert "promoted, forced" in lines[4]
    assert lines[5].split()[0] == "*3"
    assert "rolled back to 1" in lines[5]
    assert lines[5].endswith("it was a trial")

    _, err = main("export", "--train_dir", offered.train_dir, "--export_dir", registry, exit_code=78)
    assert "is a registry of promoted models" in err


def test_what_the_command_line_refuses(offered: Offered, main: Main, tmp_path: Path) -> None:
    registry = str(tmp_path / "registry")
    place = ["--registry_dir", registry, "--export_dir", offered.exports[0]]
    _, err = main("promote", *place, "--predictions", offered.predictions[1], exit_code=78)
    digests = [exports.read(f"{folder}/1").digest for folder in offered.exports]
    assert all(digest in err for digest in digests)
    _, err = main("promote", *place, "--predictions", f"{registry}.npz", exit_code=66)
    _, err = main(*words(offered, 0, registry), "--force", exit_code=78)
    assert "--force: given without --reason" in err
    _, err = main(*words(offered, 0, registry), "--reason", "why not", exit_code=78)
    assert "--reason: given without --force" in err
    main(*words(offered, 0, registry), "--min_top_1", "1.5", exit_code=2)
    for command in (["history"], ["rollback", "--reason", "why not"]):
        _, err = main(*command, "--registry_dir", registry, exit_code=66)
        assert "no registry there" in err
    assert not Path(registry).exists()


def test_an_evaluation_of_the_training_records_is_no_evidence(offered: Offered, main: Main, tmp_path: Path) -> None:
    run = RunLayout(offered.train_dir)
    kept = {path: Path(path).read_bytes() for path in offered.predictions}
    split = ["--dataset_dir", offered.dataset_dir, "--dataset_split_name", small_runs.SPLIT, "--numbers_only"]
    main("evaluate", "--train_dir", offered.train_dir, "--checkpoint", run.checkpoint(small_runs.STEP), *split)
    _, err = main(*words(offered, 0, str(tmp_path / "registry")), exit_code=78)
    assert "predictions for the records that the model was trained on" in err
    for path, data in kept.items():
        Path(path).write_bytes(data)


def reword(folder: Path, **changes: Any) -> None:
    """Changes `export.json` as somebody who knows of its digest would."""
    path = folder / "export.json"
    document = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps(document | {"document_sha256": document_digest(document)}), "utf-8")


def test_what_answers_is_blessed(offered: Offered) -> None:
    for folder in offered.exports:
        bless(f"{folder}/1")


@pytest.mark.parametrize("damage", ["no graph", "another graph", "too many classes", "another size"])
def test_what_does_not_answer_is_not(damage: str, offered: Offered, tmp_path: Path) -> None:
    """Files that are those that `export.json` names, so that only a request tells."""
    folder = tmp_path / "1"
    shutil.copytree(f"{offered.exports[0]}/1", folder)
    document = exports.read(str(folder)).document
    if damage.endswith("graph"):
        with_graph = tmp_path / "made"
        shutil.copytree(folder, with_graph)
        data = b"" if damage == "no graph" else (with_graph / "saved_model.pb").read_bytes()[:-1_000]
        (with_graph / "saved_model.pb").write_bytes(data)
        (with_graph / "export.json").unlink()
        (tmp_path / "versions").mkdir()
        kept = {key: value for key, value in document.items() if key not in ("files", "version", "document_sha256")}
        folder = Path(exports.publish(ExportLayout(str(tmp_path / "versions")), str(with_graph), kept).path)
    elif damage == "too many classes":
        reword(folder, classes=[*CHARSET.characters, "下"])
    else:
        reword(folder, preprocessing=document["preprocessing"] | {"image_size": 24})
    with pytest.raises(BadDataError) as failed:
        bless(str(folder))
    assert failed.value.place.startswith(str(tmp_path))
