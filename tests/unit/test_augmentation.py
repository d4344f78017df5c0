from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tfos_job.config import AugmentationConfig
from tfos_job.input.augmentation import augment
from tfos_job.input.stateless_random import Stream, uniform

IMAGE = tf.constant(np.random.default_rng(0).random((8, 8, 1)), tf.float32)
SEED = tf.constant(7, tf.int64)
COLOUR_ONLY = ("random_hue", "random_saturation")
EVERYTHING: dict[str, float] = {
    "random_flip_up_down": True,
    "random_flip_left_right": True,
    "random_transpose": True,
    "random_rotation_90": True,
    "random_rotation": 20.0,
    "random_zoom": 0.2,
    "random_crop": 0.2,
    "random_width_shift": 0.1,
    "random_height_shift": 0.1,
    "random_shear": 20.0,
    "elastic_distortion": 0.05,
    "stroke_width": 2.0,
    "random_hue": 0.2,
    "random_saturation": 0.5,
    "random_channel_shift": 0.2,
    "random_brightness": 0.3,
    "random_contrast": 0.2,
    "random_gamma": 0.5,
    "random_erasing": 0.5,
}


def colourful(count: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(1).random((count, 8, 8, 3)), tf.float32)


def value(stream: int, index: int, low: float, high: float) -> float:
    return low + (high - low) * float(uniform(SEED, stream, tf.constant([index], tf.int64))[0])


def draws(options: AugmentationConfig, count: int = 40) -> list[np.ndarray]:
    """The same image at the first `count` places of a stream."""
    images = augment(tf.tile(IMAGE[tf.newaxis], [count, 1, 1, 1]), SEED, tf.range(count, dtype=tf.int64), options)
    return list(images.numpy())


def test_all_off_is_the_very_same_tensor() -> None:
    images = IMAGE[tf.newaxis]
    assert augment(images, SEED, tf.constant([2], tf.int64), AugmentationConfig()) is images


def test_everything_is_every_flag() -> None:
    assert set(EVERYTHING) | {"elastic_sigma", "fill_mode", "fill_value"} == {
        field.name for field in dataclasses.fields(AugmentationConfig)
    }


@pytest.mark.parametrize("name", EVERYTHING)
def test_an_image_does_not_depend_on_the_others_in_its_batch(name: str) -> None:
    options = AugmentationConfig(**{name: EVERYTHING[name]})
    images, indices = colourful(12), tf.range(12, dtype=tf.int64)
    together = augment(images, SEED, indices, options).numpy()
    # The same places in another order, and beside other images.
    order = np.random.default_rng(1).permutation(12)
    mixed = augment(tf.gather(images, order), SEED, tf.gather(indices, order), options).numpy()
    alone = np.stack([augment(images[i : i + 1], SEED, indices[i : i + 1], options)[0] for i in range(12)])
    # A number may be computed by other instructions, or be summed in another order, where it is at another place in a
    # tensor, and so round otherwise; which ones do is the CPU's matter.
    np.testing.assert_allclose(mixed, together[order], atol=1e-5)
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_everything_at_once_is_a_graph_that_can_travel(channels: int) -> None:
    """No Python and no state in it, a static shape, the same pixels as without a graph, others at another index."""
    options = AugmentationConfig(
        **{name: v for name, v in EVERYTHING.items() if channels == 3 or name not in COLOUR_ONLY}
    )
    images, indices = colourful(4)[..., :channels], tf.range(4, dtype=tf.int64)
    function = tf.function(lambda i: augment(images, SEED, i, options)).get_concrete_function(indices)
    operations = {op.type for op in function.graph.get_operations()}
    assert not {name for name in operations if "PyFunc" in name or name.startswith(("Random", "Var", "Stateful"))}
    assert function.outputs[0].shape == (4, 8, 8, channels)
    found = function(indices).numpy()
    np.testing.assert_array_equal(function(indices), found)
    np.testing.assert_allclose(augment(images, SEED, indices, options), found, atol=1e-5)
    elsewhere = function(indices + 4).numpy()
    other_seed = augment(images, SEED + 1, indices, options).numpy()
    for other in (elsewhere, other_seed):
        assert (np.abs(other - found).max(axis=(1, 2, 3)) > 0.05).all()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_distribution_is_the_same_under_any_number_of_workers(num_workers: int) -> None:
    """Each has a seed of its own, and its part of the records; together they draw what one would."""
    count = 6000 // num_workers
    shifts = np.concatenate(
        [
            augment(
                tf.zeros([count, 1, 1, 1]),
                tf.constant(worker, tf.int64),
                tf.range(count, dtype=tf.int64),
                AugmentationConfig(random_brightness=0.3),
            ).numpy()[:, 0, 0, 0]
            for worker in range(num_workers)
        ]
    )
    assert len(np.unique(shifts)) > 5990  # no worker repeats another
    counts = np.histogram(shifts, 10, (-0.3, 0.3))[0]
    np.testing.assert_allclose(counts, 600, atol=5 * np.sqrt(6000 * 0.09))


