from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfos_job.data.augment import Augmentation, augment
from tfos_job.data.draws import uniform

IMAGE = tf.constant(np.random.default_rng(0).random((8, 8, 1)), tf.float32)
SEED = tf.constant(7, tf.int64)


def draws(options: Augmentation, count: int = 40) -> list[np.ndarray]:
    """The same image at the first `count` places of a stream."""
    images = augment(tf.tile(IMAGE[tf.newaxis], [count, 1, 1, 1]), SEED, tf.range(count, dtype=tf.int64), options)
    return list(images.numpy())


def test_all_off_is_the_very_same_tensor() -> None:
    images = IMAGE[tf.newaxis]
    assert augment(images, SEED, tf.constant([2], tf.int64), Augmentation()) is images


def test_an_image_does_not_depend_on_the_others_in_its_batch() -> None:
    options = Augmentation(random_flip_up_down=True, random_brightness=0.3, random_contrast=0.2)
    together = draws(options, 10)
    for index, expected in enumerate(together):
        alone = augment(IMAGE[tf.newaxis], SEED, tf.constant([index], tf.int64), options)
        np.testing.assert_array_equal(alone[0], expected)


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
    brighter = augment(IMAGE[tf.newaxis], SEED, tf.constant([5], tf.int64), Augmentation(random_brightness=0.3))[0]
    delta = float(brighter[0, 0, 0] - IMAGE[0, 0, 0])
    np.testing.assert_allclose(brighter, tf.image.adjust_brightness(IMAGE, delta), atol=1e-6)
    stretched = augment(IMAGE[tf.newaxis], SEED, tf.constant([5], tf.int64), Augmentation(random_contrast=0.2))[0]
    factor = 0.8 + 0.4 * float(uniform(SEED, 2, tf.constant([5], tf.int64))[0])
    np.testing.assert_allclose(stretched, tf.image.adjust_contrast(IMAGE, factor), atol=1e-6)


def test_flip_turns_about_half_upside_down() -> None:
    image = IMAGE.numpy()
    results = draws(Augmentation(random_flip_up_down=True))
    flipped = [np.array_equal(result, image[::-1]) for result in results]
    assert all(is_flipped or np.array_equal(result, image) for is_flipped, result in zip(flipped, results, strict=True))
    assert 10 <= sum(flipped) <= 30


def test_brightness_shifts_by_up_to_0_3() -> None:
    shifts = np.array([result - IMAGE.numpy() for result in draws(Augmentation(random_brightness=0.3))])
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1], shifts.shape), atol=1e-6)
    assert -0.3 <= shifts.min() < -0.2
    assert 0.2 < shifts.max() <= 0.3


def test_contrast_stretches_around_the_mean_by_0_8_to_1_2() -> None:
    centred = IMAGE.numpy() - IMAGE.numpy().mean()
    results = draws(Augmentation(random_contrast=0.2))
    factors = np.array([np.vdot(result - result.mean(), centred) / np.vdot(centred, centred) for result in results])
    assert 0.8 <= factors.min() < 0.88
    assert 1.12 < factors.max() <= 1.2


@pytest.mark.parametrize("other", ["random_flip_up_down", "random_contrast"])
def test_one_switched_on_does_not_change_what_another_draws(other: str) -> None:
    """The mean tells the brightness drawn: neither a flip nor contrast moves it."""
    alone = [result.mean() for result in draws(Augmentation(random_brightness=0.3), 5)]
    both = [result.mean() for result in draws(Augmentation(random_brightness=0.3, **{other: True}), 5)]
    np.testing.assert_allclose(both, alone, atol=1e-5)
