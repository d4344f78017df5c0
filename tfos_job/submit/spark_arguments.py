"""The user's flags of spark-submit, given after `--`, as settings of Spark. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfos_job.errors import SettingsError

NAMED = {
    "--name": "spark.app.name",
    "--queue": "spark.yarn.queue",
    "--num-executors": "spark.executor.instances",
    "--executor-cores": "spark.executor.cores",
    "--executor-memory": "spark.executor.memory",
    "--driver-memory": "spark.driver.memory",
    "--driver-cores": "spark.driver.cores",
    "--archives": "spark.archives",
    "--files": "spark.files",
    "--py-files": "spark.submit.pyFiles",
}
"""spark-submit's own names for settings, with which an engineer reads and overrides them."""
FILE_SYSTEMS = "spark.kerberos.access.hadoopFileSystems"
_LISTS = ("spark.archives", "spark.files", "spark.submit.pyFiles", "spark.yarn.tags", FILE_SYSTEMS)
_SWITCHES = ("--verbose", "-v", "--supervise")
_NOT_YOURS = {
    "--master": "Give --master before `--`",
    "--deploy-mode": "The driver runs in the cluster; for one here call `tfos-job COMMAND --master yarn`",
    "--class": "The program is this package's own",
}


def parse(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The settings in the user's spark-submit flags, and the flags that are no settings.

    Raises:
      SettingsError: flags that are not for the user to give, or that are none of spark-submit's.
    """
    settings: dict[str, str] = {}
    passed_on: list[str] = []
    rest = list(args)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag in _NOT_YOURS:
            raise SettingsError(f"{flag} cannot be given after `--`", place=flag, next_step=_NOT_YOURS[flag])
        if not flag.startswith("-"):
            raise SettingsError(
                f"{flag!r} is no flag of spark-submit", place="after `--`", next_step="The command's own go before `--`"
            )
        if flag in _SWITCHES:
            passed_on.append(flag)
            continue
        if not equals:
            if not rest:
                raise SettingsError("needs a value", place=flag)
            value = rest.pop(0)
        if flag in ("--conf", "-c"):
            key, equals, value = value.partition("=")
            if not equals:
                raise SettingsError(f"{key!r} is not KEY=VALUE", place="--conf")
            settings[key] = value
        elif flag in NAMED:
            settings[NAMED[flag]] = value
        else:
            passed_on += [flag, value]
    return settings, passed_on


def merge(own: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    """Our settings with the user's, which are stronger; lists and Java options grow."""
    settings = {**own, **theirs}
    for key in _LISTS:
        if key in own and key in theirs:
            settings[key] = f"{own[key]},{theirs[key]}"
    for key in ("spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions"):
        if key in own and key in theirs:
            settings[key] = f"{own[key]} {theirs[key]}"
    return settings
