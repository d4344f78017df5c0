"""Inception-V3 with the weights that others have trained: a file of Keras's, or a checkpoint of TF-Slim's.

Both hold the same network. Their convolutions have the order of their creation: in Keras that of the layers, in
TF-Slim that of the names, since `Mixed_5b/Branch_1/Conv2d_0a_1x1` is before `Conv2d_0b_5x5`. TF-Slim counts a class 0,
the background, so it has 1,001 classes of ImageNet, and `keras.applications` 1,000.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfos_job import storage
from tfos_job.config.defaults import IMAGES, KERAS_SUFFIXES
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats.charset import Charset
from tfos_job.formats.slim_labels import BACKGROUND, distinct, parse_labels
from tfos_job.networks import registry
from tfos_job.networks.inception_v3 import CONVOLUTIONS
from tfos_job.networks.keras_file import require_own_numbers
from tfos_job.networks.variables import MODEL_PREFIX, model_variables
from tfos_job.run.checkpoint_files import Arrays, CheckpointInfo

MODEL_NAME = "inception_v3"
NUM_CHANNELS = 3
BACKBONE = "backbone"
_KERAS_HEADS = (b"\x89HDF\r\n\x1a\n", b"PK\3\4")
_SCOPE = "InceptionV3/"
_CONVOLUTION = re.compile(rf"({_SCOPE}(?:Conv2d|Mixed)_.*)/weights")
_LOGITS = _SCOPE + "Logits/Conv2d_1c_1x1/"
_NEXT_STEP = "Give a file that Keras has written for keras.applications.InceptionV3, or a TF-Slim checkpoint's prefix"


def read(weights: str, labels: str, image_size: int) -> tuple[CheckpointInfo, Arrays]:
    """Weights and names as a checkpoint of a run on photographs would have them.

    Args:
      weights: a file that ends in `.h5` or `.keras`, or the prefix of a TensorFlow checkpoint; local or remote.
      labels: a list of the classes' names: `ID:NAME` in each line, or a name in each. It may have a class 0, the
        background, that the weights have not, or lack it.
      image_size: S, in pixels, 75 or more.

    Raises:
      MissingInputError: a file is not there.
      BadDataError: the weights are damaged, or of another network.
      SettingsError: they have another number of classes; or what is no list of names.
    """
    names = _names(labels)
    model: dict[str, Any] = {"model_name": MODEL_NAME, "num_classes": len(names), "image_size": image_size}
    model |= {"num_channels": NUM_CHANNELS, "keep_prob": 1.0}
    with _local_copy(weights) as (path, sha256):
        load = _load_keras if path.endswith(KERAS_SUFFIXES) else _load_slim
        built, kernel, bias = load(path, weights, len(names), lambda: registry.build(**model, seed=0))
    num_classes = len(bias)
    model["num_classes"] = num_classes
    if num_classes != len(names):
        names = [BACKGROUND, *names] if num_classes > len(names) else names[1:]
    classes = Charset(distinct(names))
    document = {
        "step": 0,
        "model": model,
        "characters": list(classes.characters),
        "charset_digest": classes.digest,
        "dataset_name": IMAGES,
        "dataset_digest": "",
        "metrics": {},
        "document_sha256": sha256,
    }
    arrays = {name: variable.numpy() for name, variable in model_variables(built).items()}
    arrays |= {f"{MODEL_PREFIX}logits/kernel": kernel, f"{MODEL_PREFIX}logits/bias": bias}
    return CheckpointInfo(weights, document), arrays


def _names(labels: str) -> list[str]:
    try:
        text = storage.read_bytes(labels).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"not UTF-8: {error}", place=labels, next_step="Save the names as UTF-8") from error
    found = parse_labels(text, labels).names
    last = max(found)
    return [found.get(class_id, str(class_id) if class_id else BACKGROUND) for class_id in range(last + 1)]


@contextlib.contextmanager
def _local_copy(weights: str) -> Iterator[tuple[str, str]]:
    """Yields the local path of a file or of a checkpoint's prefix, and the SHA-256 over its files."""
    folder, _, name = weights.rpartition("/")
    files = [
        entry
        for entry in storage.list_dir(folder or ("/" if weights.startswith("/") else "."))
        if not entry.is_dir and (entry.name == name or entry.name.startswith((f"{name}.index", f"{name}.data-")))
    ]
    if not files:
        raise MissingInputError("no such file, and no checkpoint of that prefix", place=weights, next_step=_NEXT_STEP)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix="tfos_job-") as copies:
        for entry in files:
            digest.update(storage.download(entry.path, f"{copies}/{entry.name}").encode())
        yield f"{copies}/{name}", digest.hexdigest()


