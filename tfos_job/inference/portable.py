"""A network as TFLite and ONNX files, by Keras's own exporters, and the proof that they answer as the checkpoint does.

They take batches of grey levels and give the probabilities of all classes: decoding, resizing and names are not in
them, since neither runtime has them everywhere. This module is the one door to the packages of the extras `tflite` and
`onnx`.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfos_job.config.defaults import ONNX, TFLITE
from tfos_job.errors import JobError
from tfos_job.formats.form import Form
from tfos_job.inference.graph import IMAGES, PROBABILITIES
from tfos_job.inference.parity import batches, parity
from tfos_job.inference.saved_model import all_classes_signature
from tfos_job.input.decoding import LEVEL

_FILES = {TFLITE: "model.tflite", ONNX: "model.onnx"}


def write(folder: str, name: str, model: keras.Model, num_classes: int, form: Form) -> dict[str, Any]:
    """Writes a network to a local folder.

    Args:
      folder: of the version.
      name: `tflite` or `onnx`.
      model: of `networks.variables.restore_model`.
      num_classes: of the network.
      form: of its images.

    Returns:
      Its entry in `export.json`: the file, inputs and outputs.

    Raises:
      JobError: the network has an operation that the format has not.
    """
    whole, path = _whole(model, form), os.path.join(folder, _FILES[name])
    try:
        if name == TFLITE:
            # No `SELECT_TF_OPS`, which Keras would allow: the runtime alone has none of TensorFlow's kernels.
            builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
            whole.export(path, format="litert", verbose=False, target_spec=builtins)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # Keras asks whether numpy has an old name
                of_levels = tf.TensorSpec([None, *form.shape], tf.float32, name=IMAGES)
                whole.export(path, format="onnx", verbose=False, input_signature=[of_levels])
    except Exception as error:  # of the converters: whatever a user's own network makes them raise
        fact = (str(error).strip() or type(error).__name__).splitlines()[-1].rstrip(".")
        raise JobError(
            f"the network cannot be converted to {name}: {fact}",
            next_step=f"Leave {name} out of --formats",
        ) from error
    return {"file": _FILES[name], **all_classes_signature(form, num_classes)}


def prove(folder: str, name: str, images: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Compares the answers of a file, in its own runtime, about images, uint8 [n, S, S, C].

    Args:
      folder: of the version.
      name: `tflite` or `onnx`.
      images: n ≥ 1.
      expected: float32 [n, num_classes], of the checkpoint.

    Returns:
      The entry `parity` of `export.json`.

    Raises:
      JobError: an answer differs.
    """
    path = os.path.join(folder, _FILES[name])
    answer = _tflite(path) if name == TFLITE else _onnx(path)
    return parity(name, expected, np.concatenate([answer(part.astype(np.float32)) for part in batches(images)]))


def _whole(model: keras.Model, form: Form) -> keras.Model:
    """From grey levels, float32 [n, S, S, C] from 0 to 255, to probabilities."""
    images = keras.Input(form.shape, name=IMAGES, dtype="float32")
    logits = model(keras.layers.Rescaling(LEVEL, name="levels")(images))
    return keras.Model(images, {PROBABILITIES: keras.layers.Softmax(name=PROBABILITIES)(logits)}, name="exported")


def _tflite(path: str) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(path).get_signature_runner()
    return lambda images: run(**{IMAGES: images})[PROBABILITIES]


def _onnx(path: str) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([PROBABILITIES], {IMAGES: images})[0]
