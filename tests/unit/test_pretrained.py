"""Inception-V3 with weights of other programs, which the tests make, from a file to an answer about a photograph."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.unit.small_checkpoints import model_arrays
from tfos_job import cli
from tfos_job.commands import export as commands
from tfos_job.config import ExportConfig, ServeConfig
from tfos_job.errors import BadDataError, FlagError, InterruptedJobError, JobError, MissingInputError, SettingsError
from tfos_job.formats.form import Form
from tfos_job.inference.predictor import Predictor
from tfos_job.input.decoding import preprocess
from tfos_job.local_jobs.serve import serve
from tfos_job.networks import pretrained, registry
from tfos_job.run import exports
from tfos_job.run.checkpoint_files import Arrays, CheckpointInfo

NAMES = ("tench", "crane", "crane", "ocean liner", "panda", "beaker")
DISTINCT = ["tench", "crane (1)", "crane (2)", "ocean liner", "panda", "beaker"]
SIDE = 75

# TF-Slim's names of the convolutions, in the order in which its graph has them.
_MIXED_5 = (
    "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_5x5 2/Conv2d_0a_1x1 2/Conv2d_0b_3x3 2/Conv2d_0c_3x3 3/Conv2d_0b_1x1"
)
_MIXED_6 = (
    "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_1x7 1/Conv2d_0c_7x1 2/Conv2d_0a_1x1 2/Conv2d_0b_7x1 2/Conv2d_0c_1x7 "
    "2/Conv2d_0d_7x1 2/Conv2d_0e_1x7 3/Conv2d_0b_1x1"
)
_MIXED_7 = (
    "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_1x3 1/Conv2d_0{}_3x1 2/Conv2d_0a_1x1 2/Conv2d_0b_3x3 2/Conv2d_0c_1x3 "
    "2/Conv2d_0d_3x1 3/Conv2d_0b_1x1"
)
BLOCKS = {
    "5b": _MIXED_5,
    "5c": _MIXED_5.replace("1/Conv2d_0a_1x1 1/Conv2d_0b_5x5", "1/Conv2d_0b_1x1 1/Conv_1_0c_5x5"),
    "5d": _MIXED_5,
    "6a": "0/Conv2d_1a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_3x3 1/Conv2d_1a_1x1",
    **dict.fromkeys(("6b", "6c", "6d", "6e"), _MIXED_6),
    "7a": "0/Conv2d_0a_1x1 0/Conv2d_1a_3x3 1/Conv2d_0a_1x1 1/Conv2d_0b_1x7 1/Conv2d_0c_7x1 1/Conv2d_1a_3x3",
    "7b": _MIXED_7.format("b"),
    "7c": _MIXED_7.format("c"),
}
SLIM_NAMES = [
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *(f"Mixed_{block}/Branch_{name}" for block, names in BLOCKS.items() for name in names.split()),
]


@pytest.fixture(scope="module")
def full() -> keras.Model:
    """The network of keras.applications, whose statistics are not the first ones."""
    shape = (SIDE, SIDE, 3)
    model = keras.applications.InceptionV3(
        weights=None, classes=len(NAMES), classifier_activation=None, input_shape=shape
    )
    draw = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(draw.normal(0.1, 0.1, layer.beta.shape))
            layer.moving_mean.assign(draw.normal(0, 0.1, layer.beta.shape))
            layer.moving_variance.assign(draw.uniform(0.5, 1.5, layer.beta.shape))
    return model


@pytest.fixture(scope="module")
def folder(full: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights in both forms, and lists of names."""
    folder = tmp_path_factory.mktemp("weights")
    write_older_form(full, folder / "inception.h5")
    write_slim(full, str(folder / "inception_v3.ckpt"))
    for name, names in (("6", NAMES), ("7", ("dummy", *NAMES)), ("9", [f"n{number}" for number in range(9)])):
        (folder / f"{name}.txt").write_text("\n".join(names), "utf-8")
    return folder


