"""TensorBoard events of a run. TensorFlow writes them to the local disk only; for a remote run they are uploaded.

Summaries are for display: a failed upload is a warning, and training neither waits for it nor fails.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import tensorflow as tf

from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.layout import RunLayout, join

FLUSH_S = 30.0
CLOSE_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class Summaries:
    """Scalars of one kind (`train` or `validation`) under the run's `summaries/`, visible there within `FLUSH_S`."""

    def __init__(self, run: RunLayout, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        target = run.summaries(kind)
        local = storage.local_path(target)
        self._uploader = None if local else _Uploader(target, kind)
        self._writer = tf.summary.create_file_writer(local or str(self._uploader and self._uploader.folder))
        self._clock = clock
        self._flushed_s = clock()

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
        if self._clock() - self._flushed_s >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Makes all events visible to readers; an upload takes a little longer."""
        self._flushed_s = self._clock()
        self._writer.flush()
        if self._uploader:
            self._uploader.update()

    def close(self) -> None:
        self._writer.close()
        if self._uploader:
            self._uploader.close()


class _Uploader:
    """A thread that copies the files of a local folder to the run's folder, one update at a time."""

    def __init__(self, target: str, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"tfos_job-summaries-{kind}-"))
        self._target = target
        self._sizes: dict[str, int] = {}  # of the files at the last copy
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="summaries")
        self._copying: Future[None] | None = None

    def update(self) -> None:
        if self._copying is None or self._copying.done():
            self._copying = self._copier.submit(self._copy)

    def close(self) -> None:
        """Copies the remaining events and waits for that, up to `CLOSE_TIMEOUT_S`."""
        last = self._copier.submit(self._copy)
        self._copier.shutdown(wait=False)
        if wait([last], CLOSE_TIMEOUT_S).not_done:
            _log.warning("The last summaries could not be copied to %s within %g s", self._target, CLOSE_TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy(self) -> None:
        try:
            for path in self.folder.iterdir():
                data = path.read_bytes()
                if len(data) != self._sizes.get(path.name):
                    storage.make_dirs(self._target)
                    storage.write_bytes(join(self._target, path.name), data)
                    self._sizes[path.name] = len(data)
        except (JobError, OSError) as error:
            _log.warning("The summaries could not be copied: %s", error)
