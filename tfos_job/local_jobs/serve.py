"""`serve`: a network that answers by HTTP, in this process, until a signal ends it.

The address is taken and answers `/healthz` before TensorFlow is loaded: what is wrong with flags is known at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from tfos_job import storage
from tfos_job.config import ServeConfig
from tfos_job.errors import InterruptedJobError, JobError, MissingInputError, ResourceError
from tfos_job.host.signals import Stopped
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints
from tfos_job.serve import access_log, application, server
from tfos_job.serve.keys import Keys
from tfos_job.serve.lifecycle import Lifecycle
from tfos_job.serve.limits import Limits
from tfos_job.serve.metrics import Metrics
from tfos_job.serve.model import Model
from tfos_job.serve.models import Models
from tfos_job.serve.refusals import Refusal

DEFAULT_NAME = "default"
"""The name of a model that is given none."""
_SPARE_THREADS = 16  # beside those that wait for the network: for refusals, the page and who asks for health
_MIB = 1 << 20

_log = logging.getLogger(__name__)


def serve(
    config: ServeConfig,
    *,
    emit: Callable[[Any], None],
    write: Callable[[str], None],
    load_tensorflow: Callable[[], None] = lambda: None,
) -> None:
    """Serves until it is interrupted, and then answers the requests that it has.

    Args:
      config: the model, the address and the limits.
      emit: takes the address and the model, when they answer.
      write: takes the lines of the access log, if that goes to stdout.
      load_tensorflow: called before TensorFlow is imported.

    Raises:
      InterruptedJobError: by a signal, the only end.
      MissingInputError: there is no checkpoint or export.
      BadDataError: the checkpoint is damaged, or the file of keys holds none.
      ResourceError: the port is taken.
    """
    keys = None if config.api_key_file is None else Keys(config.api_key_file)
    _require(config)
    service = _service(config, keys, access_log.opened(config.access_log, write))
    listener = server.listen(config.host, config.port)
    if keys is None and not config.is_loopback:
        _log.warning("--insecure: whoever reaches %s may ask, without a key", server.url_of(listener))
    with _serving(config, service, listener) as wait:
        load_tensorflow()
        model = _load(config, service)
        service.models.put(model)
        service.lifecycle.begin()
        _log.info("Ready at %s", server.url_of(listener))
        emit({"url": server.url_of(listener), **model.describe()})
        wait()


def _require(config: ServeConfig) -> None:
    """Raises what is wrong with the model's folder as far as it is seen without TensorFlow."""
    if config.train_dir is not None:
        checkpoints.require(RunLayout(config.train_dir), config.checkpoint)
    elif not storage.is_dir(str(config.export_dir)):
        raise MissingInputError("no such folder", place=str(config.export_dir), next_step="Give a folder of `export`")


def _service(config: ServeConfig, keys: Keys | None, log: access_log.AccessLog) -> application.Service:
    max_pixels = int(config.max_megapixels * 1_000_000)
    return application.Service(
        models=Models(),
        lifecycle=Lifecycle(),
        limits=Limits(max_images=config.max_images, max_pixels=max_pixels, timeout_s=config.request_timeout),
        max_body_bytes=config.max_body_mb * _MIB,
        metrics=Metrics(),
        access_log=log,
        keys=keys,
    )


@contextlib.contextmanager
def _serving(
    config: ServeConfig, service: application.Service, listener: socket.socket
) -> Iterator[Callable[[], None]]:
    """Answers HTTP during a `with` block, and yields what waits there; a signal drains it.

    Raises:
      InterruptedJobError: by the signal.
    """

    def note_broken(client: str, status: int, began_s: float) -> None:
        service.metrics.answered("none", status, time.monotonic() - began_s)
        service.access_log.add(began_s=began_s, client=client, status=status)

    limits = server.ServerLimits(
        max_connections=config.max_connections,
        max_body_bytes=config.max_body_mb * _MIB,
        # Each picture that waits has a thread that waits for it, so none waits where nobody counts it.
        num_threads=config.max_queue + config.max_batch_size + _SPARE_THREADS,
        request_s=config.request_timeout,
    )
    running = server.Server(application.make(service), listener, limits, note_broken)
    try:
        yield running.wait
        raise ResourceError("the thread that takes connections has ended", next_step="Run it again")
    except KeyboardInterrupt as stopped:
        service.lifecycle.drain()
        signum = stopped.signum if isinstance(stopped, Stopped) else signal.SIGINT
        _log.info("%s: answering the requests that are there", signal.Signals(signum).name)
        num_lost = running.stop(config.stop_timeout)
        fact = f"{num_lost} requests had no answer in time" if num_lost else "no request is left without an answer"
        raise InterruptedJobError(f"stopped by {signal.Signals(signum).name}: {fact}", signum=signum) from stopped
    finally:
        running.stop(0)


def _load(config: ServeConfig, service: application.Service) -> Model:
    """The model, warmed up.

    Raises:
      JobError: the network has no answer to a picture.
    """
    from tfos_job.inference import strokes
    from tfos_job.inference.predictor import Predictor

    _log.info("Loading the model of %s", config.train_dir or config.export_dir)
    if config.train_dir is not None:
        predictor = Predictor(config.train_dir, config.checkpoint)
    else:
        predictor = Predictor.exported(str(config.export_dir))
    model = Model(
        DEFAULT_NAME,
        predictor,
        strokes.draw,
        limits=service.limits,
        metrics=service.metrics,
        max_batch_size=config.max_batch_size,
        max_latency_s=config.max_latency_ms / 1000,
        max_queue=config.max_queue,
    )
    _log.info("Warming up: batches of 1 and %d, a picture and a drawing", config.max_batch_size)
    try:
        model.warm_up()
    except Refusal as error:
        raise JobError(error.fact, place=predictor.checkpoint, next_step="Give another checkpoint") from error
    service.metrics.loaded(model.name, predictor.digest, predictor.step)
    service.metrics.watch_queue(model.name, lambda: model.batcher.num_waiting)
    return model