def write_older_form(model: keras.Model, path: Path) -> None:
    """As keras.applications hands them out: the layers in their order, under names of another process."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if layer.weights]
        file.attrs["layer_names"] = [f"of_old_{layer.name}".encode() for layer in layers]
        for layer in layers:
            group = file.create_group(f"of_old_{layer.name}")
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()


def write_slim(model: keras.Model, prefix: str) -> None:
    """With the class 0 of TF-Slim, its auxiliary logits and its step."""
    convolutions = by_creation(model, keras.layers.Conv2D)
    norms = by_creation(model, keras.layers.BatchNormalization)
    tensors = {}
    for name, convolution, norm in zip(SLIM_NAMES, convolutions, norms, strict=True):
        tensors[f"InceptionV3/{name}/weights"] = convolution.kernel
        for part in ("beta", "moving_mean", "moving_variance"):
            tensors[f"InceptionV3/{name}/BatchNorm/{part}"] = getattr(norm, part)
    kernel, bias = (weight.numpy() for weight in model.layers[-1].weights)
    tensors["InceptionV3/Logits/Conv2d_1c_1x1/weights"] = np.insert(kernel, 0, 0, axis=1)[None, None]
    tensors["InceptionV3/Logits/Conv2d_1c_1x1/biases"] = np.insert(bias, 0, -5)
    tensors["InceptionV3/AuxLogits/Conv2d_1b_1x1/weights"] = np.zeros((1, 1, 8, 8), np.float32)
    tensors["global_step"] = np.int64(3)
    values = [tf.convert_to_tensor(tensor) for tensor in tensors.values()]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=list(tensors), shape_and_slices=[""] * len(tensors), tensors=values)


def by_creation(model: keras.Model, kind: type) -> list[keras.layers.Layer]:
    """The layers of a kind by Keras's number."""
    own = [layer for layer in model.layers if isinstance(layer, kind)]
    return sorted(own, key=lambda layer: [int(part) for part in re.findall(r"_(\d+)$", layer.name)])


