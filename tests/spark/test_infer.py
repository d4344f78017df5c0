"""`infer` on a real Spark: a row for each input, also where it is damaged; killed, continued, nothing done twice."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from tests.command import StartCommand, wait_until_gone
from tests.no_spark import NoSpark
from tests.unit.small_checkpoints import META, model_arrays, publish_untrained
from tfos_job.config import InferConfig
from tfos_job.driver.on_demand import Spark
from tfos_job.errors import SettingsError
from tfos_job.formats import gnt, gnt_reader
from tfos_job.jobs.infer import infer
from tfos_job.layout import InferenceLayout, RunLayout
from tfos_job.networks import registry
from tfos_job.run import checkpoints
from tfos_job.scoring import plan

ORPHANS_S = 60
NUM_FILES, NUM_DONE = 4, 2
NUM_RECORDS = 110  # of a MiB together, which is a partition


@pytest.fixture(scope="module")
def run(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    layout = RunLayout(str(tmp_path_factory.mktemp("run")))
    publish_untrained(layout, str(small_dataset))
    return layout


@pytest.fixture(scope="module")
def inputs(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split with a flipped bit, GNT files with one, and pictures of which one is cut short."""
    root = tmp_path_factory.mktemp("inputs")
    shutil.copytree(small_dataset, root / "dataset")
    shutil.copytree(small_dataset.parent / "gnt" / "test", root / "gnt")
    shard = sorted((root / "dataset" / "test").rglob("*.tfrecord"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    file = sorted((root / "gnt").glob("*.gnt"))[0]
    with file.open("rb") as stream:
        third = list(gnt_reader.read_records(stream, ""))[2]
    data = bytearray(file.read_bytes())
    data[third.offset] ^= 1  # its size
    file.write_bytes(data)
    (root / "pictures" / "啊").mkdir(parents=True)
    glyph = np.full((60, 80), 255, np.uint8)
    glyph[10:50, 38:42] = glyph[28:32, 10:70] = 0
    for name in ("b.png", "cut.png", "d.png"):
        Image.fromarray(glyph).save(root / "pictures" / "啊" / name)
    cut = root / "pictures" / "啊" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(root / "pictures" / "blank.png")
    return root


def answer(spark: Spark, run: RunLayout, source: Path, output_dir: Path, **changes: Any) -> dict[str, Any]:
    config = {"train_dir": run.root, "input": str(source), "output_dir": str(output_dir)}
    return infer(spark, InferConfig(**config | changes)).to_dict()


def rows_of(output_dir: Path) -> list[dict[str, Any]]:
    """The rows of all parts, in their order."""
    rows = []
    for part in sorted(output_dir.glob("part-*")):
        if part.suffix == ".parquet":
            rows += pyarrow.parquet.read_table(part).to_pylist()
        else:
            rows += map(json.loads, part.read_text("utf-8").splitlines())
    return rows


def test_what_can_be_read_is_answered_and_what_cannot_is_told(
    spark: SparkSession, run: RunLayout, inputs: Path, tmp_path: Path
) -> None:
    result = answer(spark, run, inputs / "dataset" / "test", tmp_path / "split", top_k=2)
    rows = rows_of(tmp_path / "split")
    assert (result["num_rows"], result["num_errors"], result["num_labelled"]) == (20, 1, 19)
    (bad,) = (row for row in rows if row["error"])
    assert bad["error"].startswith("checksum: ")
    assert (bad["classes"], bad["label"]) == ([], None)
    assert sum(row["class_ids"][:1] == [row["label_id"]] for row in rows) == result["num_correct"]
    assert all(len(row["classes"]) == len(row["probabilities"]) == 2 for row in rows if row is not bad)
    assert all(list(row)[-3:] == ["model_digest", "step", "error"] and row["step"] == 20 for row in rows)
    places = [(row["source"], row["offset"]) for row in rows]
    assert places == sorted(set(places))

    # The same glyphs from their GNT files, as text: the same answers, and a row for each range that is lost.
    result = answer(spark, run, inputs / "gnt", tmp_path / "gnt", output_format="jsonl", top_k=2)
    assert (result["num_rows"], result["num_errors"]) == (20, 1)
    again = rows_of(tmp_path / "gnt")
    assert [row["label"] for row in again if not row["error"]].count("啊") == 2
    (lost,) = (row for row in again if row["error"])
    assert "bytes cannot be read" in lost["error"]
    by_label = {}
    for row in rows[10:] + again[10:]:  # of the second writer, whose files are whole
        by_label.setdefault(row["label"], []).append(row)
    for one, other in by_label.values():
        assert one["class_ids"] == other["class_ids"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)

    result = answer(spark, run, inputs / "pictures", tmp_path / "pictures")
    assert (result["num_rows"], result["num_errors"], result["num_doubtful"]) == (4, 1, 1)
    found = {os.path.basename(row["source"]): row for row in rows_of(tmp_path / "pictures")}
    assert found["blank.png"]["doubtful"] == "blank"
    assert found["cut.png"]["error"].startswith("not a readable PNG: ")
    assert found["b.png"]["class_ids"] == found["d.png"]["class_ids"]
    assert {row["label"] for row in found.values()} == {"啊", None}
    assert all(row["offset"] is None for row in found.values())


def test_a_second_run_does_nothing_and_other_results_are_refused(
    spark: SparkSession,
    run: RunLayout,
    small_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(plan, "MIN_PARTITIONS", 1000)
    monkeypatch.setattr(plan, "LEAST_BYTES", 1)
    split, output = small_dataset / "train", InferenceLayout(str(tmp_path / "out"))
    first = answer(spark, run, split, tmp_path / "out", output_format="jsonl")
    assert (first["num_partitions"], first["num_answered"], first["up_to_date"]) == (8, 8, False)
    rows = rows_of(tmp_path / "out")

    again = answer(NoSpark(), run, split, tmp_path / "out", output_format="jsonl")
    assert "has all 80 answers already: nothing to do" in caplog.text
    assert again | {"seconds": 0, "num_answered": 8, "up_to_date": False} == first | {"seconds": 0}
    for change, word in (
        ({"top_k": 2}, r"--top_k \(it was 3\)"),
        ({"output_format": "parquet"}, "--output_format"),
        ({"input": str(small_dataset / "test")}, "the input"),
    ):
        with pytest.raises(SettingsError, match=f"{word}.* changed. Give another --output_dir"):
            answer(NoSpark(), run, split, tmp_path / "out", **{"output_format": "jsonl"} | change)

    # A part that is gone, and one that is not whole, are made again, and those alone.
    Path(output.part(3, "jsonl")).unlink()
    Path(output.part(5, "jsonl")).write_text("{}\n")
    Path(output.success).unlink()
    before = Path(output.part(4, "jsonl")).stat().st_mtime_ns
    repaired = answer(spark, run, split, tmp_path / "out", output_format="jsonl", batch_size=64)
    assert repaired["num_answered"] == 2
    assert Path(output.part(4, "jsonl")).stat().st_mtime_ns == before
    assert rows_of(tmp_path / "out") == rows


GATED_NETWORK = """
import keras
import tensorflow as tf

class Gate(keras.layers.Layer):
    def call(self, x):
        is_black = tf.reduce_any(tf.reduce_max(x, axis=[1, 2, 3]) == 0)
        text = tf.io.read_file(tf.where(is_black, {gate!r}, {nothing!r}))
        return x + tf.cast(tf.strings.length(text), tf.float32)

def build(*, num_classes, image_size, num_channels, keep_prob, seed):
    images = keras.Input((image_size, image_size, num_channels), name="images")
    x = keras.layers.Flatten(name="flatten")(Gate(name="gate")(images))
    return keras.Model(images, keras.layers.Dense(num_classes, name="fc")(x), name="gated")
"""


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    """A run whose network waits, at a black picture, for `gate`: reading it as a FIFO lasts until somebody writes."""
    gate, nothing = tmp_path / "gate", tmp_path / "nothing"
    (tmp_path / "gated.py").write_text(GATED_NETWORK.format(gate=str(gate), nothing=str(nothing)))
    os.mkfifo(gate)
    nothing.touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = RunLayout(str(tmp_path / "run"))
    meta = META | {"model": META["model"] | {"model_name": "gated:build"}}
    checkpoints.publish(run, 1, model_arrays(registry.build(**meta["model"], seed=1)), meta)
    return run


def test_a_job_that_is_killed_goes_on_where_it_was(gated: RunLayout, tmp_path: Path, start: StartCommand) -> None:
    draw = np.random.default_rng(0)
    (tmp_path / "gnt").mkdir()
    for number in range(NUM_FILES):  # each a partition
        with (tmp_path / "gnt" / f"{number:02d}.gnt").open("wb") as stream:
            for record in range(NUM_RECORDS):
                pixels = draw.integers(1, 256, (100, 100), np.uint8)
                is_black = (number, record) == (NUM_DONE, NUM_RECORDS // 2)
                gnt.write(stream, gnt.encode_tag("一"), pixels * 0 if is_black else pixels)
    output = InferenceLayout(str(tmp_path / "out"))
    flags = ("--train_dir", gated.root, "--input", tmp_path / "gnt", "--output_dir", output.root)
    flags += ("--model_name", "gated:build")
    job = start("infer", *flags, "--master", "local[1]")
    job.wait_until(lambda: len(list(tmp_path.glob("out/_parts/*.json"))) == NUM_DONE)
    processes = job.descendants()
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not wait_until_gone(processes, ORPHANS_S)
    assert len(list(tmp_path.glob("out/_parts/*.json"))) == NUM_DONE
    assert not Path(output.success).exists()

    (tmp_path / "gate").unlink()
    (tmp_path / "gate").touch()
    job = start("infer", *flags, "--master", "local[2]")
    assert job.wait() == 0, job.stderr
    result = job.result()
    assert (result["num_partitions"], result["num_answered"]) == (NUM_FILES, NUM_FILES - NUM_DONE)
    assert result["num_rows"] == result["num_labelled"] == NUM_FILES * NUM_RECORDS
    places = [(row["source"], row["offset"]) for row in rows_of(tmp_path / "out")]
    assert len(places) == result["num_rows"]
    assert places == sorted(set(places))
    assert json.loads(Path(output.success).read_text())["num_rows"] == result["num_rows"]
