"""`train --dry_run`: what it says of each kind of run, and that it touches nothing."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.flags import parse_config
from tests.unit.dataset import SHARD_BYTES, split
from tfos_job import storage
from tfos_job.commands import dry_run, dry_run_table
from tfos_job.config import TrainConfig, to_dict
from tfos_job.errors import MissingInputError, SettingsError
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest, shard_paths
from tfos_job.layout import DatasetLayout, RunLayout, SplitLayout
from tfos_job.lease import Lease
from tfos_job.run import checkpoints, training_data
from tfos_job.staging.cache_plan import Copy

SMALL: dict[str, Any] = {"image_size": 16, "batch_size": 10, "max_number_of_steps": 20, "num_executors": 3}


def settings(folder: Path, **changes: Any) -> TrainConfig:
    paths = {"dataset_dir": str(folder / "data"), "train_dir": str(folder / "run")}
    return TrainConfig(**{**paths, **SMALL, "wire_dtype": "float32", **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a dataset of 100 records of 3 classes, one of them empty."""
    dataset, charset = DatasetLayout(str(tmp_path / "data")), Charset(tuple("一丁七"))
    for name in ("train", "test"):
        manifest = split(name, charset="一丁七", class_counts=(50, 50, 0)).manifest
        storage.make_dirs(dataset.split(name).root)
        storage.write_json(dataset.split(name).manifest, manifest.to_json())
    storage.write_json(dataset.charset, charset.to_json())
    return tmp_path


def begun(folder: Path, step: int = 7, **changes: Any) -> TrainConfig:
    """A run with a checkpoint and a report."""
    config = settings(folder, **changes)
    data, run = training_data.load(config), RunLayout(config.train_dir)
    storage.make_dirs(run.attempts_dir)
    meta = {
        "model": dataclasses.asdict(data.model),
        "characters": data.charset.sequence,
        "charset_digest": data.charset.digest,
        "dataset_digest": data.train.manifest.digest,
        "input_position": {"records_read": [10, 10], "order": data.order},
        "metrics": {},
    }
    checkpoints.publish(run, step, {"weights": np.zeros(1000, np.float32)}, meta)
    storage.write_json(run.config, to_dict(config))
    is_done = step >= data.total_steps
    report = {
        "state": "finished" if is_done else "interrupted",
        "step": step,
        "total_steps": data.total_steps,
        "num_records": data.train.manifest.num_records,
        "checkpoint": run.checkpoint(step),
        "model": meta["model"],
        "batch_size": config.batch_size,
        "num_workers": config.num_workers,
        "num_ps_tasks": config.num_ps_tasks,
        "images_per_second": 50.0,
    }
    storage.write_json(run.report, report)
    return config


