"""Each normalization against its formula, its statistics, and what checkpoints keep of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.echo import SCALE
from tests.unit.small_checkpoints import model_arrays
from tfos_job.config import TrainConfig
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.input.decoding import to_float
from tfos_job.input.normalization import Normalization, from_statistics, of_plan, restore
from tfos_job.layout import RunLayout
from tfos_job.networks import registry, variables
from tfos_job.run import checkpoints
from tfos_job.run.specs import NormalizationSpec, described_normalization, normalization_of
from tfos_job.statistics import pixel_statistics
from tfos_job.statistics.pixel_statistics import PIXELS, WHITENING, Subject

S = 8
EPSILON = 1e-3


def subject(kind: str, channels: int = 1) -> Subject:
    return Subject(kind=kind, split_name="train", dataset_digest="0" * 64, image_size=S, num_channels=channels)


def pixels(count: int, channels: int = 1) -> np.ndarray:
    """Neighbours are alike, as they are in pictures: uint8 [count, S, S, channels]."""
    noise = np.random.default_rng(0).normal(size=(count, S + 2, S + 2, channels))
    smooth = sum(noise[:, i : i + S, j : j + S] for i in range(3) for j in range(3))
    return np.clip(128 + 30 * smooth, 0, 255).astype(np.uint8)


def statistics_of(images: np.ndarray, kind: str) -> pixel_statistics.Statistics:
    of = subject(kind, images.shape[3])
    sums = pixel_statistics.zero_sums(of)
    for begin in range(0, len(images), 100):
        pixel_statistics.add_images(sums, images[begin : begin + 100])
    return pixel_statistics.statistics_of(of, sums)


def normalization(kind: str, images: np.ndarray, epsilon: float = EPSILON) -> Normalization:
    return from_statistics(kind, epsilon, statistics_of(images, PIXELS if kind == "dataset" else WHITENING))


def test_none_is_the_very_same_tensor() -> None:
    images = to_float(tf.constant(pixels(2)))
    assert Normalization()(images) is images


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_by_itself(channels: int) -> None:
    images = pixels(20, channels) / np.float32(255)
    images[0] = 0.5  # no variance at all
    found = Normalization(kind="per_image")(tf.constant(images)).numpy()
    num_values = S * S * channels
    for result, image in zip(found, images, strict=True):
        expected = (image - image.mean()) / max(image.std(), 1 / np.sqrt(num_values))
        np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_of_each_image_is_subtracted_and_its_contrast_stays(channels: int) -> None:
    images = pixels(20, channels) / np.float32(255)
    found = Normalization(kind="per_image_mean")(tf.constant(images)).numpy()
    np.testing.assert_allclose(found, images - images.mean(axis=(1, 2, 3), keepdims=True), atol=1e-6)


def of_flags(**flags: Any) -> Normalization:
    config = TrainConfig(dataset_dir="/data", train_dir="/run", **flags)
    return of_plan(normalization_of(config), None, None)


@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_rescaled_to_the_limits(channels: int) -> None:
    images = pixels(20, channels)
    images[0], images[1, 0, 0], images[1, 0, 1] = 7, 0, 255  # no contrast at all, and all of it
    floats = to_float(tf.constant(images))
    np.testing.assert_allclose(of_flags(normalization="rescale")(floats), images / 127.5 - 1, atol=1e-6)
    found = of_flags(normalization="per_image_rescale", rescale_min=-0.5, rescale_max=2)(floats).numpy()
    np.testing.assert_allclose(found[0], -0.5, atol=1e-6)
    np.testing.assert_allclose(found.min(axis=(1, 2, 3)), -0.5, atol=1e-6)
    np.testing.assert_allclose(found[1:].max(axis=(1, 2, 3)), 2, atol=1e-6)
    for result, image in zip(found[1:], images[1:], strict=True):
        np.testing.assert_allclose(result, np.interp(image, [image.min(), image.max()], [-0.5, 2]), atol=1e-5)


def test_a_checkpoint_keeps_the_limits_and_a_run_goes_on_with_them_alone() -> None:
    made = of_flags(normalization="rescale", rescale_max=3)
    described = dataclasses.asdict(
        normalization_of(
            config := TrainConfig(dataset_dir="/data", train_dir="/run", normalization="rescale", rescale_max=3)
        )
    )
    images = to_float(tf.constant(pixels(3)))
    np.testing.assert_array_equal(restore(described, made.variables())(images), made(images))
    assert described_normalization(described) == normalization_of(config)
    assert str(described_normalization({"kind": "per_image"})) == "per_image"  # as an older checkpoint has it
    with pytest.raises(SettingsError, match="rescale_min: 1 is not less than --rescale_max 1"):
        of_flags(rescale_min=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_of_the_dataset(channels: int) -> None:
    images = pixels(300, channels)
    images[..., 0] //= 2
    found = normalization("dataset", images)(to_float(tf.constant(images))).numpy()
    np.testing.assert_allclose(found.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=(0, 1, 2)), 1, atol=1e-4)


def test_a_channel_without_variance_is_not_divided_by_nothing() -> None:
    images = np.full((5, S, S, 1), 255, np.uint8)
    np.testing.assert_array_equal(normalization("dataset", images)(to_float(tf.constant(images))), 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_pixels_are_uncorrelated_with_variance_1(channels: int) -> None:
    images = pixels(2000, channels)
    floats = to_float(tf.constant(images))
    num_values = S * S * channels
    for kind in ("pca", "zca"):
        found = normalization(kind, images, 1e-9)(floats).numpy().reshape(-1, num_values)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(np.cov(found.T), np.eye(num_values), atol=0.01)


def test_whitening_is_what_numpy_makes_of_it() -> None:
    images = pixels(500)
    values = images.reshape(500, -1) / 255
    covariance = np.cov(values.T, bias=True)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    zca = vectors @ np.diag((eigenvalues + EPSILON) ** -0.5) @ vectors.T
    floats = to_float(tf.constant(images))
    found = normalization("zca", images)(floats).numpy().reshape(500, -1)
    np.testing.assert_allclose(found, (values - values.mean(axis=0)) @ zca, atol=1e-3)
    # PCA's coordinates are the same but for their signs; the first has the largest variance. ZCA turns them back.
    rotated = normalization("pca", images)(floats).numpy().reshape(500, -1)
    expected = (values - values.mean(axis=0)) @ vectors[:, ::-1] / np.sqrt(eigenvalues[::-1] + EPSILON)
    np.testing.assert_allclose(np.abs(rotated), np.abs(expected), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(rotated, axis=1), np.linalg.norm(found, axis=1), rtol=1e-3)


def test_zca_of_an_image_still_looks_like_it() -> None:
    images = pixels(500)
    found = normalization("zca", images)(to_float(tf.constant(images))).numpy()
    for result, image in zip(found[:20], images, strict=False):
        assert np.corrcoef(result.ravel(), image.ravel())[0, 1] > 0.4


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_numpy_whatever_the_parts(channels: int) -> None:
    images = pixels(700, channels)
    found = statistics_of(images, PIXELS)
    np.testing.assert_allclose(found.arrays["mean"], (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.arrays["stddev"], (images / 255).std(axis=(0, 1, 2)), rtol=1e-9)
    for kind in (PIXELS, WHITENING):
        of = subject(kind, channels)
        whole, parts = pixel_statistics.zero_sums(of), [pixel_statistics.zero_sums(of) for _ in range(3)]
        for number, begin in enumerate(range(0, 700, 50)):
            pixel_statistics.add_images(whole, images[begin : begin + 50])
            pixel_statistics.add_images(parts[number % 3], images[begin : begin + 50])
        for name, array in whole.items():
            np.testing.assert_array_equal(sum(part[name] for part in parts), array)
    values = images.reshape(700, -1).astype(np.int64)
    np.testing.assert_array_equal(whole["products"], values.T @ values)


def test_the_sums_of_the_brightest_images_are_exact() -> None:
    sums = pixel_statistics.zero_sums(subject(WHITENING))
    pixel_statistics.add_images(sums, np.full((pixel_statistics.MAX_EXACT_IMAGES, S, S, 1), 255, np.uint8))
    assert (sums["products"] == pixel_statistics.MAX_EXACT_IMAGES * 255**2).all()


@pytest.mark.parametrize(("num_records", "limit"), [(1000, 300), (1000, 1000), (7, 100), (1000, 1)])
def test_a_sample_is_spread_evenly(num_records: int, limit: int) -> None:
    chosen = [i for i in range(num_records) if pixel_statistics.is_sampled(i, num_records, limit)]
    assert len(chosen) == min(limit, num_records)
    if len(chosen) > 1:
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1


def test_a_file_of_statistics_is_read_back_and_fits_one_subject(tmp_path: Path) -> None:
    path = str(tmp_path / "statistics-train-8-whitening.npz")
    found = statistics_of(pixels(100), WHITENING)
    assert pixel_statistics.read_fitting(path, found.subject) is None
    pixel_statistics.write(path, found)
    again = pixel_statistics.read_fitting(path, found.subject)
    assert again is not None
    assert (again.digest, again.num_records) == (found.digest, 100)
    for changes in ({"dataset_digest": "1" * 64}, {"num_channels": 3}):
        assert pixel_statistics.read_fitting(path, dataclasses.replace(found.subject, **changes)) is None
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 1
    Path(path).write_bytes(data)
    assert pixel_statistics.read_fitting(path, found.subject) is None


def test_a_run_takes_the_statistics_that_it_names_and_no_others(tmp_path: Path) -> None:
    path = str(tmp_path / "statistics.npz")
    mine, theirs = (statistics_of(pixels(count), PIXELS) for count in (100, 50))
    spec = NormalizationSpec(kind="dataset", epsilon=None, limits=None, digest=mine.digest)
    pixel_statistics.write(path, mine)
    np.testing.assert_allclose(of_plan(spec, path, None).arrays["mean"], mine.arrays["mean"], rtol=1e-6)
    pixel_statistics.write(path, theirs)
    with pytest.raises(BadDataError, match=f"{theirs.digest[:12]}.*{mine.digest[:12]}"):
        of_plan(spec, path, None)


def test_statistics_of_different_things_are_different_files() -> None:
    one = subject(PIXELS)
    others = [
        dataclasses.replace(one, **{name: value})
        for name, value in {"dataset_digest": "1" * 64, "num_channels": 3, "antialias": True, "image_size": 9}.items()
    ]
    assert len({of.key for of in (one, *others)}) == 5


# --- checkpoints and limits -------------------------------------------------------------------------------------------


def test_a_checkpoint_of_before_there_was_any_normalizes_nothing(tmp_path: Path) -> None:
    shape = {"num_classes": S * S, "image_size": S, "keep_prob": 1.0}
    meta = dict.fromkeys(checkpoints.META_KEYS, "x") | {"model": {"model_name": "tests.echo:build", **shape}}
    old = checkpoints.verify(checkpoints.publish(RunLayout(str(tmp_path)), 1, {"step": np.ones(1)}, meta))
    images = to_float(tf.constant(pixels(3)))
    restored = variables.restore_model(old, checkpoints.load(old), "tests.echo:build")
    np.testing.assert_array_equal(restored(images), np.reshape(images, [3, -1]) * np.float32(SCALE))
    assert old.normalization == {"kind": "none"}


def test_a_normalized_network_has_the_variables_of_the_plain_one() -> None:
    model = registry.build("chinese_rec", num_classes=3, image_size=S, num_channels=1, keep_prob=0.8, seed=0)
    whole = variables.with_normalization(model, Normalization(kind="per_image"))
    assert model_arrays(whole).keys() == model_arrays(model).keys()
    images = to_float(tf.constant(pixels(3)))
    expected = model(tf.image.per_image_standardization(images), training=False)
    np.testing.assert_allclose(whole(images, training=False), expected, atol=1e-6)


def test_a_matrix_that_does_not_fit_is_refused_with_its_size() -> None:
    flags = {"dataset_dir": "d", "train_dir": "t", "normalization": "zca"}
    TrainConfig(**flags).require_channels(1)
    for changes, channels, figure in (
        ({}, 3, r"12,288 values needs a matrix of 0\.56 GiB"),
        ({"image_size": 128}, 1, "16,384"),
    ):
        with pytest.raises(SettingsError, match=figure):
            TrainConfig(**flags | changes).require_channels(channels)
    TrainConfig(**flags | {"normalization": "dataset", "image_size": 512}).require_channels(3)
