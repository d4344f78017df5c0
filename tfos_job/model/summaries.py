"""TensorBoard events of a run. TensorFlow writes them to a local disk alone, so for others they are mirrored."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from tfos_job import storage
from tfos_job.layout import RunLayout, join


class Summaries:
    """Scalars of one kind (`train` or `validation`) under the run's `summaries/`."""

    def __init__(self, run: RunLayout, kind: str) -> None:
        self._target = run.summaries(kind)
        local = storage.local_path(self._target)
        self._staging = None if local else tempfile.mkdtemp(prefix=f"tfos_job-summaries-{kind}-")
        self._writer = tf.summary.create_file_writer(local or str(self._staging))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)

    def flush(self) -> None:
        """Makes what has been written visible to readers."""
        self._writer.flush()
        if self._staging:
            storage.make_dirs(self._target)
            for path in Path(self._staging).iterdir():
                storage.write_bytes(join(self._target, path.name), path.read_bytes())

    def close(self) -> None:
        self.flush()
        self._writer.close()
        if self._staging:
            shutil.rmtree(self._staging, ignore_errors=True)
