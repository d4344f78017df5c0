"""`promote`, `rollback` and `history`: the commands on a registry of promoted networks, in one process."""

from __future__ import annotations

from tfos_job.commands.command import Command, Context
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import HistoryConfig, PromoteConfig, RollbackConfig
from tfos_job.config.promotion import JSON


def _promote(config: PromoteConfig, context: Context) -> None:
    from tfos_job.local_jobs.promote import promote, raise_if_kept

    result = promote(config, load_tensorflow=lambda: load_tensorflow(loud=context.is_debug))
    version = f"version {result['version']}" if result["version"] is not None else "no version"
    context.say(f"{result['decision']}: {version} of {config.registry_dir} is the current one: {result['reason']}")
    context.emit(result)
    if config.require_promotion:
        raise_if_kept(result)


def _rollback(config: RollbackConfig, context: Context) -> None:
    from tfos_job.local_jobs.rollback import rollback

    result = rollback(config)
    done = "is there already" if result["already_rolled_back"] else "is published"
    of = "" if result["restores"] is None else f", with the files of version {result['restores']}"
    context.say(f"version {result['version']} of {config.registry_dir} {done}{of}")
    context.emit(result)


def _history(config: HistoryConfig, context: Context) -> None:
    from tfos_job.local_jobs import history

    entries = history.read(config)
    if config.format == JSON:
        context.emit(history.to_json(entries))
        return
    for line in history.lines(entries):
        context.write(line)


_WHEN_STOPPED = "Servers have the version of before or the whole new one; run it again to have the rest written"
PROMOTE = Command(
    name="promote",
    config=PromoteConfig,
    run=_promote,
    help="publish an export where servers look, if it is not worse than the current model",
    when_stopped=_WHEN_STOPPED,
)
ROLLBACK = Command(
    name="rollback",
    config=RollbackConfig,
    run=_rollback,
    help="publish an earlier promoted model again, under a higher number",
    when_stopped=_WHEN_STOPPED,
)
HISTORY = Command(
    name="history",
    config=HistoryConfig,
    run=_history,
    help="show what was promoted, kept out and rolled back, by whom and why",
    when_stopped="Nothing was changed",
)
