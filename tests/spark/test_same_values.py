"""From source files to what a network is given: the same in training, evaluation and prediction, for each reader."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pyspark.sql import SparkSession

from tests.echo import SCALE
from tfos_job.config import DATASET, FILES, NO_NORMALIZATION, NORMALIZATIONS, PCA, PRELOADED, ZCA, ConvertConfig
from tfos_job.data import gnt, statistics
from tfos_job.data import manifest as manifests
from tfos_job.data.augment import Augmentation
from tfos_job.data.decoding import Form, preprocess, to_float
from tfos_job.data.input_pipeline import evaluation_dataset, training_dataset
from tfos_job.data.manifest import Manifest
from tfos_job.data.normalization import Normalization, of_plan
from tfos_job.data.pixel_sums import sum_shards
from tfos_job.data.readers import READERS
from tfos_job.data.statistics import PIXELS, WHITENING, Subject
from tfos_job.jobs import statistics as job
from tfos_job.jobs.convert import convert
from tfos_job.jobs.images import convert_images
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.model import checkpoints, variables
from tfos_job.model.predict import read_glyph, top_guesses

S = 8
EPSILON = 1e-3
CHARACTERS = "啊阿埃挨哎唉哀皑癌"
FORMATS = ("PNG", "JPEG", "GIF")


@dataclass(frozen=True)
class Source:
    """A dataset, and the file that each of its records is of, by class."""

    dataset: DatasetLayout
    files: list[bytes]

    @property
    def manifest(self) -> Manifest:
        return manifests.load(self.dataset.split("train"))

    @property
    def shards(self) -> list[str]:
        return manifests.shard_paths(self.dataset.split("train"), self.manifest)


def encoded(pixels: np.ndarray, image_format: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format)
    return stream.getvalue()


def glyphs(spark: SparkSession, root: Path) -> Source:
    """Ink on paper, one of each character."""
    draw = np.random.default_rng(0)
    files = []
    (root / "gnt").mkdir()
    with (root / "gnt" / "001.gnt").open("wb") as stream:
        for character in CHARACTERS:
            pixels = np.full(draw.integers(9, 30, 2), 255, np.uint8)
            pixels[2:5] = draw.integers(0, 200, pixels[2:5].shape, np.uint8)
            gnt.write(stream, gnt.encode_tag(character), pixels)
            files.append(encoded(pixels, "PNG"))
    flags = {"gnt_dir": str(root / "gnt"), "charset_size": len(CHARACTERS)}
    convert(spark, ConvertConfig(dataset_dir=str(root / "dataset"), **flags))
    return Source(DatasetLayout(str(root / "dataset")), files)


def photographs(spark: SparkSession, root: Path, num_channels: int) -> Source:
    """A class each, of every format, grey and in colour, larger and smaller than the network's images."""
    draw = np.random.default_rng(1)
    files = []
    for number in range(9):
        shape = (*draw.integers(5, 30, 2), *([] if number // 3 == 1 else [3]))
        files.append(encoded(draw.integers(0, 256, shape, np.uint8), FORMATS[number % 3]))
        path = root / "images" / f"class {number}" / f"1.{FORMATS[number % 3].lower()}"
        path.parent.mkdir(parents=True)
        path.write_bytes(files[-1])
    flags = {"image_dir": str(root / "images"), "num_channels": num_channels}
    convert_images(spark, ConvertConfig(dataset_dir=str(root / "dataset"), **flags))
    return Source(DatasetLayout(str(root / "dataset")), files)


@pytest.fixture(scope="module", params=["glyphs", "grey photographs", "photographs"])
def source(request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("same")
    if request.param == "glyphs":
        return glyphs(spark, root)
    return photographs(spark, root, num_channels=3 if request.param == "photographs" else 1)


def normalization_of(source: Source, form: Form, kind: str, path: str) -> Normalization:
    """As `train` makes it, but that the sums are made here: test_statistics.py has them made by Spark."""
    plan = {"kind": kind, "epsilon": EPSILON, "digest": None, "statistics": None}
    if kind in (DATASET, PCA, ZCA):
        subject = Subject(
            kind=PIXELS if kind == DATASET else WHITENING,
            split_name="train",
            dataset_digest=source.manifest.digest,
            **vars(form),
        )
        (task,) = job._tasks(source.dataset, source.manifest, subject, 100, "", 1)
        found = statistics.statistics_of(subject, sum_shards(task))
        statistics.write(path, found)
        plan |= {"digest": found.digest, "statistics": path}
    return of_plan(plan, None)


def checkpoint(run: RunLayout, source: Source, form: Form, normalization: Normalization) -> checkpoints.CheckpointInfo:
    model = {"image_size": S, "num_channels": form.num_channels, "num_classes": S * S * form.num_channels}
    meta = dict.fromkeys(checkpoints.META_KEYS, "x") | {
        "model": {"model_name": "tests.echo:build", "keep_prob": 1.0, **model},
        "dataset_name": source.manifest.dataset_name,
        "normalization": {"kind": normalization.kind},
    }
    arrays = {"step": np.ones(1), **normalization.variables()}
    return checkpoints.verify(checkpoints.publish(run, 1, arrays, meta))


def trained(source: Source, form: Form, normalization: Normalization, mode: str) -> np.ndarray:
    """What training gives the network of one epoch, by class: float32 [N, S · S · C]."""
    images, labels, _ = next(
        iter(
            training_dataset(
                source.shards,
                mode=mode,
                num_records=len(source.files),
                batch_size=len(source.files),
                form=form,
                seed=0,
                shuffle_buffer=5,
                augmentation=Augmentation(),
                normalization=normalization,
            )
        )
    )
    assert sorted(labels.numpy()) == list(range(len(source.files)))
    return images.numpy()[np.argsort(labels)].reshape(len(source.files), -1)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_training_evaluation_and_prediction_see_the_same_values(kind: str, source: Source, tmp_path: Path) -> None:
    run, reader = RunLayout(str(tmp_path)), READERS[source.manifest.dataset_name]
    form = Form(image_size=S, num_channels=source.manifest.num_channels, antialias=reader.antialias)
    normalization = normalization_of(source, form, kind, str(tmp_path / "statistics.npz"))
    by_training = trained(source, form, normalization, FILES)
    np.testing.assert_array_equal(trained(source, form, normalization, PRELOADED), by_training)

    info = checkpoint(run, source, form, normalization)
    assert variables.form_of(info) == form
    model = variables.restore_model(info)
    (batch,) = evaluation_dataset(source.shards, batch_size=len(source.files), form=form)
    evaluated = model(batch[0], training=False).numpy()[np.argsort(batch[1])]
    np.testing.assert_allclose(evaluated, by_training * SCALE, atol=1e-5)

    stored = []
    for file, logits in zip(source.files, evaluated, strict=True):
        glyph = read_glyph(file, "a file", num_channels=form.num_channels, may_be_inverted=reader.on_paper)
        stored.append(preprocess(tf.constant(glyph.pixels[np.newaxis]), form)[0])
        guesses = top_guesses(model, glyph, form=form, k=len(logits))
        probabilities = dict(sorted((guess.class_id, guess.probability) for guess in guesses))
        np.testing.assert_allclose(list(probabilities.values()), tf.nn.softmax(logits), rtol=1e-4)

    # And it does what it is there for.
    plain = to_float(tf.stack(stored))
    np.testing.assert_allclose(by_training, np.reshape(normalization(plain), by_training.shape), atol=1e-5)
    assert np.array_equal(by_training, np.reshape(plain, by_training.shape)) == (kind == NO_NORMALIZATION)
