"""The import of TensorFlow in a command's own process."""

import contextlib
import logging
import os
import sys
import tempfile

from tfos_job.host.imports import without

_log = logging.getLogger(__name__)


def load_tensorflow(*, loud: bool) -> None:
    """Imports TensorFlow and lets it look for devices, without the lines that it greets every user with.

    They come from its libraries before any log level is heard; they are shown if the import fails.
    """
    if "tensorflow" not in sys.modules:
        _log.info("Loading TensorFlow")
    with contextlib.ExitStack() as stack:
        if not loud:
            said = stack.enter_context(tempfile.TemporaryFile())
            stderr = os.dup(2)
            os.dup2(said.fileno(), 2)
            stack.callback(os.close, stderr)
            stack.callback(os.dup2, stderr, 2)
        try:
            with without("matplotlib"):  # Keras would import it for pictures of its own
                import tensorflow as tf

            tf.config.list_logical_devices()
        except Exception:
            if not loud:
                os.dup2(stderr, 2)
                said.seek(0)
                sys.stderr.write(said.read().decode(errors="replace"))
            raise
