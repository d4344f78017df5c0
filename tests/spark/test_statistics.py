"""Statistics of a split by a Spark job: numpy's own of the pixels that training sees, made once."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tfos_job import storage
from tfos_job.config import ConvertConfig, VerifyConfig
from tfos_job.conversion.sweep import sweep_dataset
from tfos_job.driver import statistics_job as job
from tfos_job.driver.task_attempts import attempt
from tfos_job.errors import BadDataError, InterruptedJobError
from tfos_job.formats import gnt
from tfos_job.formats import manifest as manifests
from tfos_job.formats.form import Form
from tfos_job.formats.manifest import Manifest
from tfos_job.input import statistics_process
from tfos_job.input.pipeline import evaluation_dataset
from tfos_job.jobs.convert import convert
from tfos_job.jobs.verify import verify
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.statistics import pixel_statistics
from tfos_job.statistics.pixel_statistics import PIXELS, WHITENING, Statistics, Subject
from tfos_job.statistics.task import StatisticsTask

S = 8
CHARACTERS = "啊阿埃挨哎"


@pytest.fixture(scope="module")
def dataset(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> DatasetLayout:
    """Ten writers of five characters, in more shards than there are slots."""
    root = tmp_path_factory.mktemp("statistics")
    (root / "train").mkdir()
    for writer in range(10):
        draw = np.random.default_rng(writer)
        stream = io.BytesIO()
        for character in CHARACTERS:
            gnt.write(stream, gnt.encode_tag(character), draw.integers(0, 256, draw.integers(6, 30, 2), np.uint8))
        (root / "train" / f"{writer:03d}.gnt").write_bytes(stream.getvalue())
    convert(spark, ConvertConfig(gnt_dir=str(root / "train"), dataset_dir=str(root / "dataset"), charset_size=5))
    return DatasetLayout(str(root / "dataset"))


@pytest.fixture
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks are done in this process, as those do them that executors start: each would start a TensorFlow of its own.

    That these are started, and that Spark and they tell of errors, is looked at where this is not asked for, and in
    test_finetuning.py.
    """

    def work(task: StatisticsTask) -> str:
        statistics_process._sum(json.loads(json.dumps(dataclasses.asdict(task))))
        return task.output

    monkeypatch.setattr(job.tasks, "run", lambda context, name, function, todo: [attempt(work, task) for task in todo])


def subject(manifest: Manifest, kind: str) -> Subject:
    return Subject(kind=kind, split_name="train", dataset_digest=manifest.digest, image_size=S, num_channels=1)


def made(spark: SparkSession, dataset: DatasetLayout, kind: str, manifest: Manifest | None = None) -> Statistics:
    manifest = manifest or manifests.load(dataset.split("train"))
    run = RunLayout(dataset.root + "-run")
    try:
        found, path = job.statistics_of(
            spark.sparkContext, dataset, manifest, subject(manifest, kind), run=run, guard=lambda: None
        )
    finally:
        assert not storage.exists(run.scratch_dir)
    assert path == path_of(dataset, kind)
    return found


def path_of(dataset: DatasetLayout, kind: str) -> str:
    key = subject(manifests.load(dataset.split("train")), kind).key
    return dataset.statistics("train", S, kind, key)


def pixels(dataset: DatasetLayout) -> np.ndarray:
    """As evaluation and training see them, float64 [N, S, S, 1]."""
    split = dataset.split("train")
    paths = manifests.shard_paths(split, manifests.load(split))
    assert len(paths) > 2
    batches = evaluation_dataset(paths, batch_size=64, form=Form(image_size=S))
    return np.concatenate([images.numpy() for images, _ in batches]).astype(np.float64)


