from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.unit.small_checkpoints import model_arrays
from tfos_job.errors import SettingsError
from tfos_job.networks import registry, variables


def build(keep_prob: float = 1.0, seed: int = 0, num_classes: int = 5) -> keras.Model:
    return registry.build("chinese_rec", num_classes=num_classes, image_size=8, keep_prob=keep_prob, seed=seed)


def test_it_has_the_seed_networks_21_million_parameters() -> None:
    num_classes, image_size = 3755, 64
    convolutions = sum(9 * inputs * outputs + outputs for inputs, outputs in ((1, 64), (64, 128), (128, 256)))
    num_flat = (image_size // 8) ** 2 * 256
    expected = convolutions + (num_flat + 1) * 1024 + (1024 + 1) * num_classes
    model = registry.build("chinese_rec", num_classes=num_classes, image_size=image_size, keep_prob=1.0, seed=0)
    assert model.count_params() == expected == 20_996_779


def test_it_computes_what_the_seed_job_wrote_down() -> None:
    """Against the same network spelled out in numpy."""
    model = build()
    for variable in model.variables:
        if variable.path.endswith("bias"):
            variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    weights = {variable.path: variable.numpy().astype(np.float64) for variable in model.variables}
    images = np.random.default_rng(0).random((2, 8, 8, 1))
    x = images
    for layer in ("conv1", "conv2", "conv3"):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        convolved = np.einsum("bhwcij,ijco->bhwo", windows, weights[f"{layer}/kernel"])
        x = np.maximum(convolved + weights[f"{layer}/bias"], 0)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
    x = np.tanh(x.reshape(2, -1) @ weights["fc1/kernel"] + weights["fc1/bias"])
    logits = x @ weights["fc2/kernel"] + weights["fc2/bias"]
    np.testing.assert_allclose(model(images.astype(np.float32), training=False), logits, rtol=1e-4, atol=1e-4)


def test_one_seed_gives_one_network_with_stable_names() -> None:
    first, again, other = (model_arrays(build(0.8, seed)) for seed in (3, 3, 4))
    assert sorted(first) == sorted(
        [f"model/{layer}/{kind}" for layer in ("conv1", "conv2", "conv3", "fc1", "fc2") for kind in ("kernel", "bias")]
        + [f"model/dropout{i}_random/seed_generator_state" for i in (1, 2)]
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        assert name.endswith("bias") or not np.array_equal(array, other[name])


def test_dropout_drops_in_training_alone() -> None:
    images = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    with_dropout, without = build(0.5), build(1.0)
    np.testing.assert_array_equal(with_dropout(images, training=False), without(images, training=True))
    first, second = (np.asarray(with_dropout(images, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)


def test_variables_that_do_not_fit_are_named_and_nothing_is_assigned() -> None:
    model = build()
    before = model_arrays(model)
    arrays = model_arrays(build(seed=1)) | {"optimizer/fc2/kernel": np.zeros(3), "global_step": np.int64(3)}
    arrays["model/fc2/kernel"] = arrays["model/fc2/kernel"][:, :4]
    arrays["model/fc3/bias"] = arrays.pop("model/conv1/bias")
    with pytest.raises(SettingsError) as caught:
        variables.assign_model(model, arrays)
    for fact in ("model/conv1/bias is missing", "model/fc3/bias is not in", "model/fc2/kernel has shape (1024, 4)"):
        assert fact in str(caught.value)
    for name, array in model_arrays(model).items():
        np.testing.assert_array_equal(array, before[name])
