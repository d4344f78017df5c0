"""The checkpoints of a run that stay: the newest whole ones and the best; and the end of what was left half built.

For the holder of the run's lock, and who works on its behalf.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tfos_job import storage
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.layout import RunLayout, building_attempt, damaged_since
from tfos_job.run import checkpoint_files, checkpoints


class Retention:
    """Removes all checkpoints except the newest whole ones and the best, while others may be published."""

    def __init__(
        self,
        run: RunLayout,
        guard: Callable[[], None] = lambda: None,
        attempt: int = 0,
        keep_last: int = checkpoints.KEEP_LAST,
    ) -> None:
        """Removes nothing yet.

        Args:
          run: the run.
          guard: called before anything is removed; raises if the run is somebody else's by now.
          attempt: the number of this attempt, whose checkpoint in progress is left alone; 0 outside of one.
          keep_last: newest whole checkpoints that stay.
        """
        self._run = run
        self._guard = guard
        self._attempt = attempt
        self._keep_last = keep_last
        self._whole: set[str] = set()

    def trust(self, path: str) -> None:
        """Tells that this process has written the checkpoint, or has read it through: it is not read again."""
        self._whole.add(path)

    def apply(self) -> list[str]:
        """Removes what need not stay, puts damaged ones aside, and sweeps.

        Returns:
          The folders that stay, newest first.

        Raises:
          BusyError: from `guard`; nothing was removed.
          StorageError: the file system failed; the next call goes on.
        """
        paths = checkpoints.candidates(self._run)
        damaged: dict[str, BadDataError] = {}
        kept = self._first(self._keep_last, paths, damaged)
        kept += self._first(1, [path for path in checkpoints.by_merit(self._run) if path not in kept], damaged)
        self._guard()
        sweep(self._run, self._attempt)
        # If none verifies, all stay for inspection.
        for path in paths if kept else []:
            if path in damaged:
                checkpoints.put_aside(self._run, path, damaged[path])
            elif path not in kept:
                storage.discard_dir(path)  # removed by one rename, for concurrent readers
                self._whole.discard(path)
        return sorted(kept, reverse=True)

    def _first(self, num: int, paths: list[str], damaged: dict[str, BadDataError]) -> list[str]:
        """The first whole ones of `paths`. Those that are found damaged on the way are added to `damaged`."""
        return list(itertools.islice((path for path in paths if self._is_whole(path, damaged)), num))

    def _is_whole(self, path: str, damaged: dict[str, BadDataError]) -> bool:
        if path in self._whole:
            return True
        if path in damaged:
            return False
        try:
            checkpoint_files.prove(path)
        except BadDataError as error:
            damaged[path] = error
        except MissingInputError:
            pass  # the publisher has put it aside
        else:
            self._whole.add(path)
        return path in self._whole


def sweep(run: RunLayout, attempt: int | None = None) -> None:
    """Removes what a process that was killed has left half built, or half removed.

    Args:
      run: the run.
      attempt: the number of an attempt; what it is building stays.
    """
    if not storage.is_dir(run.checkpoints_dir):
        return
    for entry in storage.list_dir(run.checkpoints_dir):
        is_built = attempt is not None and building_attempt(entry.name) == attempt
        if entry.name.startswith("_") and damaged_since(entry.name) is None and not is_built:
            # Renamed first: from then on an earlier attempt that is still alive cannot publish it.
            storage.discard_dir(entry.path)
