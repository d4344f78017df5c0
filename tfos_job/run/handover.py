"""The beginning of an attempt at a run: earlier ones can publish nothing any more, and it has its checkpoint."""

from __future__ import annotations

from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.run import checkpoints, retention
from tfos_job.run.checkpoint_files import CheckpointInfo

ATTEMPT = "attempt"
"""The number in the run's lock that fences off the attempts before."""


def take_over(
    run: RunLayout, lease: Lease, attempt: int, chosen: CheckpointInfo | None = None
) -> CheckpointInfo | None:
    """Fences off the attempts before, and returns the checkpoint that this one begins with.

    An earlier coordinator that is still alive, such as one that the kernel holds, publishes in two steps: it asks the
    lock whether its attempt is still the newest, then renames the folder that it has built. Here the number is written
    first, then those folders are removed, and then the checkpoints are listed. So what it can publish at all is
    published by then, and seen here.

    Args:
      run: the run.
      lease: the run's lock, held by this process.
      attempt: the number of this attempt, higher than all before.
      chosen: a checkpoint of the run that this process has verified since it holds the lock; None to look for the
        newest that verifies.

    Returns:
      That checkpoint; None if the run has none. Damaged ones that are newer were put aside.

    Raises:
      BadDataError: the run has checkpoints, and none verifies; all stay where they are.
      BusyError: another process holds the lock.
      StorageError: the file system does not answer.
    """
    lease.announce(**{ATTEMPT: attempt})
    retention.sweep(run)
    paths = checkpoints.candidates(run)
    damaged: dict[str, BadDataError] = {}
    for path in paths:
        if chosen is not None and path == chosen.path:
            break
        try:
            found = checkpoints.verify(path)
        except BadDataError as error:
            damaged[path] = error
        except MissingInputError:
            pass  # the end of an attempt before has removed it
        else:
            chosen = chosen or found
            break
    if chosen is None and damaged:
        raise checkpoints.none_verifies(run, len(paths))
    for path, damage in damaged.items():
        checkpoints.put_aside(run, path, damage)
    return chosen
