"""Models from where they are published, and newer ones while the server answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tfos_job.errors import JobError, StorageError
from tfos_job.host.memory import give_back
from tfos_job.serve.metrics import Metrics
from tfos_job.serve.model import Loaded, Model
from tfos_job.serve.models import Models
from tfos_job.serve.refusals import Refusal

_END_S = 10.0

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where a model is published."""

    @property
    def name(self) -> str:
        """The model's."""

    def newest(self) -> str:
        """The folder of the version that is to answer; raises JobError if there is none."""

    def load(self, folder: str) -> Loaded:
        """The model of a version, proved; raises JobError if it is damaged."""


@dataclass
class _Known:
    """The version that answers, and the last one that did not get so far."""

    folder: str = ""
    failed: str = ""


class Loader:
    """Puts models where requests find them, each after it has answered.

    Args:
      models: where requests look.
      make: makes a model of a name and of what was loaded.
      metrics: takes what is counted.
      timeout_s: for which requests of an old model may stay with it.
    """

    def __init__(
        self, models: Models, make: Callable[[str, Loaded], Model], metrics: Metrics, *, timeout_s: float
    ) -> None:
        self._models = models
        self._make = make
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._known: dict[str, _Known] = {}

    def load(self, source: Source, folder: str | None = None) -> Model:
        """Loads a version (default: the newest), has it answer, and gives it the requests.

        Raises:
          JobError: there is none, or it is damaged, or it does not answer.
        """
        folder = source.newest() if folder is None else folder
        _log.info("Loading %s from %s", source.name, folder)
        model = self._make(source.name, source.load(folder))
        try:
            model.warm_up()
        except Exception as error:  # of any network
            model.batcher.close(0)
            fact = error.fact if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
            raise JobError(f"it does not answer: {fact}", place=folder, next_step="Serve another version") from error
        self._metrics.loaded(source.name, model.loaded.network.digest, model.loaded.version)
        self._metrics.watch_queue(source.name, lambda: model.batcher.num_waiting)
        self._models.put(model, self._timeout_s)
        self._known[source.name] = _Known(folder)
        return model

    def refresh(self, source: Source) -> bool:
        """Loads the newest version if it is another one than the one that answers; true if it did.

        What fails is logged, and the old one goes on answering. A version that is damaged or does not answer is left
        until there is another one; after a fault of the file system the same one is tried again.
        """
        known = self._known[source.name]
        folder = ""
        try:
            folder = source.newest()
            if folder in (known.folder, known.failed):
                return False
            self.load(source, folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, requests must not suffer from it
            known.failed = "" if isinstance(error, StorageError) else folder
            self._metrics.reloaded(source.name, "failed")
            _log.warning("%s goes on with %s: %s", source.name, known.folder, error)
            return False
        self._metrics.reloaded(source.name, "loaded")
        give_back()
        return True


class Reloading:
    """A thread that looks for newer versions during a `with` block.

    At its end a version that is being loaded gets a moment to be, so that no copy of its files is left.
    """

    def __init__(self, loader: Loader, sources: Sequence[Source], seconds: float) -> None:
        self._loader = loader
        self._sources = sources
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reloading", daemon=True)

    def __enter__(self) -> Reloading:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            for source in self._sources:
                self._loader.refresh(source)
