from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tests.unit.small_checkpoints import model_arrays
from tfos_job.config import TrainConfig
from tfos_job.errors import BadDataError, JobError, MissingInputError, NodeDiedError, SettingsError
from tfos_job.host import calls
from tfos_job.layout import RunLayout
from tfos_job.networks import registry
from tfos_job.run import checkpoints
from tfos_job.run.json_values import to_json
from tfos_job.run.specs import InitialWeights, ModelSpec, RehearsalSpec
from tfos_job.training import finetuning, rehearsal
from tfos_job.training.finetuning import load_weights, train_only

DIGEST = "c" * 64  # of the classes


def network(num_classes: int = 4, seed: int = 0) -> keras.Model:
    return registry.build("hanzi_net", num_classes=num_classes, image_size=16, keep_prob=0.8, seed=seed)


def weights(
    path: object, exclude_scopes: tuple[str, ...] = (), normalization: str = "none", charset_digest: str = DIGEST
) -> InitialWeights:
    return InitialWeights(
        path=str(path), exclude_scopes=exclude_scopes, normalization=normalization, charset_digest=charset_digest
    )


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: variable.numpy() for variable in model.variables}


@functools.cache
def drawn(num_classes: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """The values of a network that nobody has changed yet."""
    return values(network(num_classes, seed))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    meta: dict[str, Any] = dict.fromkeys(checkpoints.META_KEYS) | {"charset_digest": DIGEST}
    run = RunLayout(str(tmp_path_factory.mktemp("run")))
    return checkpoints.publish(run, 7, model_arrays(network(seed=1)), meta)


@pytest.fixture(scope="module")
def inception_of_all() -> keras.Model:
    return registry.build("inception_v3", num_classes=3, image_size=75, keep_prob=1.0, seed=0)


@pytest.fixture
def inception(inception_of_all: keras.Model) -> keras.Model:
    """One for all tests, as it takes seconds to build: all of it is trained, its weights are anybody's."""
    for layer in finetuning.leaves(inception_of_all):
        layer.trainable = True
    return inception_of_all


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> set[str]:
    return {path for path in one if one[path].shape == other[path].shape and (one[path] == other[path]).all()}


RANDOM_STATES = {"dropout_random/seed_generator_state"}


def test_weights_of_another_training_but_for_the_classes(checkpoint: str) -> None:
    model, theirs = network(num_classes=9), drawn(seed=1)
    fresh = values(model)
    with pytest.raises(SettingsError, match=r"logits/bias has shape \(4,\), the network's has \(9,\).*exclude_scopes"):
        load_weights(model, weights(checkpoint))
    assert same(values(model), fresh) == set(fresh), "refused, and changed all the same"
    load_weights(model, weights(checkpoint, ("logits",)))
    kept = {path for path in fresh if path.startswith("logits/")} | RANDOM_STATES
    assert same(values(model), fresh) >= kept
    assert same(values(model), theirs) >= set(fresh) - kept


def test_a_runs_folder_stands_for_its_last_checkpoint(checkpoint: str) -> None:
    model = network()
    load_weights(model, weights(checkpoint.rpartition("/checkpoints/")[0]))
    assert same(values(model), drawn(seed=1)) >= set(values(model)) - RANDOM_STATES


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's, when it writes
def test_files_of_keras(tmp_path: Path) -> None:
    path = tmp_path / "mine.weights.h5"
    network(seed=1).save_weights(path)
    model = network(num_classes=9)
    load_weights(model, weights(path, ("logits",)))
    assert {p.partition("_")[0] for p in same(values(model), drawn(seed=1))} >= {"stem/kernel", "block3"}
    assert same(values(model), drawn(num_classes=9)) >= {"logits/kernel", "logits/bias"}
    with pytest.raises(SettingsError, match="it has no weights for logits"):
        load_weights(network(num_classes=9), weights(path))
    model = network()
    load_weights(model, weights(path, ("stem",)))
    fresh = drawn()
    assert same(values(model), fresh) >= {path for path in fresh if path.startswith("stem")}
    assert same(values(model), drawn(seed=1)) >= {path for path in fresh if path.startswith(("block", "logits"))}


def test_the_file_that_keras_applications_hands_out_is_for_the_backbone(tmp_path: Path, inception: keras.Model) -> None:
    """It is of Keras's older form: the layers in their order, under the names that they had in another process."""
    made = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(75, 75, 3), pooling="avg")
    path = tmp_path / "inception_v3_notop.h5"
    with h5py.File(path, "w") as file:
        layers = [layer for layer in made.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()
    load_weights(inception, weights(path))
    images = np.random.default_rng(0).random((2, 75, 75, 1), np.float32)
    expected = made(np.repeat(images, 3, axis=3) * 2 - 1, training=False)
    found = inception.get_layer("backbone")(np.repeat(images, 3, axis=3) * 2 - 1, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def rewritten(source: Path, target: Path, members: dict[str, bytes]) -> Path:
    """A `.keras` with other members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in {*old.namelist(), *members}:
            new.writestr(name, members.get(name) or old.read(name))
    return target


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's, when it writes
def test_nothing_but_numbers_is_read_of_a_file_of_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole model brings its configuration, a Lambda layer its bytecode; of neither anything is run or made."""
    marker = tmp_path / "marker"
    target = str(marker)
    images = keras.Input((8, 8, 1))
    code = keras.layers.Lambda(lambda x: (open(target, "w").close(), x)[1], output_shape=(8, 8, 1), name="code")
    outputs = keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(code(images)))
    hostile = keras.Model(images, outputs)
    hostile.save(tmp_path / "hostile.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's about its older form
        hostile.save(tmp_path / "hostile.h5")
    keras.models.load_model(tmp_path / "hostile.keras", safe_mode=False)(np.zeros((1, 8, 8, 1), np.float32))
    marker.unlink()  # so it would run
    made: list[Any] = []
    monkeypatch.setattr(keras.layers.Lambda, "from_config", lambda *given, **_: made.append(given))
    plain = keras.Model(images, keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(images)))
    wrong = rewritten(tmp_path / "hostile.keras", tmp_path / "wrong.keras", {"config.json": b'{"module": "os"}'})
    for path in (tmp_path / "hostile.keras", tmp_path / "hostile.h5", wrong):
        with contextlib.suppress(BadDataError, SettingsError):  # its layers are others
            load_weights(plain, weights(path))
        plain(np.zeros((1, 8, 8, 1), np.float32))
        assert (made, marker.exists()) == ([], False), path


@pytest.mark.parametrize("way", ["external link", "external storage", "virtual dataset"])
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_numbers_of_another_file_are_not_loaded(tmp_path: Path, way: str, suffix: str) -> None:
    """The bytes of any file of this host would be weights, and go where the network goes."""
    secret, path, inner = tmp_path / "secret", tmp_path / f"w{suffix}", tmp_path / "inner.h5"
    secret.write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros(16, np.float32)
    with h5py.File(inner, "w") as file:
        group = file.create_group("layers/logits/vars")
        if way == "external link":
            group["0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        elif way == "external storage":
            group.create_dataset("0", (16,), np.float32, external=[(str(secret), 0, 64)])
        else:
            layout = h5py.VirtualLayout((16,), np.float32)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (16,))
            group.create_virtual_dataset("0", layout)
        file["layers/logits/again"] = group  # a group within itself
        group["up"] = file["layers"]
    if suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, "model.weights.h5")
    else:
        with zipfile.ZipFile(tmp_path / "harmless.zip", "w") as archive:  # which is found at the end of any file
            archive.write(tmp_path / "other.h5", "model.weights.h5")
        path.write_bytes(inner.read_bytes() + (tmp_path / "harmless.zip").read_bytes())
    with pytest.raises(BadDataError, match="takes its weights from another file"):
        load_weights(network(), weights(path))