_Build = Callable[[], keras.Model]  # which takes seconds: the file is looked at before
_Loaded = tuple[keras.Model, np.ndarray, np.ndarray]
"""The network, with the weights of its backbone, and of its logits kernel [2048, C] and bias [C]."""


def _load_keras(path: str, place: str, num_names: int, build: _Build) -> _Loaded:
    with open(path, "rb") as file:
        if not file.read(8).startswith(_KERAS_HEADS):
            fact = f"not weights of {MODEL_NAME}: neither HDF5 nor Keras's own form"
            raise BadDataError(fact, place=place, next_step=_NEXT_STEP)
    network = build()
    backbone = network.get_layer(BACKBONE)
    missing = {layer.name for layer in backbone.layers if hasattr(layer, "kernel")}
    try:
        require_own_numbers(path, place)
        # Lists of names with a background are common, and weights with one are not.
        for num_classes in (num_names, max(num_names - 1, 1), num_names + 1):
            logits = keras.layers.Dense(num_classes, name="logits")
            # As keras.applications has it: one network of the same layers, in the same order.
            whole = keras.Model(backbone.input, logits(backbone.output))
            loaded = _load_what_fits(whole, path)
            missing -= loaded
            if missing:
                raise BadDataError(f"it has no weights for {min(missing)}", place=place, next_step=_NEXT_STEP)
            if logits.name in loaded:
                return network, logits.kernel.numpy(), logits.bias.numpy()
    except (OSError, ValueError, KeyError) as error:  # what h5py, zipfile and Keras make of other files
        raise BadDataError(f"not weights of {MODEL_NAME}: {error}", place=place, next_step=_NEXT_STEP) from error
    raise _other_classes(place, "other", num_names)


def _load_what_fits(model: keras.Model, path: str) -> set[str]:
    """Loads a file; returns the layers whose kernels are others now: fresh ones are random."""
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    before = [layer.kernel.numpy() for layer in layers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers that do not fit
        model.load_weights(path, skip_mismatch=True)
    pairs = zip(layers, before, strict=True)
    return {layer.name for layer, kernel in pairs if not np.array_equal(layer.kernel.numpy(), kernel)}


def _load_slim(path: str, place: str, num_names: int, build: _Build) -> _Loaded:
    blocks = [block for block, count in CONVOLUTIONS.items() for _ in range(count)]
    try:
        reader = tf.train.load_checkpoint(path)
        shapes = reader.get_variable_to_shape_map()
        found = sorted(match[1] for name in shapes if (match := _CONVOLUTION.fullmatch(name)))
        if len(found) != len(blocks) or f"{_LOGITS}weights" not in shapes:
            fact = f"{len(found)} of the {len(blocks)} convolutions of TF-Slim's {MODEL_NAME} are there"
            raise BadDataError(fact, place=place, next_step=_NEXT_STEP)
        num_classes = shapes[f"{_LOGITS}weights"][-1]
        if abs(num_classes - num_names) > 1:
            raise _other_classes(place, str(num_classes), num_names)
        network = build()
        backbone = network.get_layer(BACKBONE)
        for number, (block, name) in enumerate(zip(blocks, found, strict=True)):
            norm = backbone.get_layer(f"{block}_batch_normalization_{number}")
            backbone.get_layer(f"{block}_conv2d_{number}").kernel.assign(reader.get_tensor(f"{name}/weights"))
            for part in ("beta", "moving_mean", "moving_variance"):
                getattr(norm, part).assign(reader.get_tensor(f"{name}/BatchNorm/{part}"))
        kernel, bias = (reader.get_tensor(_LOGITS + part) for part in ("weights", "biases"))
    except (tf.errors.OpError, ValueError, RuntimeError) as error:  # ValueError: of another shape
        fact = f"not a TensorFlow checkpoint of {MODEL_NAME}: {error}"
        raise BadDataError(fact, place=place, next_step=_NEXT_STEP) from error
    return network, kernel.reshape(-1, num_classes), bias


def _other_classes(place: str, fact: str, num_names: int) -> SettingsError:
    return SettingsError(
        f"the weights have {fact} classes, --labels names {num_names}",
        place=place,
        next_step="Give the names of the classes that they were trained on; class 0, the background, may be left out",
    )
