"""The process that decodes picture files as training does, for `formats/decoder.py`."""

from __future__ import annotations

import contextlib
import os
import socket

import numpy as np
import tensorflow as tf

from tfos_job.formats.decoder import ANSWER, QUESTION, digest
from tfos_job.host.parent import Parent
from tfos_job.input.decoding import decode_file

_COLOURS = 3  # a grey picture has three equal channels


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.string)],
    autograph=False,  # it would leave a file behind, since this process ends without its libraries' clean-up
)
def _pixels(data: tf.Tensor, image_format: tf.Tensor) -> tf.Tensor:
    return decode_file(data, image_format, _COLOURS)


def pixels(data: bytes, image_format: str) -> np.ndarray:
    """Returns the pixels of a file as training sees them, uint8 [h, w, 3].

    Raises:
      ValueError: TensorFlow cannot decode the file.
    """
    try:
        return _pixels(tf.constant(data), tf.constant(image_format)).numpy()
    except tf.errors.OpError as error:
        fact = error.message.partition("\n\t [[")[0].rpartition("\n")[2]  # without the position in the graph
        raise ValueError(fact) from error


def training_view(data: bytes, image_format: str) -> bytes:
    """Returns the `decoder.digest` of the file's pixels (an `image_files.TrainingView`)."""
    return digest(pixels(data, image_format))


def serve(asker: socket.socket, idle_s: float) -> None:
    """Answers requests until the other side closes the socket, or sends none for `idle_s`."""
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
    os._exit(0)  # a regular end takes TensorFlow a while