def photograph() -> np.ndarray:
    draw = np.random.default_rng(3)
    coarse = draw.integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((240, 180), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def of_keras(folder: Path) -> tuple[CheckpointInfo, Arrays]:
    """With a name for a class 0 that the weights have not."""
    return pretrained.read(str(folder / "inception.h5"), str(folder / "7.txt"), SIDE)


def test_a_photograph_is_answered_with_the_names_of_its_classes(
    full: keras.Model, of_keras: tuple[CheckpointInfo, Arrays]
) -> None:
    pixels = photograph()
    (answer,) = Predictor.restored(*of_keras).predict([pixels], top_k=9)
    seen = preprocess(tf.constant(pixels[np.newaxis]), Form(image_size=SIDE, num_channels=3, antialias=True))
    expected = tf.nn.softmax(full(tf.cast(seen, tf.float32) / 127.5 - 1, training=False))[0].numpy()
    assert {guess["class_id"]: guess["probability"] for guess in answer["top"]} == pytest.approx(
        dict(enumerate(expected.tolist())), abs=1e-4
    )
    assert np.ptp(expected) > 0.01
    names = {guess["class_id"]: guess["character"] for guess in answer["top"]}
    assert [names[class_id] for class_id in range(6)] == DISTINCT


def test_a_checkpoint_of_tf_slim_is_the_same_network_with_a_background(
    folder: Path, of_keras: tuple[CheckpointInfo, Arrays]
) -> None:
    slim, arrays = pretrained.read(str(folder / "inception_v3.ckpt"), str(folder / "6.txt"), SIDE)
    info, expected = of_keras
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        found = array[..., 1:] if "logits" in name else array
        np.testing.assert_array_equal(found, expected[name], err_msg=name)
    assert info.characters == DISTINCT
    assert list(slim.characters) == ["background", "tench", "crane (2)", "crane (3)", *DISTINCT[3:]]
    assert (info.model["num_classes"], slim.model["num_classes"]) == (6, 7)


def test_it_is_exported_without_a_run_and_names_an_uploaded_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the command, with a smaller network in its place."""
    monkeypatch.chdir(tmp_path)
    for name in ("w.h5", "l.txt"):
        Path(name).touch()
    model = {"model_name": "chinese_rec", "num_classes": 2, "image_size": 8, "num_channels": 3, "keep_prob": 1.0}
    made = registry.build(**model, seed=1)
    document = {"step": 0, "model": model, "characters": ["cat", "big dog"], "dataset_name": "images", "metrics": {}}
    document |= {"charset_digest": "", "dataset_digest": "", "document_sha256": "of the file"}
    asked = []

    def read(*arguments: object) -> tuple[CheckpointInfo, Arrays]:
        asked.append(arguments)
        return CheckpointInfo("w.h5", document), model_arrays(made)

    monkeypatch.setattr(pretrained, "read", read)
    command = ["export", "--model_name", "inception_v3", "--weights", "w.h5", "--labels", "l.txt", "--export_dir"]
    assert cli.main([*command, str(tmp_path / "e")]) == 0
    assert '"already_exported": false' in capfd.readouterr().out
    assert cli.main([*command, str(tmp_path / "e"), "--image_size", "75"]) == 0
    assert '"already_exported": true' in capfd.readouterr().out
    assert asked == [("w.h5", "l.txt", 299), ("w.h5", "l.txt", 75)]
    exported = exports.read(str(tmp_path / "e" / "1"))
    assert (exported.classes, exported.on_paper, exported.step) == (("cat", "big dog"), False, 0)
    assert exported.document["checkpoint"] == os.path.abspath("w.h5")

    stream = io.BytesIO()
    Image.fromarray(photograph()).save(stream, "JPEG")
    answers = []

    def ask(ready: dict[str, Any]) -> None:
        """Asks the server that is ready, and ends it."""
        answers.append(upload(f"{ready['url']}predict", "holiday.jpg", stream.getvalue()))
        raise KeyboardInterrupt

    with pytest.raises(InterruptedJobError, match="no request is left without an answer"):
        serve(ServeConfig(export_dir=str(tmp_path / "e"), port=0), emit=ask, write=lambda line: None)
    (answer,) = answers[0]["predictions"]
    expected = Predictor.restored(*read()).predict([stream.getvalue()])[0]
    assert answer["image"] == "holiday.jpg"
    found, wanted = ({guess["character"]: guess["probability"] for guess in each["top"]} for each in (answer, expected))
    assert found.keys() == {"cat", "big dog"}
    assert found == pytest.approx(wanted, abs=1e-4)


def upload(url: str, name: str, data: bytes) -> Any:
    """The answer about a file of a form."""
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    request = urllib.request.Request(url, head.encode() + data + b"\r\n--x--\r\n")
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return json.load(response)


def test_what_is_no_weights_of_this_network_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.h5").write_bytes(b"nothing of the kind")
    (tmp_path / "bad.ckpt").write_bytes(b"nothing of the kind")
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "other.ckpt"), tensor_names=["x"], shape_and_slices=[""], tensors=[1.0])
    cases: list[tuple[Path, str, type[JobError], str]] = [
        (tmp_path / "bad.h5", "6", BadDataError, "not weights of inception_v3: "),
        (tmp_path / "bad.ckpt", "6", BadDataError, "not a TensorFlow checkpoint of inception_v3: "),
        (tmp_path / "other.ckpt", "6", BadDataError, "0 of the 94 convolutions of TF-Slim's inception_v3 are there"),
        (tmp_path / "none.ckpt", "6", MissingInputError, "no such file, and no checkpoint of that prefix"),
        (folder / "inception_v3.ckpt", "9", SettingsError, "the weights have 7 classes, --labels names 9"),
    ]
    for path, names, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            pretrained.read(str(path), str(folder / f"{names}.txt"), SIDE)
        assert caught.value.place == str(path)


def test_flags_of_a_network_without_a_run_belong_together(folder: Path) -> None:
    labels = str(folder / "6.txt")
    given = {"model_name": "inception_v3", "weights": str(folder / "inception_v3.ckpt"), "labels": labels}
    config = ExportConfig(export_dir="e", **given)
    commands.check(config)
    for change in ({"labels": "none.txt"}, {"weights": "none.h5"}):
        with pytest.raises(MissingInputError, match=r"^none\."):
            commands.check(dataclasses.replace(config, **change))
    assert commands.size_of_work(config).network.num_classes == 1001
    for missing in ("model_name", "labels"):
        with pytest.raises(SettingsError, match=rf"^--{missing}: needed with --weights"):
            ExportConfig(export_dir="e", **{name: value for name, value in given.items() if name != missing})
    with pytest.raises(FlagError, match="--train_dir or --weights: one of them is needed"):
        ExportConfig(export_dir="e", model_name="inception_v3", labels=labels)
    with pytest.raises(SettingsError, match=r"^--labels: given without --weights"):
        ExportConfig(export_dir="e", train_dir="run", labels="l")
    with pytest.raises(SettingsError, match=r"^--weights: given together with --train_dir"):
        dataclasses.replace(config, train_dir="run")
    for other in ("mine:build", "hanzi_net"):
        with pytest.raises(SettingsError, match=rf"^--model_name {other}: takes no weights of others"):
            dataclasses.replace(config, model_name=other)
        assert ExportConfig(export_dir="e", train_dir="run", model_name=other).model_name == other
    with pytest.raises(FlagError, match="one of them is needed"):
        ExportConfig(export_dir="e")
