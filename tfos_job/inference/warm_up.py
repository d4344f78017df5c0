"""The warm-up requests of TensorFlow Serving, which answers them before it answers anybody else.

`assets.extra/tf_serving_warmup_requests` is a TFRecord of `PredictionLog`s (https://www.tensorflow.org/tfx/serving/
saved_model_warmup). These are messages of TensorFlow Serving's own API, of which four are needed, with a few fields
each; so they are written here by the writer of `tf.train.Example`s, and need no further package:

    PredictionLog  { PredictLog predict_log = 6; }
    PredictLog     { PredictRequest request = 1; }
    PredictRequest { ModelSpec model_spec = 1; map<string, TensorProto> inputs = 2; }
    ModelSpec      { string name = 1; string signature_name = 3; }

(prediction_log.proto, predict.proto, model.proto of tensorflow/serving.) A map is a list of entries: key 1, value 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfos_job.formats.tf_example import field
from tfos_job.formats.tfrecord import write_record

FILE = "assets.extra/tf_serving_warmup_requests"
_MODEL_NAME = "default"  # not looked at: the requests are of the model beside them


class WarmUp(NamedTuple):
    """A request: the signature, the name of its input, and the input."""

    signature: str
    name: str
    value: np.ndarray


def write_requests(folder: str, requests: Iterable[WarmUp]) -> None:
    """Writes the file below the local folder of a SavedModel."""
    path = os.path.join(folder, FILE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        for request in requests:
            write_record(stream, prediction_log(request))


def prediction_log(request: WarmUp) -> bytes:
    """A serialized `PredictionLog`."""
    model_spec = field(1, _MODEL_NAME.encode()) + field(3, request.signature.encode())
    tensor = tf.make_tensor_proto(request.value).SerializeToString(deterministic=True)
    entry = field(1, request.name.encode()) + field(2, tensor)
    return field(6, field(1, field(1, model_spec) + field(2, entry)))
