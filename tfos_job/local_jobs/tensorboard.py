"""`tensorboard`: TensorBoard for a run on any file system. It reads only local files, so remote ones are copied.

The command runs on the user's host, needs no Spark and does not change the run.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from tfos_job import storage
from tfos_job.config import TensorboardConfig
from tfos_job.errors import JobError, MissingInputError, ResourceError, StorageError
from tfos_job.host.child import end
from tfos_job.layout import RunLayout

_START_TIMEOUT_S = 120
_TERM_TIMEOUT_S = 5
_TAIL_LINES = 8
_URL = re.compile(r"TensorBoard \S+ at (http\S+)")

_log = logging.getLogger(__name__)


def tensorboard(config: TensorboardConfig, on_url: Callable[[str], None]) -> None:
    """Shows a run until it is interrupted.

    Args:
      config: the run, and the address to serve.
      on_url: called with the address when TensorBoard answers.

    Raises:
      MissingInputError: the folder does not exist.
      ResourceError: the port is in use, or TensorBoard did not start.
    """
    run = RunLayout(storage.absolute(config.train_dir))
    if not storage.is_dir(run.root):
        raise MissingInputError("no such folder", place=run.root, next_step="Give the --train_dir of a run")
    if not storage.exists(run.summaries_dir):
        _log.info("No summaries in %s yet: waiting for the first ones", run.summaries_dir)
    _log.info("Starting TensorBoard")
    with _logdir(run) as (folder, update), Board(folder, config) as board:
        on_url(board.url)
        while not board.ended(config.reload_interval):
            update()


@contextlib.contextmanager
def _logdir(run: RunLayout) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yields a local folder with the run's summaries, and a function that updates it, during a `with` block."""
    local = storage.local_path(run.summaries_dir)
    if local is not None:
        yield local, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="tfos_job-tensorboard-") as folder:
        mirror = LocalMirror(run.summaries_dir, Path(folder))
        mirror.update()
        _log.info("Mirroring %s to %s", run.summaries_dir, folder)

        def update() -> None:
            try:
                mirror.update()
            except StorageError as error:  # after retries; the next update tries again
                _log.warning("What is shown may be old: %s", error)

        yield folder, update


class LocalMirror:
    """A local copy of a remote folder of events files.

    Events files only grow, and TensorBoard keeps them open. So new bytes are appended to the copy; TensorBoard reads an
    incomplete record later. It would not read a copy under a new name.
    """

    def __init__(self, source: str, target: Path) -> None:
        self._source = source
        self._target = target

    def update(self) -> None:
        try:
            found = storage.find(self._source, "")
        except MissingInputError:  # not written yet, or removed for a new run
            found = []
        there = {self._target / entry.path[len(self._source) :].lstrip("/"): entry for entry in found}
        for path in [path for path in self._target.rglob("*") if path.is_file() and path not in there]:
            path.unlink()
        for path, entry in there.items():
            size_bytes = path.stat().st_size if path.exists() else 0
            if entry.size_bytes < size_bytes:  # another file of the same name
                path.unlink()
                size_bytes = 0
            if entry.size_bytes > size_bytes:
                with contextlib.suppress(MissingInputError):  # removed since it was listed
                    self._append(entry.path, path, size_bytes)

    @staticmethod
    def _append(source: str, target: Path, offset: int) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.open_read(source) as stream, target.open("ab") as copy:
            stream.seek(offset)
            while block := stream.read(storage.BUFFER_BYTES):
                copy.write(block)


class Board:
    """TensorBoard in a process of its own, during a `with` block."""

    def __init__(self, folder: str, config: TensorboardConfig) -> None:
        self._address = f"{config.host}:{config.port}"
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder]
        command += ["--host", config.host, "--port", str(config.port)]
        command += ["--reload_interval", str(config.reload_interval)]
        # In a session of its own: a terminal's Ctrl-C reaches this process alone, which then ends TensorBoard.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
        self._tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        self._has_answered = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read, name="tensorboard stderr", daemon=True)
        self._reader.start()

    def __enter__(self) -> Board:
        try:
            self._has_answered.wait(_START_TIMEOUT_S)
            if not self.url:
                raise self._error()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def ended(self, timeout_s: float) -> bool:
        """Waits; false after `timeout_s`. Raises the reason if TensorBoard ends before."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        raise self._error()

    def close(self) -> None:
        self._process.terminate()
        end(self._process, "TensorBoard", _TERM_TIMEOUT_S)
        self._reader.join(_TERM_TIMEOUT_S)

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in stderr:
                _log.debug("tensorboard: %s", line.rstrip())
                self._tail.append(line.strip())
                if not self.url and (match := _URL.search(line)):
                    self.url = match[1]
                    self._has_answered.set()
        self._has_answered.set()  # wakes the waiting thread: there will be no answer

    def _error(self) -> JobError:
        code = self._process.poll()
        said = " | ".join(line for line in self._tail if line)
        # TensorBoard may report this some time before it ends.
        if "could not bind" in said.lower() or "already in use" in said.lower():
            return ResourceError(
                f"TensorBoard cannot listen there: {said}",
                place=self._address,
                next_step="Give another --port, or --port 0 for any that is free",
            )
        if code is None:
            return ResourceError(
                f"TensorBoard did not answer within {_START_TIMEOUT_S} s: {said}",
                place=self._address,
                next_step="Run it again; --debug shows all it says",
            )
        return JobError(
            f"TensorBoard ended with code {code}: {said}",
            place=self._address,
            next_step="Run it again; --debug shows all it says",
        )