def splitmix64(x: int) -> int:
    """The generator's published code in Python's own numbers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def test_random_numbers_are_those_of_splitmix64() -> None:
    # https://prng.di.unimi.it/splitmix64.c with the seed 1234567, as other implementations have it.
    assert splitmix64(1234567) == 6457827717110365317
    indices = [0, 1, 2**40, 2**62]
    for seed in (0, 3, -1, 2**63 - 1):
        for stream in (0, 1):
            key = splitmix64(splitmix64(seed % 2**64) + stream)
            expected = [(splitmix64(key + i * 0x9E3779B97F4A7C15) >> 40) / 2**24 for i in indices]
            found = uniform(tf.constant(seed, tf.int64), stream, tf.constant(indices, tf.int64))
            np.testing.assert_array_equal(found, np.float32(expected))


def test_random_numbers_are_uniform_and_independent() -> None:
    count = 1 << 16
    indices = tf.range(count, dtype=tf.int64)
    tables = np.stack([uniform(tf.constant(seed, tf.int64), stream, indices) for seed in (1, 2) for stream in (0, 1)])
    assert tables.min() >= 0
    assert tables.max() < 1
    for table in tables:
        # Each tenth holds a tenth, within five standard deviations; neighbours do not follow from each other.
        counts = np.histogram(table, 10, (0, 1))[0]
        np.testing.assert_allclose(counts, count / 10, atol=5 * np.sqrt(count * 0.09))
        assert abs(np.corrcoef(table[:-1], table[1:])[0, 1]) < 5 / np.sqrt(count)
    assert np.abs(np.corrcoef(tables) - np.eye(len(tables))).max() < 5 / np.sqrt(count)


def test_contrast_and_brightness_are_those_of_tf_image() -> None:
    brighter = augment(IMAGE[tf.newaxis], SEED, tf.constant([5], tf.int64), AugmentationConfig(random_brightness=0.3))[
        0
    ]
    delta = float(brighter[0, 0, 0] - IMAGE[0, 0, 0])
    np.testing.assert_allclose(brighter, tf.image.adjust_brightness(IMAGE, delta), atol=1e-6)
    stretched = augment(IMAGE[tf.newaxis], SEED, tf.constant([5], tf.int64), AugmentationConfig(random_contrast=0.2))[0]
    factor = 0.8 + 0.4 * float(uniform(SEED, 2, tf.constant([5], tf.int64))[0])
    np.testing.assert_allclose(stretched, tf.image.adjust_contrast(IMAGE, factor), atol=1e-6)


def test_flip_turns_about_half_upside_down() -> None:
    image = IMAGE.numpy()
    results = draws(AugmentationConfig(random_flip_up_down=True))
    flipped = [np.array_equal(result, image[::-1]) for result in results]
    assert all(is_flipped or np.array_equal(result, image) for is_flipped, result in zip(flipped, results, strict=True))
    assert 10 <= sum(flipped) <= 30


def test_brightness_shifts_by_up_to_0_3() -> None:
    shifts = np.array([result - IMAGE.numpy() for result in draws(AugmentationConfig(random_brightness=0.3))])
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1], shifts.shape), atol=1e-6)
    assert -0.3 <= shifts.min() < -0.2
    assert 0.2 < shifts.max() <= 0.3


def test_contrast_stretches_around_the_mean_by_0_8_to_1_2() -> None:
    centred = IMAGE.numpy() - IMAGE.numpy().mean()
    results = draws(AugmentationConfig(random_contrast=0.2))
    factors = np.array([np.vdot(result - result.mean(), centred) / np.vdot(centred, centred) for result in results])
    assert 0.8 <= factors.min() < 0.88
    assert 1.12 < factors.max() <= 1.2


@pytest.mark.parametrize("other", ["random_flip_up_down", "random_contrast", "random_rotation_90"])
def test_one_switched_on_does_not_change_what_another_draws(other: str) -> None:
    """The mean tells the brightness drawn: neither a flip nor contrast moves it."""
    alone = [result.mean() for result in draws(AugmentationConfig(random_brightness=0.3), 5)]
    both = [
        result.mean() for result in draws(AugmentationConfig(random_brightness=0.3, **{other: EVERYTHING[other]}), 5)
    ]
    np.testing.assert_allclose(both, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("random_flip_left_right", lambda image: image[:, ::-1]),
        ("random_transpose", lambda image: image.swapaxes(0, 1)),
    ],
)
def test_half_are_mirrored_or_transposed(name: str, changed: Callable[[np.ndarray], np.ndarray]) -> None:
    image = IMAGE.numpy()
    results = draws(AugmentationConfig(**{name: True}))
    are_changed = [np.array_equal(result, changed(image)) for result in results]
    assert all(there or np.array_equal(result, image) for there, result in zip(are_changed, results, strict=True))
    assert 10 <= sum(are_changed) <= 30


def test_a_quarter_each_are_turned_by_each_quarter() -> None:
    turned = [np.rot90(IMAGE.numpy(), k) for k in range(4)]
    results = draws(AugmentationConfig(random_rotation_90=True))
    quarters = [[np.array_equal(result, image) for image in turned].index(True) for result in results]
    assert min(np.bincount(quarters, minlength=4)) >= 3
    assert quarters == [int(value(Stream.ROTATION_90, i, 0, 4)) for i in range(len(results))]


def test_turns_follow_each_other_as_if_each_were_done() -> None:
    options = {name: True for name in EVERYTHING if EVERYTHING[name] is True}
    for names in itertools.combinations(options, 3):
        for index, result in enumerate(draws(AugmentationConfig(**dict.fromkeys(names, True)), 12)):
            image = IMAGE.numpy()
            if "random_flip_up_down" in names and value(Stream.FLIP_UP_DOWN, index, 0, 1) < 0.5:
                image = image[::-1]
            if "random_flip_left_right" in names and value(Stream.FLIP_LEFT_RIGHT, index, 0, 1) < 0.5:
                image = image[:, ::-1]
            if "random_transpose" in names and value(Stream.TRANSPOSE, index, 0, 1) < 0.5:
                image = image.swapaxes(0, 1)
            if "random_rotation_90" in names:
                image = np.rot90(image, int(value(Stream.ROTATION_90, index, 0, 4)))
            np.testing.assert_array_equal(result, image)


def of_nine(image: np.ndarray, choose: Callable[..., np.ndarray]) -> np.ndarray:
    """`choose` of each pixel and its neighbours; beyond the border is paper."""
    spread = np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=1.0)
    rows, columns = image.shape[:2]
    return choose([spread[i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=0)


def test_strokes_become_broader_and_narrower_by_the_lowest_and_the_highest_of_nine() -> None:
    strength = 4.0
    for index, result in enumerate(draws(AugmentationConfig(stroke_width=strength), 12)):
        change = value(Stream.STROKE_WIDTH, index, -strength, strength)
        steps = [IMAGE.numpy()]
        for _ in range(2):
            steps.append(of_nine(steps[-1], np.min if change > 0 else np.max))
        whole, part = divmod(abs(change) / 2, 1)
        expected = steps[int(whole)] * (1 - part) + steps[int(whole) + 1] * part
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_a_line_is_as_much_broader_as_was_drawn() -> None:
    image = np.ones((1, 32, 32, 1), np.float32)
    image[:, :, 14:18] = 0.0
    images, indices = np.repeat(image, 40, axis=0), tf.range(40, dtype=tf.int64)
    found = augment(tf.constant(images), SEED, indices, AugmentationConfig(stroke_width=3.0)).numpy()
    widths = (1 - found[:, 16, :, 0]).sum(axis=1)
    np.testing.assert_allclose(widths, [4 + value(Stream.STROKE_WIDTH, i, -3, 3) for i in range(40)], atol=1e-4)
    assert widths.min() < 2
    assert widths.max() > 6


def test_hue_and_saturation_are_those_of_tf_image() -> None:
    images, indices = colourful(6), tf.range(6, dtype=tf.int64)
    options = AugmentationConfig(random_hue=0.3, random_saturation=0.5)
    for index, result in enumerate(augment(images, SEED, indices, options)):
        turned = tf.image.adjust_hue(images[index], value(Stream.HUE, index, -0.3, 0.3))
        expected = tf.image.adjust_saturation(turned, value(Stream.SATURATION, index, 0.5, 1.5))
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_each_channel_is_shifted_by_itself() -> None:
    images, indices = colourful(6), tf.range(6, dtype=tf.int64)
    shifts = augment(images, SEED, indices, AugmentationConfig(random_channel_shift=0.2)).numpy() - images.numpy()
    expected = [[value(Stream.CHANNEL_SHIFT + c, i, -0.2, 0.2) for c in range(3)] for i in range(6)]
    np.testing.assert_allclose(shifts, np.broadcast_to(np.array(expected)[:, None, None], shifts.shape), atol=1e-6)


def test_gamma_is_a_power() -> None:
    image = np.linspace(-0.2, 1.2, 64, dtype=np.float32).reshape(8, 8, 1)
    images, indices = np.repeat(image[np.newaxis], 30, axis=0), tf.range(30, dtype=tf.int64)
    results = augment(tf.constant(images), SEED, indices, AugmentationConfig(random_gamma=0.5)).numpy()
    exponents = []
    for index, result in enumerate(results):
        exponents.append(1.5 ** value(Stream.GAMMA, index, -1, 1))
        np.testing.assert_allclose(result, np.clip(image, 0, 1) ** exponents[-1], atol=1e-6)
    assert 1 / 1.5 <= min(exponents) < 0.8
    assert 1.25 < max(exponents) <= 1.5


@pytest.mark.parametrize("channels", [1, 3])
def test_erasing_covers_one_rectangle(channels: int) -> None:
    images = colourful(40)[..., :channels] * 0.9
    found = augment(images, SEED, tf.range(40, dtype=tf.int64), AugmentationConfig(random_erasing=0.5)).numpy()
    sides = []
    for image, result in zip(images.numpy(), found, strict=True):
        changed = (result != image).any(axis=2)
        rows, columns = changed.any(axis=1), changed.any(axis=0)
        np.testing.assert_array_equal(changed, rows[:, np.newaxis] & columns)
        sides += [rows.sum(), columns.sum()]
        cover = np.ones(1) if channels == 1 else image.mean(axis=(0, 1))
        np.testing.assert_allclose(result[changed], np.broadcast_to(cover, result[changed].shape), atol=1e-6)
        for line in (rows, columns):
            assert np.diff(np.flatnonzero(line)).max(initial=1) == 1
    assert max(sides) == 4


def test_what_is_covered_is_under_the_same_light_as_the_rest() -> None:
    """Paper on paper is not to be seen, whatever brightness, contrast and gamma make of it."""
    light = AugmentationConfig(random_brightness=0.3, random_contrast=0.2, random_gamma=0.5, random_channel_shift=0.1)
    erased = dataclasses.replace(light, random_erasing=0.5)
    images, indices = tf.ones([40, 8, 8, 1]), tf.range(40, dtype=tf.int64)
    found = augment(images, SEED, indices, erased).numpy()
    np.testing.assert_allclose(found, augment(images, SEED, indices, light), atol=1e-6)
    assert np.ptp(found[:, 0, 0, 0]) > 0.3  # and it was dark in some of them
