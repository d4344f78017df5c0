"""`clean`: old runs, exports, promoted versions and leftovers, in one process."""

from __future__ import annotations

from tfos_job.commands.command import Command, Context
from tfos_job.config import CleanConfig


def _run(config: CleanConfig, context: Context) -> None:
    from tfos_job.local_jobs import clean

    result = clean.clean(config)
    for line in clean.lines(result):
        context.say(line)
    context.emit(result)
    clean.raise_if_busy(result)


CLEAN = Command(
    name="clean",
    config=CleanConfig,
    run=_run,
    help="remove old runs, exports, promoted versions and leftovers by a policy; without --remove only show them",
    when_stopped="What was removed is gone as a whole; run it again to have the rest removed",
)
