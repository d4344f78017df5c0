from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfos_job.data.augment import Augmentation, augment

IMAGE = tf.constant(np.random.default_rng(0).random((8, 8, 1)), tf.float32)


def draws(options: Augmentation, count: int = 40) -> list[np.ndarray]:
    return [augment(IMAGE, tf.constant([7, index], tf.int64), options).numpy() for index in range(count)]


def test_all_off_is_the_very_same_tensor() -> None:
    assert augment(IMAGE, tf.constant([1, 2], tf.int64), Augmentation()) is IMAGE


def test_flip_turns_about_half_upside_down() -> None:
    image = IMAGE.numpy()
    results = draws(Augmentation(random_flip_up_down=True))
    flipped = [np.array_equal(result, image[::-1]) for result in results]
    assert all(is_flipped or np.array_equal(result, image) for is_flipped, result in zip(flipped, results, strict=True))
    assert 10 <= sum(flipped) <= 30


def test_brightness_shifts_by_up_to_0_3() -> None:
    shifts = np.array([result - IMAGE.numpy() for result in draws(Augmentation(random_brightness=True))])
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1], shifts.shape), atol=1e-6)
    assert -0.3 <= shifts.min() < -0.2
    assert 0.2 < shifts.max() <= 0.3


def test_contrast_stretches_around_the_mean_by_0_8_to_1_2() -> None:
    centred = IMAGE.numpy() - IMAGE.numpy().mean()
    results = draws(Augmentation(random_contrast=True))
    factors = np.array([np.vdot(result - result.mean(), centred) / np.vdot(centred, centred) for result in results])
    assert 0.8 <= factors.min() < 0.88
    assert 1.12 < factors.max() <= 1.2


@pytest.mark.parametrize("other", ["random_flip_up_down", "random_contrast"])
def test_one_switched_on_does_not_change_what_another_draws(other: str) -> None:
    """The mean tells the brightness drawn: neither a flip nor contrast moves it."""
    alone = [result.mean() for result in draws(Augmentation(random_brightness=True), 5)]
    both = [result.mean() for result in draws(Augmentation(random_brightness=True, **{other: True}), 5)]
    np.testing.assert_allclose(both, alone, atol=1e-5)
