"""Geometry against its definition: numpy's own sampling at places that are worked out here, from the same draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfos_job.config import AugmentationConfig
from tfos_job.input.stateless_random import Stream, uniform
from tfos_job.input.warp import elastic_displacement, warp

S = 16
SEED = tf.constant(7, tf.int64)
Array = npt.NDArray[np.float64]
NUMPYS_MODES: dict[str, Any] = {"constant": "constant", "nearest": "edge", "reflect": "symmetric", "wrap": "wrap"}
ALL_AFFINE = {
    "random_rotation": 30.0,
    "random_zoom": 0.3,
    "random_crop": 0.3,
    "random_width_shift": 0.2,
    "random_height_shift": 0.2,
    "random_shear": 20.0,
}


def noise(count: int, channels: int = 1) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random((count, S, S, channels)).astype(np.float32)


def ramp() -> npt.NDArray[np.float32]:
    """Each pixel is its column."""
    return np.broadcast_to(np.arange(S, dtype=np.float32)[:, np.newaxis], (1, S, S, 1)).copy()


def draw(stream: int, index: int) -> float:
    return float(uniform(SEED, stream, tf.constant([index], tf.int64))[0])


def warped(images: np.ndarray, first_index: int = 0, **options: Any) -> np.ndarray:
    indices = tf.range(first_index, first_index + len(images), dtype=tf.int64)
    return warp(tf.constant(images, tf.float32), SEED, indices, AugmentationConfig(**options)).numpy()


def strength_for(stream: Stream, wanted: float) -> tuple[float, int]:
    """The strength and the index at which the draw of -strength to strength is `wanted`."""
    sign = math.copysign(1, wanted)
    index = next(i for i in range(100) if sign * (2 * draw(stream, i) - 1) > 0.8)
    return wanted / (2 * draw(stream, index) - 1), index


def sample(image: np.ndarray, x: Array, y: Array, mode: str = "auto", fill: float = 1.0) -> Array:
    """Bilinear, image float [S, S, C]; `auto` is paper beyond a grey one, the nearest pixel beyond one of colours."""
    if mode == "auto":
        mode = "constant" if image.shape[2] == 1 else "nearest"
    beyond = np.pad(
        image.astype(float),
        [(3 * S, 3 * S)] * 2 + [(0, 0)],
        NUMPYS_MODES[mode],
        **({"constant_values": fill} if mode == "constant" else {}),
    )
    total = np.zeros((*x.shape, image.shape[2]))
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        i, j = np.floor(y).astype(int) + row, np.floor(x).astype(int) + column
        weight = (1 - abs(y - i)) * (1 - abs(x - j))
        total += weight[..., np.newaxis] * beyond[i + 3 * S, j + 3 * S]
    return total


def shift(x: float, y: float) -> Array:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


def what_happens(index: int, options: dict[str, float]) -> Array:
    """The picture's way from where it was to where it is, 3 × 3, from the image's middle."""
    o = {name: options.get(name, 0.0) for name in ALL_AFFINE}

    def between(stream: Stream, limit: float) -> float:
        return limit * (2 * draw(stream, index) - 1)

    width, height = (1 - o["random_crop"] * (1 - draw(s, index)) for s in (Stream.CROP_WIDTH, Stream.CROP_HEIGHT))
    x0, y0 = (
        S * (1 - side) * (draw(stream, index) - 0.5)
        for side, stream in ((width, Stream.CROP_X), (height, Stream.CROP_Y))
    )
    crop = np.diag([1 / width, 1 / height, 1]) @ shift(-x0, -y0)
    zoom = 1 + between(Stream.ZOOM, o["random_zoom"])
    slant = math.tan(math.radians(between(Stream.SHEAR, o["random_shear"])))
    angle = math.radians(between(Stream.ROTATION, o["random_rotation"]))
    cosine, sine = math.cos(angle), math.sin(angle)
    return (
        shift(S * between(Stream.WIDTH_SHIFT, o["random_width_shift"]), 0)
        @ shift(0, S * between(Stream.HEIGHT_SHIFT, o["random_height_shift"]))
        @ np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])  # counterclockwise, as y goes down
        @ np.array([[1, -slant, 0], [0, 1, 0], [0, 0, 1]])  # what is above the middle goes to the right
        @ np.diag([zoom, zoom, 1])
        @ crop
    )


def expected(image: np.ndarray, index: int, options: dict[str, Any]) -> Array:
    y, x = np.mgrid[:S, :S].astype(float)
    if options.get("elastic_distortion"):
        right, down = elastic_displacement(SEED, tf.constant([index], tf.int64), S, AugmentationConfig(**options))
        x, y = x + right[0].numpy(), y + down[0].numpy()
    middle = (S - 1) / 2
    places = np.linalg.inv(what_happens(index, options)) @ np.stack(
        [x.ravel() - middle, y.ravel() - middle, np.ones(S * S)]
    )
    x, y = ((place + middle).reshape(S, S) for place in places[:2])
    return sample(image, x, y, options.get("fill_mode", "auto"), options.get("fill_value", 1.0))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        *({name: strength} for name, strength in ALL_AFFINE.items()),
        ALL_AFFINE,
        {"elastic_distortion": 0.05},
        {**ALL_AFFINE, "elastic_distortion": 0.05, "elastic_sigma": 0.2},
        {"random_zoom": 0.3, "elastic_distortion": 0.05},
    ],
    ids=lambda options: "+".join(options),
)
def test_one_sampling_of_all_that_happens(options: dict[str, float], channels: int) -> None:
    images = noise(4, channels)
    found = warped(images, **options)
    for index, image in enumerate(images):
        np.testing.assert_allclose(found[index], expected(image, index, options), atol=1e-4)
        assert np.abs(found[index] - image).max() > 0.05


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["constant", "nearest", "reflect", "wrap"])
@pytest.mark.parametrize("elastic", [{}, {"elastic_distortion": 0.05}], ids=["affine", "elastic"])
def test_what_lies_beyond_the_border(mode: str, elastic: dict[str, float], channels: int) -> None:
    """As numpy pads, also a whole image away."""
    images = noise(4, channels)
    for shift_limit in (0.3, 1.0):
        options = {"random_width_shift": shift_limit, "random_height_shift": shift_limit, **elastic}
        options |= {"fill_mode": mode, "fill_value": 0.25}
        found = warped(images, **options)
        for index, image in enumerate(images):
            np.testing.assert_allclose(found[index], expected(image, index, options), atol=1e-4)


def test_a_quarter_turn_is_rot90() -> None:
    image = noise(1)
    for degrees, quarters in ((90.0, 1), (-90.0, 3)):
        strength, index = strength_for(Stream.ROTATION, degrees)
        np.testing.assert_allclose(
            warped(image, index, random_rotation=strength)[0], np.rot90(image[0], quarters), atol=1e-5
        )


@pytest.mark.parametrize(("name", "axis"), [("random_width_shift", 1), ("random_height_shift", 0)])
def test_a_shift_by_whole_pixels_is_a_roll_with_paper(name: str, axis: int) -> None:
    image = noise(1)
    stream = Stream[name.removeprefix("random_").upper()]
    strength, index = strength_for(stream, 3 / S)  # to the right, or down
    rolled = np.roll(image[0], 3, axis)
    rolled[(slice(None),) * axis + (slice(3),)] = 1.0
    np.testing.assert_allclose(warped(image, index, **{name: strength})[0], rolled, atol=1e-5)


def test_zoom_of_a_ramp_has_another_slope() -> None:
    strength, index = strength_for(Stream.ZOOM, 0.5)  # half as large again
    found = warped(ramp(), index, random_zoom=strength)[0, :, :, 0]
    middle = (S - 1) / 2
    np.testing.assert_allclose(found, np.broadcast_to(middle + (np.arange(S) - middle) / 1.5, (S, S)), atol=1e-4)


def test_shear_of_a_ramp_is_a_slant() -> None:
    strength, index = strength_for(Stream.SHEAR, math.degrees(math.atan(0.5)))
    found = warped(ramp(), index, random_shear=strength)[0, :, :, 0]
    y, x = np.mgrid[:S, :S]
    slanted = x + 0.5 * (y - (S - 1) / 2)
    inside = (slanted >= 0) & (slanted <= S - 1)
    np.testing.assert_allclose(found[inside], slanted[inside], atol=1e-4)


def test_a_crop_is_a_window_within_the_image() -> None:
    columns = np.repeat(ramp(), 50, axis=0)
    for images in (columns, columns.transpose(0, 2, 1, 3)):
        found = warped(images, random_crop=0.4)
        spans = found.max(axis=(1, 2, 3)) - found.min(axis=(1, 2, 3))
        assert found.min() >= -1e-4
        assert found.max() <= S - 1 + 1e-4
        assert 0.6 * (S - 1) - 0.01 <= spans.min() < 0.7 * (S - 1)
        assert 0.9 * (S - 1) < spans.max() <= S - 1


def test_elastic_fields_are_as_strong_and_as_smooth_as_is_said() -> None:
    size, count, sigma, strength = 32, 2000, 0.1, 0.04
    options = AugmentationConfig(elastic_distortion=strength, elastic_sigma=sigma)
    fields = np.stack(elastic_displacement(SEED, tf.range(count, dtype=tf.int64), size, options)) / (strength * size)
    assert fields.shape == (2, count, size, size)
    np.testing.assert_allclose(fields.mean(axis=1), 0, atol=5 / math.sqrt(count))
    np.testing.assert_allclose(fields.std(axis=1), 1, atol=5 / math.sqrt(2 * count))  # at the border as well
    # White noise that a Gaussian has smoothed is alike over a distance d by exp(-d² / 4σ²).
    for pixels in (2, 4, 8):
        alike = (fields[..., :-pixels] * fields[..., pixels:]).mean()
        down = (fields[..., :-pixels, :] * fields[..., pixels:, :]).mean()
        np.testing.assert_allclose([alike, down], math.exp(-((pixels / size) ** 2) / (4 * sigma**2)), atol=0.03)
    assert abs((fields[0] * fields[1]).mean()) < 0.02  # the two do not follow from each other
    assert abs((fields[:, :-1] * fields[:, 1:]).mean()) < 0.02  # nor does an image's from its neighbour's


def test_off_is_the_very_same_tensor() -> None:
    images = tf.constant(noise(1))
    assert warp(images, SEED, tf.constant([0], tf.int64), AugmentationConfig(elastic_sigma=0.3)) is images
