"""From source files to what a network is given: the same in training, evaluation and prediction, for each reader."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pyspark.sql import SparkSession

from tests.echo import SCALE
from tfos_job.config import (
    DATASET,
    FILES,
    NO_NORMALIZATION,
    NORMALIZATIONS,
    PCA,
    PER_IMAGE_RESCALE,
    PRELOADED,
    RESCALE,
    ZCA,
    AugmentationConfig,
    ConvertConfig,
)
from tfos_job.driver import statistics_job as job
from tfos_job.formats import gnt
from tfos_job.formats import manifest as manifests
from tfos_job.formats.form import Form
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.readers import READERS, Reader
from tfos_job.inference.answer import Answer
from tfos_job.inference.pictures import Request, read_picture
from tfos_job.inference.predictor import Predictor
from tfos_job.input.decoding import preprocess, to_float
from tfos_job.input.normalization import Normalization, of_plan
from tfos_job.input.pipeline import evaluation_dataset, training_dataset
from tfos_job.input.statistics_process import sum_shards
from tfos_job.jobs.convert import convert
from tfos_job.jobs.convert_images import convert_images
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.networks import variables
from tfos_job.run import checkpoints
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.specs import NormalizationSpec
from tfos_job.statistics import pixel_statistics
from tfos_job.statistics.pixel_statistics import PIXELS, WHITENING, Subject

S = 8
EPSILON = 1e-3
EPS = np.finfo(np.float32).eps  # 2⁻²³
CHARACTERS = "啊阿埃挨哎唉哀皑癌"
FORMATS = ("PNG", "JPEG", "GIF")


# Compared by identity: what is read of one is kept.
@dataclass(frozen=True, eq=False)
class Source:
    """A dataset, and the file that each of its records is of, by class; `folder` is for what is made of it."""

    dataset: DatasetLayout
    files: list[bytes]
    folder: Path

    @cached_property
    def manifest(self) -> Manifest:
        return manifests.load(self.dataset.split("train"))

    @property
    def shards(self) -> list[str]:
        return manifests.shard_paths(self.dataset.split("train"), self.manifest)

    @property
    def reader(self) -> Reader:
        return READERS[self.manifest.dataset_name]

    @property
    def form(self) -> Form:
        return Form(image_size=S, num_channels=self.manifest.num_channels, antialias=self.reader.antialias)


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
    return Source(DatasetLayout(str(root / "dataset")), files, root)


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
    return Source(DatasetLayout(str(root / "dataset")), files, root)


@pytest.fixture(scope="module", params=["glyphs", "grey photographs", "photographs"])
def source(request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("same")
    if request.param == "glyphs":
        return glyphs(spark, root)
    return photographs(spark, root, num_channels=3 if request.param == "photographs" else 1)


# --- what each of the three reads ------------------------------------------------------------------------------------


def trained(source: Source, normalization: Normalization, mode: str) -> np.ndarray:
    """What training gives the network of one epoch, by class: float32 [N, S, S, C]."""
    images, labels, _ = next(
        iter(
            training_dataset(
                source.shards,
                mode=mode,
                num_records=len(source.files),
                batch_size=len(source.files),
                form=source.form,
                seed=0,
                shuffle_buffer=5,
                augmentation=AugmentationConfig(),
                normalization=normalization,
            )
        )
    )
    assert sorted(labels.numpy()) == list(range(len(source.files)))
    return images.numpy()[np.argsort(labels)]


@cache
def plainly_trained(source: Source, mode: str) -> np.ndarray:
    return trained(source, Normalization(), mode)


@cache
def evaluated(source: Source) -> np.ndarray:
    """What evaluation gives the network that `restore_model` makes, and that normalizes for itself, likewise."""
    ((images, labels),) = evaluation_dataset(source.shards, batch_size=len(source.files), form=source.form)
    return images.numpy()[np.argsort(labels)]


@cache
def pictures_of(source: Source) -> list[np.ndarray]:
    """What prediction reads in the files."""
    return [read_picture(file, "a file", num_channels=source.form.num_channels) for file in source.files]


def test_pixels_are_the_same_bit_for_bit(source: Source) -> None:
    """Before they are normalized: nothing until then knows how they will be."""
    preprocessed = [preprocess(tf.constant(pixels[np.newaxis]), source.form)[0] for pixels in pictures_of(source)]
    by_prediction = to_float(tf.stack(preprocessed)).numpy()
    np.testing.assert_array_equal(evaluated(source), by_prediction)
    for mode in (FILES, PRELOADED):
        np.testing.assert_array_equal(plainly_trained(source, mode), by_prediction)


# --- what the network sees -------------------------------------------------------------------------------------------


@cache
def statistics_of(source: Source, kind: str) -> tuple[str, str]:
    """Their path and digest. The sums are made here: test_statistics.py has them made by Spark."""
    subject = Subject(kind=kind, split_name="train", dataset_digest=source.manifest.digest, **vars(source.form))
    (task,) = job._tasks(source.dataset, source.manifest, subject, 100, "", 1)
    found = pixel_statistics.statistics_of(subject, sum_shards(task))
    path = str(source.folder / f"{kind}.npz")
    pixel_statistics.write(path, found)
    return path, found.digest


def normalization_of(source: Source, kind: str) -> Normalization:
    """As `train` makes it."""
    path, digest = None, None
    if kind in (DATASET, PCA, ZCA):
        path, digest = statistics_of(source, PIXELS if kind == DATASET else WHITENING)
    limits = (-1.0, 2.0) if kind in (RESCALE, PER_IMAGE_RESCALE) else None
    return of_plan(NormalizationSpec(kind=kind, epsilon=EPSILON, limits=limits, digest=digest), path, None)


def checkpoint(run: RunLayout, source: Source, normalization: Normalization) -> CheckpointInfo:
    form = source.form
    model = {"image_size": S, "num_channels": form.num_channels, "num_classes": S * S * form.num_channels}
    meta = dict.fromkeys(checkpoints.META_KEYS, "x") | {
        "characters": list(map(str, range(model["num_classes"]))),
        "model": {"model_name": "tests.echo:build", "keep_prob": 1.0, **model},
        "dataset_name": source.manifest.dataset_name,
        "normalization": {"kind": normalization.kind},
    }
    arrays = {"step": np.ones(1), **normalization.variables()}
    return checkpoints.verify(checkpoints.publish(run, 1, arrays, meta))


def rounding(normalization: Normalization, pixels: np.ndarray) -> np.ndarray:
    """By how much an image may come out differently in two batches: float64 [N, S, S, C].

    Not at all, but for the product with a matrix, and for limits: a graph makes one of their factor and 1/255, which is
    before it, so both are rounded once less than elsewhere (not with the default limits: 2 is exact). The rest goes
    value by value, or sums each image's own values in one order, by code of TensorFlow's that is the same on every CPU.
    Products are oneDNN's, with kernels of each CPU's own: that for AVX2 takes six rows at a time and leaves what
    remains, in these nine the last three, to another one, which adds in another order. There an image depends on its
    row, and no two ways of reading have their records in the same order. With AVX-512 it does not.
    (`ONEDNN_MAX_CPU_ISA=AVX2` shows it anywhere.)

    A sum of D float32 products in any order is off by D · 2⁻²⁴ · Σ |product| at most (N. Higham, Accuracy and Stability
    of Numerical Algorithms, 3.1), and two of them by twice as much from each other.
    """
    if normalization.kind == RESCALE:
        return np.full(pixels.shape, 2 * EPS * np.abs(normalization.arrays["limits"]).max())
    if "matrix" not in normalization.arrays:
        return np.zeros(pixels.shape)
    mean, matrix = (normalization.arrays[name].astype(np.float64) for name in ("mean", "matrix"))
    sizes = np.abs(pixels.reshape(len(pixels), -1) - mean) @ np.abs(matrix)
    return np.reshape(len(matrix) * EPS * sizes, pixels.shape)


def assert_within(bound: np.ndarray | float, found: np.ndarray, expected: np.ndarray) -> None:
    assert (np.abs(found.astype(np.float64) - expected) <= bound).all()


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_training_evaluation_and_prediction_see_the_same_values(kind: str, source: Source, tmp_path: Path) -> None:
    normalization, plain = normalization_of(source, kind), evaluated(source)
    bound = rounding(normalization, plain)
    expected = normalization(tf.constant(plain)).numpy()
    for mode in (FILES, PRELOADED):
        assert_within(bound, trained(source, normalization, mode), expected)

    info = checkpoint(RunLayout(str(tmp_path)), source, normalization)
    assert variables.form_of(info) == source.form
    arrays = checkpoints.load(info)
    model = variables.restore_model(info, arrays, "tests.echo:build")
    logits = model(plain, training=False).numpy()
    bound = SCALE * bound.reshape(logits.shape)
    assert_within(bound + EPS * np.abs(logits), logits, SCALE * expected.reshape(logits.shape))
    predictor = Predictor.restored(info, arrays, raw_image=True, model_name="tests.echo:build")
    answers = predictor.answers([Request("a file", file) for file in source.files], logits.shape[1])
    for answer, row, row_bound in zip(answers, logits, bound, strict=True):
        assert isinstance(answer, Answer)
        probabilities = [guess.probability for guess in sorted(answer.top, key=lambda guess: guess.class_id)]
        # Softmax has a sum of its own, of as many terms.
        np.testing.assert_allclose(probabilities, tf.nn.softmax(row), rtol=2 * row_bound.max() + len(row) * EPS)

    # And it does what it is there for.
    assert np.array_equal(expected, plain) == (kind == NO_NORMALIZATION)
