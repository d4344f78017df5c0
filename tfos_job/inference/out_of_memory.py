"""The error of a network for which there is too little memory, of a GPU or of the host."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import tensorflow as tf

from tfos_job.errors import ResourceError
from tfos_job.input.damage import first_line

# CUDA's libraries tell it by other classes than TensorFlow's own allocators.
_WORDS = ("out of memory", "out_of_memory", "failed to allocate")


@contextlib.contextmanager
def memory_errors(batch_size: int | None) -> Iterator[None]:
    """Converts what TensorFlow and numpy raise when memory runs out.

    Args:
      batch_size: `--batch_size`, images at a time; None if the caller has no such flag.

    Raises:
      ResourceError: memory has run out in the block.
    """
    try:
        yield
    except MemoryError as error:
        raise _error(str(error) or "Python has none left", batch_size) from error
    except tf.errors.OpError as error:
        words = error.message.lower()
        if not isinstance(error, tf.errors.ResourceExhaustedError) and not any(word in words for word in _WORDS):
            raise
        raise _error(first_line(error), batch_size) from error


def _error(what: str, batch_size: int | None) -> ResourceError:
    smaller = f"Give a smaller --batch_size than {batch_size}, or" if batch_size and batch_size > 1 else "Use"
    return ResourceError(
        f"memory ran out: {what}",
        place=f"host {socket.gethostname()}",
        next_step=f"{smaller} fewer tasks at a time on that host or GPU",
    )
