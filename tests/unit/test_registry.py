from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tfos_job.config import TrainConfig
from tfos_job.errors import SettingsError
from tfos_job.networks import inception_v3, registry
from tfos_job.networks.layers import BatchNorm

CASES = [("chinese_rec", 16, 1), ("hanzi_net", 25, 1), ("inception_v3", 75, 1)]
OTHER_IMAGES = [("chinese_rec", 16, 3), ("hanzi_net", 64, 3), ("inception_v3", 80, 3)]


def build(name: str, image_size: int, num_channels: int, seed: int = 1) -> keras.Model:
    sizes = {"image_size": image_size, "num_channels": num_channels}
    return registry.build(name, num_classes=5, **sizes, keep_prob=0.5, seed=seed)


built = functools.cache(build)  # for who changes nothing: an Inception-V3 takes seconds


@pytest.mark.parametrize(("name", "image_size", "num_channels"), CASES)
def test_every_network_is_a_function_of_its_arguments(name: str, image_size: int, num_channels: int) -> None:
    one = built(name, image_size, num_channels)
    keras.layers.Conv2D(1, 1)  # What the process has made before must not count.
    inception_v3._pattern.cache_clear()
    same, other = (build(name, image_size, num_channels, seed) for seed in (1, 2))
    assert [v.path for v in one.variables] == [v.path for v in same.variables] == [v.path for v in other.variables]
    for first, second in zip(one.variables, same.variables, strict=True):
        np.testing.assert_array_equal(first, second)
    drawn = [v for v in zip(one.variables, other.variables, strict=True) if v[0].path.endswith("kernel")]
    assert drawn
    assert [first.path for first, second in drawn if np.array_equal(first, second)] == []


@pytest.mark.parametrize(("name", "image_size", "num_channels"), CASES + OTHER_IMAGES)
def test_every_network_has_something_to_say(name: str, image_size: int, num_channels: int) -> None:
    images = np.random.default_rng(0).random((2, image_size, image_size, num_channels), np.float32)
    logits = built(name, image_size, num_channels)(images, training=False)
    assert logits.shape == (2, 5)
    assert np.ptp(logits) > 0


def test_the_names_in_inception_v3_are_its_blocks() -> None:
    model = built("inception_v3", 75, 1)
    paths = [v.path for v in model.trainable_variables]
    assert {path.partition("_")[0].partition("/")[0] for path in paths} == {
        "stem",
        "logits",
        *(f"mixed{n}" for n in range(11)),
    }
    with keras.StatelessScope(initialize_variables=False):  # only to count its layers
        pattern = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3))
    # A block ends in the layer of its name: no convolution before mixed0 is called mixed1.
    depth = {layer.name: number for number, layer in enumerate(model.get_layer("backbone").layers)}
    assert len(depth) == len(pattern.layers) + 1
    for n in range(1, 11):
        own = [number for name, number in depth.items() if name.startswith(f"mixed{n}_conv2d")]
        assert depth[f"mixed{n - 1}"] < min(own) <= max(own) < depth[f"mixed{n}"]


def test_an_own_network_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "def net(*, num_classes, image_size, num_channels, keep_prob, seed):\n"
        "    images = keras.Input((image_size, image_size, num_channels))\n"
        "    x = keras.layers.Flatten()(images)\n"
        "    return keras.Model(images, keras.layers.Dense(num_classes, name='fc')(x))\n"
        "def wrong(*, num_classes, **others): return net(num_classes=num_classes + 1, **others)\n"
        "def less(num_classes): pass\n"
        "def raises(**others): return {}['depth']\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = {"num_classes": 3, "image_size": 8, "num_channels": 1, "keep_prob": 1.0, "seed": 0}
    assert registry.build("mine:net", **arguments).count_params() == 64 * 3 + 3
    with pytest.raises(SettingsError, match=r"returns \(None, 4\), expected .* \(None, 3\)"):
        registry.build("mine:wrong", **arguments)
    with pytest.raises(SettingsError, match="does not take image_size, keep_prob, num_channels, seed"):
        registry.build("mine:less", **arguments)
    with pytest.raises(SettingsError, match="cannot be imported: AttributeError"):
        registry.build("mine:nothing", **arguments)
    with pytest.raises(SettingsError, match="cannot be imported: ModuleNotFoundError"):
        registry.build("not_there:net", **arguments)
    (tmp_path / "broken.py").write_text("def net(:\n")
    with pytest.raises(SettingsError, match="cannot be imported: SyntaxError"):
        registry.build("broken:net", **arguments)
    with pytest.raises(SettingsError, match=r"cannot be built: KeyError: 'depth' .*mine\.py, line 8"):
        registry.build("mine:raises", **arguments)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"no network 'resnet'.*Known: chinese_rec"):
        registry.build("resnet", num_classes=3, image_size=8, keep_prob=1.0, seed=0)
    with pytest.raises(SettingsError, match=r"no network 'resnet'.*Known: chinese_rec"):
        TrainConfig(dataset_dir="d", train_dir="t", model_name="resnet")


def test_batch_norm_is_kerass() -> None:
    """But for the variance, of which the kernel moves the unbiased estimate on."""
    inputs = np.random.default_rng(0).normal(2.0, 3.0, (8, 6, 5, 4)).astype(np.float32)
    ours, theirs = BatchNorm(name="ours"), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3)
    for _ in range(3):
        np.testing.assert_allclose(ours(inputs, training=True), theirs(inputs, training=True), atol=1e-5)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    n = 8 * 6 * 5
    unbiased = 1 + (np.asarray(theirs.moving_variance) - 0.9**3) / (1 - 0.9**3) * n / (n - 1)
    np.testing.assert_allclose(ours.moving_variance, 0.9**3 * 1 + (1 - 0.9**3) * (unbiased - 1), rtol=1e-4)
    theirs.moving_variance.assign(ours.moving_variance)
    np.testing.assert_allclose(ours(inputs), theirs(inputs), atol=1e-5)
    ours.trainable = False
    before = ours.moving_mean.numpy()
    np.testing.assert_array_equal(ours(inputs, training=True), ours(inputs))
    np.testing.assert_array_equal(ours.moving_mean, before)


def test_choosing_a_network_or_a_checkpoint_does_not_import_tensorflow() -> None:
    code = "import sys, tfos_job.networks.registry, tfos_job.run.checkpoints; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
