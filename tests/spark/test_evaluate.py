"""`evaluate` on executors: the numbers of a single process, to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.unit.small_checkpoints import publish_untrained
from tfos_job.config import EvaluateConfig
from tfos_job.errors import BadDataError
from tfos_job.jobs.evaluate import judge
from tfos_job.layout import RunLayout
from tfos_job.local_jobs.evaluate import evaluate
from tfos_job.run import kept_predictions


@pytest.fixture(scope="module")
def config(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = RunLayout(str(tmp_path_factory.mktemp("run")))
    publish_untrained(run, str(small_dataset))
    return {"dataset_dir": str(small_dataset), "train_dir": run.root, "dataset_split_name": "train", "batch_size": 4}


def test_executors_count_what_one_process_counts(spark: SparkSession, config: dict[str, Any]) -> None:
    settings = EvaluateConfig(**config)
    alone = evaluate(settings)
    folder = Path(alone["pictures"])
    names = sorted(path.name for path in folder.iterdir())
    before, _ = kept_predictions.read(alone["predictions"])
    shutil.rmtree(folder)
    judged = judge(spark, settings)
    assert len(judged.shards) == 8  # each a task, on two executors' worth of slots
    assert all(np.issubdtype(shard.counts.dtype, np.float64) for shard in judged.shards)
    shared = evaluate(settings, judged)
    assert shared == alone  # the loss, too
    assert alone["num_examples"] == 80
    after, _ = kept_predictions.read(shared["predictions"])
    assert after.header == msgspec.structs.replace(before.header, created=after.header.created)
    assert all(
        getattr(after.predictions, name).tobytes() == getattr(before.predictions, name).tobytes()
        for name in ("labels", "predicted", "probabilities", "losses")
    )
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_damaged_record_is_named(spark: SparkSession, config: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(config["dataset_dir"], tmp_path / "dataset")
    shard = sorted((tmp_path / "dataset" / "train").rglob("*.tfrecord"))[3]
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(BadDataError, match=rf"{shard.name}, byte \d+: truncated"):
        judge(spark, EvaluateConfig(**config | {"dataset_dir": str(tmp_path / "dataset")}))
