"""`serve`: a network that answers by HTTP, on this host."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

from tfos_job.commands.command import Command, Context
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import ServeConfig
from tfos_job.errors import InterruptedJobError, SettingsError


def _serve(config: ServeConfig, context: Context) -> None:
    try:
        from tfos_job.local_jobs.serve import serve
    except ModuleNotFoundError as error:
        if error.name not in ("flask", "waitress", "greenlet", "prometheus_client"):
            raise
        raise SettingsError(
            f"{error.name} is not installed: `serve` is an extra of this package",
            next_step="pip install 'tfos_job[serve]'",
        ) from error
    try:
        serve(
            config,
            emit=context.emit,
            write=context.write,
            load_tensorflow=lambda: load_tensorflow(loud=context.is_debug),
        )
    except InterruptedJobError as error:
        atexit.register(_leave, error.exit_code)
        raise


def _leave(exit_code: int) -> None:
    """Ends this process, in which threads may be in the code of TensorFlow or of HDFS's client.

    A regular end takes the interpreter from under them, and they abort the process, with an exit code of their own.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(exit_code)


SERVE = Command(
    name="serve",
    config=ServeConfig,
    run=_serve,
    help="answer by HTTP: pictures, drawings, a page to draw on",
    when_stopped="Nothing is left; run it again",
)
