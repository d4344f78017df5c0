"""A network with all that is before and after it, as one graph that needs nothing of this package: what is exported.

::

    encoded images, string [n] ── decode, luma or colour ── resize, round ─┐
    grey levels, float32 [n, S, S, C] ─────────────────────────────────────┴─ × 1/255 ─ normalize ─ network ─ top k

The functions are those of training and evaluation (`input/decoding.py`, `networks/variables.py`). docs/formats.md says
what is before the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfos_job.formats.form import Form
from tfos_job.input.decoding import LEVEL, decode_files

Function = Callable[[tf.Tensor], tf.Tensor]

ENCODED, LEVELS, ALL_CLASSES = "serving_default", "levels", "all_classes"
"""The signatures."""
IMAGES = "images"
"""The one input of each signature."""
CLASSES, IDS, PROBABILITIES = "classes", "ids", "probabilities"
"""The outputs. None ends in `_bytes`: TensorFlow Serving's REST would send its strings in base64."""

_MEMBERS = "_classes _probabilities all_classes answer_encoded answer_levels network_variables signatures"
OBJECTS = frozenset([ENCODED, LEVELS, ALL_CLASSES, *_MEMBERS.split()])
"""The members of `ExportedNetwork` and of its signatures, as a SavedModel names them."""


def network_function(model: keras.Model, form: Form) -> Function:
    """A network as one graph, from grey levels to the probabilities of its classes.

    Called as it is, Keras takes several times as long for a single image.

    Args:
      model: of `networks.variables.restore_model`.
      form: of its images.

    Returns:
      A function of float32 [n, S, S, C], levels from 0 to 255, that returns float32 [n, num_classes].
    """

    def probabilities(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(model(images * LEVEL, training=False))

    return tf.function(probabilities, [tf.TensorSpec([None, *form.shape], tf.float32)])


class ExportedNetwork(tf.Module):
    """What `tf.saved_model.save` writes.

    Args:
      model: of `networks.variables.restore_model`.
      classes: the characters, or names, of the classes in the order of their ids.
      form: of the network's images.
      top_k: k, at most the number of classes.
    """

    def __init__(self, model: keras.Model, classes: Sequence[str], form: Form, top_k: int) -> None:
        super().__init__(name="tfos_job")
        # The variables themselves, and not Keras's objects around them: whoever loads it may have no Keras.
        self.network_variables = [variable.value for variable in model.variables]
        self._form = form
        self._top_k = top_k
        self._classes = [name.encode() for name in classes]
        self._probabilities = network_function(model, form)
        of_levels = tf.TensorSpec([None, *form.shape], tf.float32, name=IMAGES)
        self.answer_encoded = tf.function(self._answer_encoded, [tf.TensorSpec([None], tf.string, name=IMAGES)])
        self.answer_levels = tf.function(self._answer_levels, [of_levels])
        self.all_classes = tf.function(self._all_classes, [of_levels])

    def save(self, folder: str) -> None:
        """Writes the SavedModel to a local folder."""
        signatures = {ENCODED: self.answer_encoded, LEVELS: self.answer_levels, ALL_CLASSES: self.all_classes}
        tf.saved_model.save(self, folder, signatures=signatures)

    def _answer_encoded(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The answer about files, string [n]; see `_answer_levels`."""
        return self._answer_levels(tf.cast(decode_files(images, self._form), tf.float32))

    def _answer_levels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The answer about float32 [n, S, S, C]: the k most probable classes, the most probable first, each [n, k]."""
        top = tf.math.top_k(self._probabilities(images), k=self._top_k)
        names = tf.gather(tf.constant(self._classes, tf.string), top.indices)
        return {CLASSES: names, IDS: tf.cast(top.indices, tf.int64), PROBABILITIES: top.values}

    def _all_classes(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Float32 [n, num_classes] for float32 [n, S, S, C]."""
        return {PROBABILITIES: self._probabilities(images)}