def test_those_of_levels_are_numpys_and_are_made_once(
    spark: SparkSession, dataset: DatasetLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By processes that executors start."""
    images = pixels(dataset)
    found = made(spark, dataset, PIXELS)
    np.testing.assert_allclose(found.arrays["mean"], images.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.arrays["stddev"], images.std(axis=(0, 1, 2)), rtol=1e-6)
    assert found.num_records == 50
    monkeypatch.setattr(job.tasks, "run", lambda *_: pytest.fail("made a second time"))
    assert made(spark, dataset, PIXELS).digest == found.digest


@pytest.mark.usefixtures("without_processes")
def test_those_of_whole_images_are_numpys_and_are_made_once(
    spark: SparkSession, dataset: DatasetLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    whitening = made(spark, dataset, WHITENING)
    values = pixels(dataset).reshape(50, -1)
    np.testing.assert_allclose(whitening.arrays["mean"], values.mean(axis=0), rtol=1e-6)
    vectors, eigenvalues = whitening.arrays["eigenvectors"], whitening.arrays["eigenvalues"]
    covariance = np.cov(values.T, bias=True)
    np.testing.assert_allclose(vectors * eigenvalues @ vectors.T, covariance, atol=1e-6)

    monkeypatch.setattr(job.tasks, "run", lambda *_: pytest.fail("made a second time"))
    assert made(spark, dataset, WHITENING).digest == whitening.digest


def test_a_sample_of_whole_images(dataset: DatasetLayout) -> None:
    manifest = manifests.load(dataset.split("train"))
    (task,) = job._tasks(dataset, manifest, subject(manifest, WHITENING), 10, "scratch", 1)
    sums = statistics_process.sum_shards(task)
    assert sums["count"] == 10
    every_fifth = pixels(dataset)[4::5].reshape(10, -1)
    np.testing.assert_allclose(sums["sums"] / 10 / 255, every_fifth.mean(axis=0), rtol=1e-6)


def test_verify_and_the_next_conversion_leave_them_alone(spark: SparkSession, dataset: DatasetLayout) -> None:
    made(spark, dataset, PIXELS)
    assert not verify(spark, VerifyConfig(dataset_dir=dataset.root)).findings.told
    sweep_dataset(dataset)
    assert storage.exists(path_of(dataset, PIXELS))


@pytest.mark.usefixtures("without_processes")
def test_damage_is_named_and_leaves_nothing(spark: SparkSession, dataset: DatasetLayout, tmp_path: Path) -> None:
    split = dataset.split("train")
    manifest = manifests.load(split)
    path = Path(manifests.shard_paths(split, manifest)[1])
    whole = path.read_bytes()
    storage.remove(path_of(dataset, PIXELS))
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    try:
        with pytest.raises(BadDataError) as caught:
            made(spark, dataset, PIXELS)
    finally:
        path.write_bytes(whole)
    assert str(path) in caught.value.place
    assert not storage.exists(path_of(dataset, PIXELS))


def test_a_signal_ends_it(spark: SparkSession, dataset: DatasetLayout) -> None:
    def guard() -> None:
        raise InterruptedJobError("stopped", signum=2)

    storage.remove(path_of(dataset, PIXELS))
    manifest = manifests.load(dataset.split("train"))
    run = RunLayout(dataset.root + "-run")
    with pytest.raises(InterruptedJobError):
        job.statistics_of(spark.sparkContext, dataset, manifest, subject(manifest, PIXELS), run=run, guard=guard)
    assert not storage.exists(run.scratch_dir)


@pytest.mark.usefixtures("without_processes")
def test_a_dataset_that_takes_no_file_leaves_them_with_the_run(
    spark: SparkSession, dataset: DatasetLayout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = manifests.load(dataset.split("train"))
    path, run = Path(path_of(dataset, PIXELS)), RunLayout(str(tmp_path))
    storage.remove(str(path))
    path.mkdir()  # where no file can be; even root may not
    try:
        for _ in range(2):
            of = subject(manifest, PIXELS)
            found = job.statistics_of(spark.sparkContext, dataset, manifest, of, run=run, guard=lambda: None)
            assert found[1] == run.statistics
            assert pixel_statistics.read(run.statistics).digest == found[0].digest
    finally:
        path.rmdir()
    told = [record for record in caplog.records if record.name == job.log.name]  # TensorFlow has its own to say
    (warning,) = [record.getMessage() for record in told if record.levelname == "WARNING"]
    assert run.statistics in warning
    assert str(path) in warning
