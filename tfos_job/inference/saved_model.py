"""A SavedModel, written and loaded: `inference/graph.py` is what is in it."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tfos_job.config.defaults import SAVED_MODEL
from tfos_job.formats.form import Form
from tfos_job.inference import graph_check
from tfos_job.inference.graph import (
    ALL_CLASSES,
    CLASSES,
    ENCODED,
    IDS,
    IMAGES,
    LEVELS,
    PROBABILITIES,
    ExportedNetwork,
    Function,
)
from tfos_job.inference.parity import batches, parity
from tfos_job.inference.warm_up import WarmUp, write_requests
from tfos_job.run import exports
from tfos_job.run.exports import ExportInfo

_OWN = (
    "In a network of your own, leave that operation to what is before the network: layers of Keras's need no such one"
)
_VARIABLES = "variables"  # tables of numbers, which are read by TensorFlow's own reader


def write(folder: str, model: keras.Model, classes: Sequence[str], form: Form, top_k: int) -> dict[str, Any]:
    """Writes a network as a SavedModel, with warm-up requests, to an empty local folder.

    Args:
      folder: local.
      model: of `networks.variables.restore_model`.
      classes: the characters, or names, of the classes in the order of their ids.
      form: of the network's images.
      top_k: k, at most the number of classes.

    Returns:
      Its entry in `export.json`: the signatures.
    """
    ExportedNetwork(model, classes, form, top_k).save(folder)
    blank = np.full((1, *form.shape), 255, np.uint8)
    write_requests(
        folder,
        [
            WarmUp(ENCODED, IMAGES, np.array([encoded(blank[0])], object)),
            WarmUp(LEVELS, IMAGES, blank.astype(np.float32)),
            WarmUp(ALL_CLASSES, IMAGES, blank.astype(np.float32)),
        ],
    )
    return {"signatures": _signatures(form, top_k, len(classes))}


def load(info: ExportInfo) -> Function:
    """Loads the network of a version whose files are whole, if it does nothing but compute, and nothing else of it.

    Returns:
      A function of float32 [n, S, S, C], levels from 0 to 255, that returns float32 [n, num_classes].

    Raises:
      BadDataError: a file is missing or another; or the graph is none that this package makes (`graph_check.py`).
    """
    with exports.local_files(info) as folder:
        loaded = _loaded(folder, info.path)

    def probabilities(images: tf.Tensor) -> tf.Tensor:
        return loaded.signatures[ALL_CLASSES](images=images)[PROBABILITIES]  # it lives as long as `loaded`

    return probabilities


def prove(folder: str, images: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Loads a SavedModel and compares its answers about images, uint8 [n, S, S, C], by all its signatures.

    Args:
      folder: local.
      images: n ≥ 1.
      expected: float32 [n, num_classes], of the checkpoint.

    Returns:
      The entry `parity` of `export.json`.

    Raises:
      BadDataError: the network has an operation with which no export is loaded (`graph_check.py`).
      JobError: an answer differs.
    """
    proofs = [parity(SAVED_MODEL, expected, found) for found in answers(folder, "the exported network", images, _OWN)]
    return max(proofs, key=lambda proof: float(proof["largest_difference"]))


def answers(folder: str, place: str, images: np.ndarray, next_step: str = graph_check.NEXT_STEP) -> np.ndarray:
    """Loads a SavedModel and asks all its signatures.

    Args:
      folder: local.
      place: of the network, for errors.
      images: uint8 [n, S, S, C], n ≥ 1.
      next_step: what to do about an operation with which no export is loaded.

    Returns:
      The probabilities of all classes, float32 [3, n, num_classes]; what two of the signatures do not answer, because
      it is not among the k most probable classes, is as the third one has it.

    Raises:
      BadDataError: the network has an operation with which no export is loaded (`graph_check.py`).
    """
    signatures = _loaded(folder, place, next_step).signatures
    return np.concatenate([_of_batch(signatures, batch) for batch in batches(images)], axis=1)


def _loaded(folder: str, place: str, next_step: str = graph_check.NEXT_STEP) -> Any:
    """What TensorFlow makes of the graph of a local folder, once it was looked at, and of the variables beside it."""
    graph = graph_check.read(folder, place, next_step)
    with tempfile.TemporaryDirectory(prefix="tfos_job-") as aside:  # nothing else of the folder is there to be read
        with open(os.path.join(aside, graph_check.FILE), "wb") as stream:
            stream.write(graph)
        os.symlink(os.path.join(os.path.abspath(folder), _VARIABLES), os.path.join(aside, _VARIABLES))
        return tf.saved_model.load(aside)


def _of_batch(signatures: Mapping[str, Callable[..., Any]], images: np.ndarray) -> np.ndarray:
    """The probabilities of all classes by each signature, [3, n, num_classes]; the first fills up the others."""
    files = tf.constant([encoded(image) for image in images])
    levels = tf.constant(images, tf.float32)
    of_all = signatures[ALL_CLASSES](images=levels)[PROBABILITIES].numpy()
    found = np.stack([of_all] * 3)
    answers = signatures[LEVELS](images=levels), signatures[ENCODED](images=files)
    for row, answer in zip(found[1:], answers, strict=True):
        np.put_along_axis(row, answer[IDS].numpy(), answer[PROBABILITIES].numpy(), axis=1)
    return found


def encoded(image: np.ndarray) -> bytes:
    """An image, uint8 [h, w, C], as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def _signatures(form: Form, top_k: int, num_classes: int) -> dict[str, Any]:
    """Names, types, shapes and units of inputs and outputs, by signature; -1 is the number of images."""
    files = _tensor("string", [-1], "bytes of a PNG, JPEG or GIF, upright and without transparent parts")
    answer = {
        CLASSES: _tensor("string", [-1, top_k], "characters or names, UTF-8, the most probable first"),
        IDS: _tensor("int64", [-1, top_k], "positions in `classes` of export.json"),
        PROBABILITIES: _tensor("float32", [-1, top_k], "softmax"),
    }
    return {
        ENCODED: {"inputs": {IMAGES: files}, "outputs": answer},
        LEVELS: {"inputs": {IMAGES: _levels(form)}, "outputs": answer},
        ALL_CLASSES: all_classes_signature(form, num_classes),
    }


def all_classes_signature(form: Form, num_classes: int) -> dict[str, Any]:
    """From levels to the probabilities of all classes."""
    of_all = _tensor("float32", [-1, num_classes], "softmax, by class id")
    return {"inputs": {IMAGES: _levels(form)}, "outputs": {PROBABILITIES: of_all}}


def _levels(form: Form) -> dict[str, Any]:
    return _tensor("float32", [-1, *form.shape], "grey levels or RGB, 0 black to 255 white")


def _tensor(dtype: str, shape: list[int], unit: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "unit": unit}