def contents(folder: Path) -> dict[str, tuple[float, bytes]]:
    """Each file and folder below, with its time and bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def row(found: dict[str, Any], name: str) -> str:
    rows = [line.split(maxsplit=1) for line in dry_run_table.lines(found)[1:]]
    return dict(rows).get(name, "")  # type: ignore[arg-type]


def test_a_new_run(folder: Path) -> None:
    before = contents(folder)
    found = dry_run.forecast(settings(folder, validation_split_name="test"), "local[3]")
    assert contents(folder) == before
    assert (found["action"], found["step"], found["total_steps"], found["checkpoint"]) == ("begin", 0, 20, None)
    assert found["dataset"]["num_empty_classes"] == 1
    assert row(found, "dataset").endswith(
        "100 records of 3 classes, of which 1 have no record; validation test: 100 records"
    )
    assert found["length"] == {
        "steps": 20,
        "batch_size": 10,
        "push_every": 1,
        "replicas": 1,
        "images": 200,
        "passes": 2.0,
    }
    assert row(found, "length") == "20 steps of 10 images: 200 images, 2 passes over the split"
    assert found["nodes"]["records_per_worker"] == [50, 50]
    assert row(found, "nodes").startswith("1 parameter server, 2 workers on local[3]; 50 records a worker, preloaded")
    assert found["wire"]["servers"]["step_bytes"] == [pytest.approx(8 * found["network"]["num_parameters"], rel=1e-3)]
    assert (
        row(found, "wire")
        == "11.4 MB a step and worker as float32: at least 18 ms on links of 10 Gbit/s for 2 workers at once"
    )
    number = found["network"]["num_parameters"]
    assert number > 1_000_000
    assert found["disk_bytes"]["checkpoint"] == 3 * 4 * number
    assert found["disk_bytes"]["num_checkpoints"] == 3  # with the best one of the validation split
    assert found["wire"]["dtype"] == "float32"
    assert found["wire"]["bytes_to_worker"] == found["wire"]["bytes_from_worker"] == 4 * number + 2 * 2 * 8  # dropout
    memory = found["memory_mib"]
    assert memory["total"] == memory["driver"] + 2 * memory["worker"] + memory["parameter_server"]
    assert memory["host"] > 0
    assert "together; this host has " in row(found, "memory")
    assert found["disk_bytes"]["free"] > 0
    assert row(found, "disk").endswith(" are free")
    assert found["time"]["seconds"] is None
    assert row(found, "time") == "unknown: the run has made no step yet"


def test_several_parameter_servers_have_their_bytes_told(folder: Path) -> None:
    two = {"num_executors": 4, "num_ps_tasks": 2, "link_gbit": 1.0}
    found = dry_run.forecast(settings(folder, **two), "local[4]")
    assert found["wire"]["servers"]["ps_placement"] == "partitioned"
    assert found["wire"]["servers"]["largest_share"] == pytest.approx(0.5, abs=0.01)
    words = "11.4 MB a step and worker as float32 (partitioned: 5.7 MB, 5.7 MB; the largest has 50.0 %): at least "
    assert row(found, "wire").startswith(words)
    greedy = dry_run.forecast(settings(folder, **two, ps_placement="greedy"), "local[4]")
    assert greedy["wire"]["servers"]["largest_share"] > 0.7
    assert greedy["wire"]["servers"]["expected_step_s"] > found["wire"]["servers"]["expected_step_s"]


def test_without_a_parameter_server_all_workers_make_a_step(folder: Path) -> None:
    config = settings(folder, num_executors=2, num_ps_tasks=0, push_every=3, epoch=3, max_number_of_steps=None)
    found = dry_run.forecast(config, "local[2]")
    assert found["total_steps"] == 5  # 100 records thrice, 60 a step
    assert row(found, "length") == "5 steps of 2 × 3 × 10 images: 300 images, 3 passes over the split"
    assert row(found, "nodes").startswith("all-reduce, 2 workers on local[2]; 50 records a worker, preloaded")
    one_way = 4 * found["network"]["num_parameters"]
    assert found["wire"]["servers"]["step_bytes"] == [pytest.approx(2 * one_way, rel=1e-4)] * 2
    assert found["wire"]["bytes_to_worker"] == found["wire"]["bytes_from_worker"]
    words = "11.4 MB a step to and from each worker as float32, by all-reduce: at least 5 ms on links of 10 Gbit/s"
    assert row(found, "wire") == words
    assert set(found["memory_mib"]) == {"driver", "worker", "total", "host"}
    alone = dry_run.forecast(dataclasses.replace(config, num_executors=1), "local[2]")
    assert row(alone, "wire") == "nothing: there is one worker and no parameter server"
    assert alone["memory_mib"]["worker"] == found["memory_mib"]["worker"]


def test_a_run_that_is_resumed(folder: Path) -> None:
    config = begun(folder)
    before = contents(folder)
    found = dry_run.forecast(dataclasses.replace(config, max_number_of_steps=27), "local[3]")
    assert contents(folder) == before
    path = f"{folder}/run/checkpoints/step-00000007"
    assert (found["action"], found["step"], found["checkpoint"]) == ("resume", 7, path)
    assert row(found, "run") == f"{folder}/run: resumed at step 7 of 27, from {path}"
    assert row(found, "changes") == "max_number_of_steps 20 → 27"
    assert found["time"] == {"images_per_second": 50.0, "seconds": 4.0, "unknown": None}  # 20 steps of 10 images
    assert found["disk_bytes"]["checkpoint"] == (folder / "run/checkpoints/step-00000007/variables.npz").stat().st_size


@pytest.mark.parametrize("changes", [{"num_executors": 2}, {"wire_dtype": "bfloat16"}, {"push_every": 2}])
def test_a_rate_of_other_workers_or_another_wire_tells_nothing(folder: Path, changes: dict[str, Any]) -> None:
    found = dry_run.forecast(dataclasses.replace(begun(folder), change_settings=True, **changes), "local[3]")
    assert row(found, "time").startswith("unknown: its last rate was that of another")


def test_several_batches_a_step(folder: Path) -> None:
    config = begun(folder, push_every=4, max_number_of_steps=None, epoch=10)
    report = RunLayout(config.train_dir).report
    storage.write_json(report, storage.read_json(report) | {"push_every": 4})
    found = dry_run.forecast(config, "local[3]")
    assert (found["total_steps"], found["step"]) == (25, 7)
    assert row(found, "length") == "18 steps of 4 × 10 images: 720 images, 7.2 passes over the split"
    assert found["time"]["seconds"] == 720 / 50.0


def test_the_bytes_on_the_wire(folder: Path) -> None:
    wire = {"wire_dtype": "bfloat16"}
    network = dry_run.forecast(settings(folder, **wire, keep_prob=1.0), "local[3]")
    assert network["wire"]["bytes_to_worker"] == 2 * network["network"]["num_parameters"]
    part = dry_run.forecast(settings(folder, **wire, keep_prob=1.0, trainable_scopes="fc2"), "local[3]")
    assert part["wire"]["bytes_from_worker"] == 2 * (1024 * 3 + 3)
    assert part["wire"]["bytes_to_worker"] == 4 * network["network"]["num_parameters"] - 2 * (1024 * 3 + 3)


def test_the_bytes_of_a_large_network_of_which_a_part_is_trained(folder: Path) -> None:
    inception = {"model_name": "inception_v3", "image_size": 75, "keep_prob": 1.0, "trainable_scopes": "logits"}
    two = {"num_executors": 4, "num_ps_tasks": 2}
    found = dry_run.forecast(settings(folder, **inception, **two), "local[4]")
    wire = found["wire"]
    assert wire["bytes_from_worker"] == 4 * (2048 * 3 + 3)
    assert wire["bytes_to_worker"] == 4 * found["network"]["num_parameters"]
    assert len(wire["servers"]["step_bytes"]) == 2
    assert row(found, "wire").startswith("87.3 MB a step and worker as float32 (partitioned: 43.6 MB, 43.6 MB; ")


def test_the_bytes_of_a_network_whose_variables_are_not_known(folder: Path) -> None:
    wire = {"wire_dtype": "bfloat16", "model_name": "no.such:network"}
    # How many are trained is known when the network has been built.
    part = {**wire, "trainable_scopes": "logits"}
    assert row(dry_run.forecast(settings(folder, **part), "local[3]"), "wire") == (
        "bfloat16; how many bytes a step is unknown"
    )
    config = begun(folder, **wire)
    report = RunLayout(config.train_dir).report
    counted = {"num_parameters": 10 << 20, "num_trained": 4 << 20}
    storage.write_json(report, storage.read_json(report) | counted)
    found = dry_run.forecast(config, "local[3]")
    assert (found["wire"]["bytes_to_worker"], found["wire"]["bytes_from_worker"]) == (32 << 20, 8 << 20)
    assert row(found, "wire") == (
        "32 MiB of variables to the worker of each step, 8.0 MiB of gradients back, as bfloat16"
    )


def test_the_bytes_of_ones_own_network_by_all_reduce(folder: Path) -> None:
    config = begun(folder, model_name="no.such:network", num_executors=2, num_ps_tasks=0)
    assert row(dry_run.forecast(config, "local[2]"), "wire") == "float32; how many bytes a step is unknown"
    report = RunLayout(config.train_dir).report
    storage.write_json(report, storage.read_json(report) | {"num_parameters": 10_000_000, "num_trained": 4_000_000})
    found = dry_run.forecast(config, "local[2]")
    assert (found["wire"]["bytes_to_worker"], found["wire"]["bytes_from_worker"]) == (16_000_000, 16_000_000)
    assert row(found, "wire").startswith("32.0 MB a step to and from each worker as float32, by all-reduce: at least ")


def test_a_finished_run(folder: Path) -> None:
    config = begun(folder, step=20)
    found = dry_run.forecast(config, "local[3]")
    assert (found["action"], found["length"]["steps"]) == ("nothing", 0)
    assert row(found, "run") == f"{folder}/run: is finished: step 20 of 20. Nothing to do"
    assert row(found, "time") == ""
    storage.remove(RunLayout(config.train_dir).report)
    assert dry_run.forecast(config, "local[3]")["action"] == "finish"


def test_a_finished_run_whose_dataset_a_program_had_fed(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "data").rename(folder / "run" / "dataset")
    config = begun(folder, step=20, dataset_dir=str(folder / "run" / "dataset"))
    storage.remove(config.dataset_dir)
    before = contents(folder)
    found = dry_run.forecast(config, "local[3]")
    assert (found["action"], found["step"], found["total_steps"], found["dataset"]) == ("nothing", 20, 20, None)
    assert row(found, "run") == f"{folder}/run: is finished: step 20 of 20. Nothing to do"
    assert row(found, "dataset") == "removed, as that of a finished run is"
    assert contents(folder) == before
    with pytest.raises(MissingInputError, match="no such split"):
        dry_run.forecast(dataclasses.replace(config, max_number_of_steps=30), "local[3]")


def test_a_run_that_is_overwritten(folder: Path) -> None:
    config = begun(folder)
    before = contents(folder)
    found = dry_run.forecast(dataclasses.replace(config, overwrite=True), "local[3]")
    assert contents(folder) == before
    assert (found["action"], found["step"]) == ("overwrite", 0)
    removed = {path.rpartition("/")[2] for path in found["removes"]}
    assert removed == {"checkpoints", "report.json", "attempts", "config.json"}
    fresh = settings(folder, train_dir=str(folder / "other"), overwrite=True)
    assert dry_run.forecast(fresh, "local[3]")["action"] == "begin"


def test_the_holder_of_the_lock_is_named(folder: Path) -> None:
    config = begun(folder)
    with Lease(RunLayout(config.train_dir).lock, "tfos-job train"):
        found = dry_run.forecast(config, "local[3]")
    assert found["locked_by"].startswith("tfos-job train (host ")
    assert "exit code 75" in row(found, "locked")


def test_remote_shards_need_room_on_each_workers_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copies_of(layout: SplitLayout, manifest: Manifest, name: str) -> tuple[Copy, ...]:
        paths = shard_paths(layout, manifest)
        return tuple(Copy(path, path, SHARD_BYTES, "") for path in paths)

    monkeypatch.setattr(training_data, "copies_of", copies_of)  # as those of a dataset on HDFS
    sizes = [
        dry_run.forecast(settings(folder, **changes), "local[3]")["disk_bytes"]["cache_per_worker"] / SHARD_BYTES
        for changes in ({}, {"validation_split_name": "test"}, {"cache_gb": 1.5 / 1024})
    ]
    assert sizes == [2, 6, 1.5]


@pytest.mark.parametrize(
    ("changes", "master", "kind", "words"),
    [
        ({"batch_size": 11}, "local[3]", SettingsError, "batch_size 10 → 11"),
        ({}, "local[2]", SettingsError, "2 slots for 3 nodes"),
        ({"dataset_split_name": "none"}, "local[3]", MissingInputError, "no such split"),
    ],
)
def test_what_train_refuses_is_refused(
    folder: Path, changes: dict[str, Any], master: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        dry_run.forecast(dataclasses.replace(begun(folder), **changes), master)


def test_a_network_of_ones_own_is_not_built(folder: Path) -> None:
    config = settings(folder, model_name="no.such:network")
    found = dry_run.forecast(config, "local[3]")
    assert found["network"]["num_parameters"] is found["disk_bytes"]["checkpoint"] is None
    assert found["wire"]["bytes_to_worker"] is None
    assert row(found, "unknown") == "whether the network can be built, which needs TensorFlow"
    assert found["wire"]["servers"] is None
    assert row(found, "wire") == "float32; how many bytes a step is unknown"
    with pytest.raises(MissingInputError, match="no weights there"):
        dry_run.forecast(dataclasses.replace(config, checkpoint_path=str(folder / "weights")), "local[3]")


def test_the_command_prints_json_and_a_table_without_spark_and_tensorflow(folder: Path) -> None:
    begun(folder)
    before = contents(folder)
    program = (
        "import sys\nfrom tfos_job import cli\n"
        "code = cli.main(['train', '--train_dir', sys.argv[1], '--dry_run'])\n"
        "heavy = {'tensorflow', 'pyspark', 'py4j', 'keras'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    words = [sys.executable, "-c", program, str(folder / "run")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["action"] == "resume"
    assert "  run      " in done.stderr
    assert contents(folder) == before


def test_the_python_function_returns_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tfos_job import train

    caplog.set_level(logging.INFO)
    assert train(settings(folder, dry_run=True), "local[3]")["dry_run"] is True
    assert parse_config("train", ["--dataset_dir", "d", "--train_dir", "t", "--dry_run"]).dry_run
