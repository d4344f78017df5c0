"""`report`: a run that is read, several of them beside each other, or one that is followed while it runs."""

from __future__ import annotations

from tfos_job.commands import container_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import ReportConfig


def run(config: ReportConfig, context: Context) -> None:
    if len(config.train_dirs) > 1:
        _compare(config, context)
    elif config.follow:
        _follow(config, context)
    else:
        _tell(config, context)


def _tell(config: ReportConfig, context: Context) -> None:
    from tfos_job import storage
    from tfos_job.local_jobs import report
    from tfos_job.run import summary

    (train_dir,) = config.train_dirs
    found = summary.read(train_dir)
    if config.html is not None:
        storage.require_writable(config.html.rpartition("/")[0] or ".")
    other = report.previous(found, config.compare_to)
    for line in report.lines(found, *other):
        context.say(line)
    if config.html is None:
        context.emit(found.report)
        return
    load_tensorflow(loud=context.is_debug)
    context.emit(report.write_page(train_dir, found, config.html, *other))


def _compare(config: ReportConfig, context: Context) -> None:
    """Shows the runs that can be read; then raises the error of the last that cannot."""
    from tfos_job.local_jobs import compare

    compared = compare.read(config.train_dirs)
    for line in compare.lines(compared):
        context.say(line)
    page = compare.write_page(compared, config.html) if config.html is not None else {}
    context.emit(compare.to_json(compared) | page)
    if compared.errors:
        *others, last = compared.errors.values()
        for error in others:
            context.say(str(error))
        raise last


def _follow(config: ReportConfig, context: Context) -> None:
    """Follows a run to its end, and ends with its exit code."""
    from tfos_job.local_jobs import follow

    (train_dir,) = config.train_dirs
    ended = follow.follow(train_dir)
    _tell(config, context)
    error = follow.own_error(train_dir, ended)
    if error is not None:
        raise error


def check(config: ReportConfig) -> None:
    """Raises MissingInputError or BadDataError for a run that is not there, SettingsError for what stays here."""
    from tfos_job.errors import SettingsError
    from tfos_job.local_jobs import compare

    if config.follow:
        raise SettingsError(
            "what is followed is shown on this host",
            place="--follow",
            next_step="`tfos-job report --follow` reads a run on HDFS, too",
        )
    if config.html is None:
        raise SettingsError(
            "a submitted report is a page", place="--html", next_step="Give the page's URL, or run `tfos-job report`"
        )
    compare.read([*config.train_dirs, *([config.compare_to] if config.compare_to is not None else [])])


def containers(config: ReportConfig, work: Work, master: str) -> dict[str, str]:
    """A driver that draws in its own process, and no executor."""
    return container_memory.drawing_driver().of_driver()


REPORT = Command(
    name="report",
    config=ReportConfig,
    run=run,
    help="show a run's verdict, compare runs, follow one; write all of it as one HTML file",
    when_stopped="The run itself is not touched; run it again",
    submission=Submission(profiles=("common", "driver"), containers=containers, check=check),
)
