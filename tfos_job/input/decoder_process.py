"""The process that says what training sees in picture files (`decoder.py`); it decodes as training does."""

from __future__ import annotations

import contextlib
import os
import socket

import numpy as np
import tensorflow as tf

from tfos_job.formats.decoder import ANSWER, QUESTION, digest
from tfos_job.host.parent import Parent
from tfos_job.input.decoding import decode_file

_COLOURS = 3  # grey pictures as well: three equal channels


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.string)],
    autograph=False,  # it would leave a file behind: this process does not wait for the end of its libraries
)
def _pixels(data: tf.Tensor, image_format: tf.Tensor) -> tf.Tensor:
    return decode_file(data, image_format, _COLOURS)


def pixels(data: bytes, image_format: str) -> np.ndarray:
    """What training sees in a file, uint8 [h, w, 3].

    Raises:
      ValueError: it is none that TensorFlow decodes.
    """
    try:
        return _pixels(tf.constant(data), tf.constant(image_format)).numpy()
    except tf.errors.OpError as error:
        fact = error.message.partition("\n\t [[")[0].rpartition("\n")[2]  # what is around it says where in the graph
        raise ValueError(fact) from error


def training_view(data: bytes, image_format: str) -> bytes:
    """The `decoder.digest` of the pixels (an `image_files.TrainingView`)."""
    return digest(pixels(data, image_format))


def serve(asker: socket.socket, idle_s: float) -> None:
    """Answers until nobody asks any more, or for a while."""
    asker.settimeout(idle_s)
    with contextlib.suppress(EOFError, TimeoutError, ConnectionError):
        while True:
            image_format, size = QUESTION.unpack(_receive(asker, QUESTION.size))
            data = _receive(asker, size)
            try:
                decoded, body = True, training_view(data, image_format.rstrip(b"\0").decode("ascii"))
            except ValueError as error:
                decoded, body = False, str(error).encode("utf-8", "replace")
            asker.sendall(ANSWER.pack(decoded, len(body)) + body)


def _receive(asker: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = asker.recv(min(size - len(found), 1 << 20))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


if __name__ == "__main__":
    order = Parent().hear()
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    if order is not None:
        serve(socket.socket(fileno=order["descriptor"]), order["idle_s"])
    os._exit(0)  # TensorFlow's own end takes a while