def test_what_is_no_weights(tmp_path: Path, checkpoint: str) -> None:
    model = network()
    for name in ("bad.h5", "bad.keras", "bad.weights.h5"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(BadDataError, match=rf"{name}.*not weights of hanzi_net"):
            load_weights(model, weights(tmp_path / name))
    with pytest.raises(MissingInputError):
        load_weights(model, weights(tmp_path / "not_there"))
    other = registry.build("chinese_rec", num_classes=4, image_size=16, keep_prob=0.8, seed=0)
    with pytest.raises(SettingsError, match="does not fit chinese_rec: model/conv1/bias is not there"):
        load_weights(other, weights(checkpoint))


def test_weights_for_other_images_or_other_classes(tmp_path: Path) -> None:
    meta = dict.fromkeys(checkpoints.META_KEYS) | {"charset_digest": "a" * 64, "normalization": {"kind": "zca"}}
    arrays = model_arrays(network(seed=1))
    path = checkpoints.publish(RunLayout(str(tmp_path / "run")), 7, arrays, meta)
    model = network()
    with pytest.raises(SettingsError, match="was trained with --normalization zca, this training has none"):
        load_weights(model, weights(path))
    with pytest.raises(SettingsError, match="layer logits is for other classes"):
        load_weights(model, weights(path, normalization="zca", charset_digest="b" * 64))
    assert same(values(model), drawn()) == set(drawn()), "refused, and changed all the same"
    load_weights(model, weights(path, ("logits",), normalization="zca", charset_digest="b" * 64))
    assert "logits/kernel" in same(values(model), drawn())
    load_weights(model, weights(path, normalization="zca", charset_digest="a" * 64))
    assert same(values(model), drawn(seed=1)) >= set(drawn()) - RANDOM_STATES


def test_a_scope_that_names_nothing_is_no_scope(checkpoint: str) -> None:
    with pytest.raises(
        SettingsError, match=r"no layer of hanzi_net begins with 'logit5'.*Names begin with stem, block1"
    ):
        load_weights(network(), weights(checkpoint, ("logit5",)))


def test_a_scope_cuts_no_number_in_two(inception: keras.Model) -> None:
    train_only(inception, ("mixed1",))
    names = {v.path.partition("/")[0] for v in inception.trainable_variables}
    assert {name.partition("_")[0] for name in names} == {"mixed1"}


def test_only_what_a_scope_names_is_trained() -> None:
    model = network()
    train_only(model, ("block3", "logits"))
    paths = {variable.path for variable in model.trainable_variables}
    assert paths
    assert {path.partition("_")[0].partition("/")[0] for path in paths} == {"block3", "logits"}
    before = values(model)
    images = np.random.default_rng(0).random((4, 16, 16, 1), np.float32)
    model(images, training=True)
    moved = set(before) - same(values(model), before) - RANDOM_STATES
    assert moved
    assert all(path.startswith("block3") for path in moved), "a batch normalisation that is not trained has moved"
    with pytest.raises(
        SettingsError, match=r"no layer of hanzi_net begins with 'mixed10'.*Names begin with stem, block1"
    ):
        train_only(network(), ("mixed10",))


def test_scopes_within_a_backbone(inception: keras.Model) -> None:
    train_only(inception, ("mixed10", "logits"))
    assert {v.path.split("_")[0] for v in inception.trainable_variables} == {"mixed10", "logits/kernel", "logits/bias"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"checkpoint_exclude_scopes": "logits"}, "without --checkpoint_path"),
        ({"checkpoint_path": "p", "restore": "q"}, "given together with --restore q"),
        ({"label_smoothing": 1.0}, "not in"),
    ],
)
def test_flags_that_contradict_each_other(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        TrainConfig(dataset_dir="d", train_dir="t", **flags)


def test_scopes_are_lists() -> None:
    config = TrainConfig(dataset_dir="d", train_dir="t", checkpoint_path="p", trainable_scopes=" a, b ,")
    assert config.scopes_to_train == ("a", "b")
    assert config.scopes_to_exclude == ()


def request(checkpoint: str, **changes: Any) -> dict[str, Any]:
    """What a training asks the rehearsal."""
    spec = RehearsalSpec(
        model=ModelSpec(model_name="hanzi_net", num_classes=4, image_size=16, num_channels=1, keep_prob=0.8),
        trainable_scopes=("block3",),
        initial_weights=weights(checkpoint, ("logits",)),
    )
    return to_json(dataclasses.replace(spec, **changes))


def test_what_an_engine_would_refuse_is_refused_by_a_process_aside(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsal.rehearse(request(checkpoint))
    # Whatever the user's shell and Keras's own file say (`host/process_environment.py`).
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text('{"image_data_format": "channels_first", "epsilon": 1}')
    shell = {"HOME": str(tmp_path), "KERAS_BACKEND": "torch", "KERAS_NNX_ENABLED": "1", "PYTHONWARNINGS": "error"}
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"--trainable_scopes: no layer of hanzi_net begins with 'zzz'"):
        calls.call(
            "tfos_job.training.rehearsal",
            request(checkpoint, trainable_scopes=("zzz",)),
            name="rehearsal",
            if_killed="?",
        )


LIGHT = """
import os, signal
from tfos_job import errors
from tfos_job.host import calls

def work(request):
    if request == "refuse":
        raise errors.BadDataError("torn", place="a.h5", next_step="Restore it")
    if request == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    assert request == "work"

if __name__ == "__main__":
    calls.answer(work)
"""


def test_what_a_process_aside_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "light.py").write_text(LIGHT)
    monkeypatch.syspath_prepend(tmp_path)
    ask = functools.partial(calls.call, "light", name="the helper", if_killed="Give it more memory")
    ask("work")
    with pytest.raises(BadDataError, match="torn") as caught:
        ask("refuse")
    assert (caught.value.place, caught.value.next_step) == ("a.h5", "Restore it")
    with pytest.raises(NodeDiedError, match=r"the helper was killed by SIGKILL.*Give it more memory"):
        ask("die")
    with pytest.raises(JobError, match=r"(?s)^Traceback.*AssertionError.*This is a bug"):
        ask("something else")
    with pytest.raises(JobError, match=r"(?s)the helper ended with exit code 1: .*module named nobody.*This is a bug"):
        calls.call("nobody", "work", name="the helper", if_killed="?")
