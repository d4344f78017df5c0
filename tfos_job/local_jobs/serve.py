"""`serve`: models that answer by HTTP, in this process, until a signal ends it.

The address is taken and answers `/healthz` before TensorFlow is loaded: what is wrong with flags is known at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.config import ServeConfig
from tfos_job.errors import InterruptedJobError, ResourceError
from tfos_job.host.signals import Stopped
from tfos_job.inference import strokes
from tfos_job.inference.ink_statistics import TYPICAL, InkStatistics
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints, exports, own_network
from tfos_job.serve import access_log, application, server
from tfos_job.serve.channel import Broken
from tfos_job.serve.keys import Keys
from tfos_job.serve.lifecycle import Lifecycle
from tfos_job.serve.limits import Limits
from tfos_job.serve.metrics import Metrics
from tfos_job.serve.model import Draw, Loaded, Model
from tfos_job.serve.models import Models
from tfos_job.serve.reloading import Loader, Reloading, Source

_GARBAGE = 2_000  # objects: those of a few requests
_LAST_LINES_S = 1.0  # for the reader of the access log to take them
_MIB = 1 << 20
_TOP_K = 5  # of a checkpoint, in TensorFlow Serving's answers: the default of `export`

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
      config: the models, the address and the limits.
      emit: takes the address and the models, when they answer.
      write: takes the lines of the access log, if that goes to stdout.
      load_tensorflow: called before TensorFlow is imported.

    Raises:
      InterruptedJobError: by a signal, the only end.
      MissingInputError: there is no checkpoint or export.
      SettingsError: a run's network is Python that the flags do not name.
      BadDataError: the checkpoint or export is damaged, or the file of keys holds none.
      ResourceError: the port is taken.
    """
    keys = None if config.api_key_file is None else Keys(config.api_key_file)
    sources = _sources(config)
    newest = [source.newest() for source in sources]
    service = _service(config, keys, access_log.opened(config.access_log, write))
    listener = server.listen(config.host, config.port)
    if keys is None and not config.is_loopback:
        _log.warning("--insecure: whoever reaches %s may ask, without a key", server.url_of(listener))
    with contextlib.ExitStack() as ends, _serving(config, service, listener) as wait:
        load_tensorflow()
        _spare_the_collector()
        make = functools.partial(_model, config, service)
        loader = Loader(service.models, make, service.metrics, timeout_s=config.request_timeout)
        models = [loader.load(source, folder) for source, folder in zip(sources, newest, strict=True)]
        service.lifecycle.begin()
        _log.info(
            "Ready at %s: open it in a browser, or POST pictures to /predict. Ctrl-C ends it", server.url_of(listener)
        )
        emit({"url": server.url_of(listener), "models": [model.describe() for model in models]})
        exported = [source for source in sources if isinstance(source, ExportSource)]
        if exported and config.reload_seconds:
            ends.enter_context(Reloading(loader, exported, config.reload_seconds))
        wait()


def _spare_the_collector() -> None:
    """Has Python's collector of cycles look at what requests leave, seldom and in bulk, and no more at what is loaded.

    It is called before a model is loaded, which another one may replace.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, *gc.get_threshold()[1:])


@dataclass(frozen=True)
class RunSource:
    """A checkpoint of a run; `checkpoint` is `last`, `best` or a path. It stays the one that it was at the start."""

    name: str
    train_dir: str
    checkpoint: str
    model_name: str | None = None

    def newest(self) -> str:
        own_network.check(RunLayout(self.train_dir), self.checkpoint, self.model_name)
        return self.train_dir

    def load(self, folder: str) -> Loaded:
        from tfos_job.inference.predictor import Predictor
        from tfos_job.inference.training_pictures import TrainingPictures

        info, arrays = checkpoints.read_network(RunLayout(folder), self.checkpoint)
        predictor = Predictor.restored(info, arrays, model_name=self.model_name)
        draw = _drawn_like(TrainingPictures(RunLayout(folder), info).ink)
        return Loaded(predictor, draw, predictor.step, min(_TOP_K, len(predictor.classes)))


@dataclass(frozen=True)
class ExportSource:
    """The highest version of an export, or the one whose folder it is; local or not."""

    name: str
    export_dir: str

    def newest(self) -> str:
        return exports.resolve(self.export_dir)

    def load(self, folder: str) -> Loaded:
        from tfos_job.inference.predictor import Predictor

        info = exports.read(folder)
        predictor = Predictor.exported(folder)
        if predictor.on_paper and predictor.ink is None:
            _log.warning(
                "%s knows nothing of the ink of its training pictures, so drawings look like handwriting in crops. "
                "Export it again where its dataset is there",
                folder,
            )
        return Loaded(predictor, _drawn_like(predictor.ink), info.version, info.document["top_k"])


def _drawn_like(ink: InkStatistics | None) -> Draw:
    """What draws strokes as the ink of the training pictures looks; as handwriting mostly does, if that is unknown."""
    return functools.partial(strokes.draw, like=TYPICAL if ink is None else ink)


def _sources(config: ServeConfig) -> list[Source]:
    """The models of the flags; of a `--model` it is seen what is in its folder: a run has checkpoints."""
    found: list[Source] = []
    for name, folder in config.models:
        is_run, own = config.train_dir is not None, config.model_name
        if config.model is not None:
            is_run = storage.is_dir(RunLayout(folder).checkpoints_dir)
            if is_run and not own_network.is_own(RunLayout(folder), config.checkpoint):
                own = None  # the name is that of another one's network
        found.append(RunSource(name, folder, config.checkpoint, own) if is_run else ExportSource(name, folder))
    return found


def _model(config: ServeConfig, service: application.Service, name: str, loaded: Loaded) -> Model:
    return Model(
        name,
        loaded,
        limits=service.limits,
        metrics=service.metrics,
        max_batch_size=config.max_batch_size,
        max_latency_s=config.max_latency_ms / 1000,
        max_queue=config.max_queue,
    )


def _service(config: ServeConfig, keys: Keys | None, log: access_log.AccessLog) -> application.Service:
    max_pixels = int(config.max_megapixels * 1_000_000)
    return application.Service(
        models=Models(),
        lifecycle=Lifecycle(),
        limits=Limits(
            max_images=min(config.max_images, config.max_queue), max_pixels=max_pixels, timeout_s=config.request_timeout
        ),
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

    def note_broken(broken: Broken) -> None:
        service.metrics.answered("none", broken.status, time.monotonic() - broken.began_s)
        service.access_log.add(
            **{**dataclasses.asdict(broken), "method": broken.method[:20], "path": broken.path[:200]}
        )

    limits = server.ServerLimits(
        max_connections=config.max_connections,
        max_body_bytes=config.max_body_mb * _MIB,
        request_s=config.request_timeout,
    )
    running = server.Server(application.make(service), listener, limits, note_broken)
    try:
        yield running.wait
        raise ResourceError("the thread that takes connections has ended", next_step="Run it again")
    except KeyboardInterrupt as stopped:
        signum = stopped.signum if isinstance(stopped, Stopped) else signal.SIGINT
        try:
            service.lifecycle.drain()
            _log.info("%s: answering the requests that are there", signal.Signals(signum).name)
            num_lost = running.stop(config.stop_timeout)
        except KeyboardInterrupt:  # a second signal: whoever sends it does not want to wait
            num_lost = running.stop(0)
        fact = f"{num_lost} requests had no answer in time" if num_lost else "no request is left without an answer"
        raise InterruptedJobError(f"stopped by {signal.Signals(signum).name}: {fact}", signum=signum) from stopped
    finally:
        running.stop(0)
        service.access_log.close(_LAST_LINES_S)
