"""The process that answers on executors, called as a function: its models, its parts, its errors."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import tensorflow as tf

from tests.unit import small_runs
from tfos_job import storage
from tfos_job.errors import BusyError, ResourceError, SettingsError
from tfos_job.formats import gnt
from tfos_job.inference import scoring_process
from tfos_job.inference.out_of_memory import memory_errors
from tfos_job.layout import InferenceLayout
from tfos_job.scoring import inputs, models, rows
from tfos_job.scoring.plan import Model
from tfos_job.scoring.task import PartTask

PLAN_ID = "0123"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> small_runs.SmallRun:
    return small_runs.make(tmp_path_factory.mktemp("run"), 3)


@pytest.fixture(scope="module")
def model(run: small_runs.SmallRun) -> Model:
    return models.of_run(run.train_dir, "last")


@pytest.fixture
def task(model: Model, tmp_path: Path) -> PartTask:
    """The order to answer about 30 glyphs."""
    draw = np.random.default_rng(0)
    with (tmp_path / "a.gnt").open("wb") as stream:
        for number in range(30):
            character = small_runs.CHARSET.characters[number % 7]
            gnt.write(stream, gnt.encode_tag(character), draw.integers(0, 256, (9, 9), np.uint8))
    layout = InferenceLayout(str(tmp_path / "out"))
    storage.make_dirs(layout.parts_dir)
    storage.write_json(layout.plan, {"id": PLAN_ID})
    return PartTask(
        number=0,
        files=inputs.find(str(tmp_path / "a.gnt")).files,
        model=model,
        part=layout.part(0, "parquet"),
        record=layout.part_record(0),
        plan=layout.plan,
        plan_id=PLAN_ID,
        output_format="parquet",
        top_k=3,
        raw_image=False,
        batch_size=4,
    )


def test_two_models_that_are_asked_in_turn_are_loaded_once_each(model: Model, tmp_path: Path) -> None:
    other = models.of_run(small_runs.make(tmp_path, 3, metrics={"loss": 2.0}).train_dir, "last")
    found = [scoring_process.predictor_of(one, raw_image=False) for one in (model, other, model, other)]
    assert found[0] is found[2]
    assert found[1] is found[3]
    assert found[0] is not found[1]


def test_a_part_is_written_a_block_of_rows_at_a_time(task: PartTask, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scoring_process.answer_part(task, lambda: None)
    table = pyarrow.parquet.read_table(task.part)
    monkeypatch.setattr(rows, "BLOCK_VALUES", 7 * (len(rows.COLUMNS) + 3))
    again = scoring_process.answer_part(task, lambda: None)
    assert again.counts == whole.counts
    assert (again.counts.num_rows, again.counts.num_labelled) == (30, 30)
    file = pyarrow.parquet.ParquetFile(task.part)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [7, 7, 7, 7, 2]
    assert file.read().equals(table)
    data = Path(task.part).read_bytes()
    assert again.size_bytes == len(data)
    assert json.loads(Path(task.record).read_text()) == again.to_json()


def test_rows_of_many_classes_are_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BLOCK_VALUES", 100)
    of_few = [rows.Row("a", classes=["一"] * 3)] * 20
    of_many = [rows.Row("a", classes=["一"] * 300)] * 3
    sizes = [len(block) for block in rows.blocks([*of_few, *of_many, rows.Row("a", error="no")])]
    assert sizes == [8, 8, 5, 1, 1, 1]


@pytest.mark.parametrize("content", ["[]", "7", "{", '{"id": "of another job"}', "{}"])
def test_nothing_is_published_into_what_has_become_another_folder(task: PartTask, content: str) -> None:
    Path(task.plan).write_text(content)
    with pytest.raises(BusyError, match="that of another job by now"):
        scoring_process.answer_part(task, lambda: None)
    assert not Path(task.part).exists()


def test_an_executor_without_pyarrow_is_named(task: PartTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"which .* cannot import: .*pip install 'tfos_job\[infer\]' on") as caught:
        scoring_process.answer_part(task, lambda: None)
    assert caught.value.place == f"host {socket.gethostname()}"
    text = dataclasses.replace(task, output_format="jsonl", part=task.part + ".jsonl")
    assert scoring_process.answer_part(text, lambda: None).counts.num_rows == 30


def too_large(*_: Any) -> np.ndarray:
    return tf.zeros([1 << 20, 1 << 24]).numpy()  # 64 TiB


def test_a_batch_that_does_not_fit_the_memory_is_told_with_what_to_do(
    task: PartTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_process.predictor_of(task.model, False), "probabilities", too_large)
    request = json.loads(json.dumps({"do": "part", "task": task.to_json()}))
    words = r"memory ran out: OOM when .* Give a smaller --batch_size than 4, or fewer tasks"
    with pytest.raises(ResourceError, match=words) as caught:
        scoring_process.work(request, lambda: None)
    assert caught.value.exit_code == 69
    assert caught.value.place == f"host {socket.gethostname()}"
    assert not Path(task.part).exists()
    pictures = {"model": vars(task.model), "pictures": [{"b64": "R0lG"}], "top_k": 1, "raw_image": False}
    assert scoring_process.work({"do": "pictures", "task": pictures}, lambda: None)[0][-1]  # no picture: no batch


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.InternalError(None, None, "Failed to allocate 268435456 bytes for new constant"),
        tf.errors.UnknownError(None, None, "CUDNN: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ],
)
def test_memory_that_runs_out_elsewhere_is_told_alike(error: Exception) -> None:
    with pytest.raises(ResourceError, match=r"memory ran out: .*\. Use fewer tasks at a time"), memory_errors(None):
        raise error
    with pytest.raises(tf.errors.InternalError), memory_errors(8):
        raise tf.errors.InternalError(None, None, "a bug")
