"""The parser of the command line: a flag is a field of a command's configuration.

argparse splits the words, and writes `--help`; what a flag refuses is a `FlagError` here, never its own exit.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tfos_job.commands import correction, flag_text, help_text
from tfos_job.commands.command import Command
from tfos_job.config.flags import Subject, by_subject, has_bonds, is_inherited, kind_of, label
from tfos_job.config.process import ProcessConfig
from tfos_job.errors import FlagError


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A command line that has been read.

    Attributes:
      command: its command.
      given: the values of the flags that are given, by name.
      process: the flags of every command.
    """

    command: Command
    given: Mapping[str, Any]
    process: ProcessConfig

    def without_file(self, *left_out: str) -> list[str]:
        """The flags as one would give them without `--config`: those of its file are among them.

        Args:
          *left_out: names of flags that are left out.
        """
        flags = {item.name: (item, value) for item, value in self._flags() if item.name not in {"config", *left_out}}
        positional = [name for name, (item, _) in flags.items() if "nargs" in item.metadata]
        names = [*(name for name in flags if name not in positional), *positional]
        return [word for name in names for word in flag_text.write(*flags[name])]

    def _flags(self) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
        for item in dataclasses.fields(self.command.config):
            if item.name in self.given:
                yield item, self.given[item.name]
        for item in dataclasses.fields(ProcessConfig):
            if getattr(self.process, item.name) != item.default:
                yield item, getattr(self.process, item.name)


_NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")


class FlagParser(argparse.ArgumentParser):
    """Raises `FlagError` where argparse would print its usage and end the process."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, exit_on_error=False, formatter_class=help_text.HelpFormatter, **settings)
        self._negative_number_matcher = _NEGATIVE_NUMBER  # argparse's own knows no exponent: -1e0 would be a flag

    @property
    def flags(self) -> list[str]:
        """The flags as they are written."""
        return [flag for action in self._actions for flag in action.option_strings]

    def split(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The values of flags, and the words that no flag takes.

        Raises:
          FlagError: a value is missing, or its flag does not accept it.
        """
        try:
            return self.parse_known_intermixed_args(words)
        except argparse.ArgumentError as error:
            place = "" if error.argument_name is None else error.argument_name.partition("/")[0]
            raise FlagError(
                correction.fact(error.message), place=place, next_step=correction.see_help(self.prog)
            ) from None

    def error(self, message: str) -> NoReturn:
        raise FlagError(correction.fact(message), next_step=correction.see_help(self.prog))


class CommandParser(FlagParser):
    """The flags of one command.

    Attributes:
      actions: argparse's own of each flag, by the flag's name.
    """

    def __init__(self, command: Command, prog: str, **settings: Any) -> None:
        super().__init__(
            prog=prog,
            usage=help_text.usage(command),
            description=help_text.description(command),
            epilog=help_text.legend(command.config) or None,
            add_help=False,
            **settings,
        )
        self.actions: dict[str, argparse.Action] = {}
        with_bond = has_bonds(command.config)
        for subject, items in by_subject(command.config).items():
            note = help_text.group_note(command.config, (item.name for item in items))
            group = self.add_argument_group(subject.value, note)
            for item in items:
                self.actions[item.name] = _add_flag(group, item, with_bond=with_bond)
        group = self.add_argument_group(Subject.PROCESS.value)
        for item in command.process_flags:
            self.actions[item.name] = _add_flag(group, item, with_bond=False)
        group.add_argument("--help", "-h", action="help", help="print this text")


def parse(commands: Mapping[str, Command], argv: Sequence[str], other_flags: Iterable[str] = ()) -> CommandLine:
    """Reads a command line.

    Args:
      commands: all commands by name.
      argv: a command and its flags.
      other_flags: of a program around this one, such as `--queue`, which a wrong flag may have meant.

    Raises:
      FlagError: a command or a flag that does not exist, or a value that its flag does not accept.
      SettingsError: flags that do not go together.
      JobError: the file of `--config` cannot be read.
    """
    command = correction.command(commands, argv)
    parser = CommandParser(command, prog=f"tfos-job {command.name}")
    words, after = _at_dashes(argv[1:], command)
    found, unknown = parser.split(words)
    if unknown:
        raise correction.unknown_word(unknown, command, commands, other_flags)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(found).items()
    }
    for item in dataclasses.fields(command.config) if after else ():
        if "nargs" in item.metadata:
            values[item.name] = (*values.get(item.name, ()), *(flag_text.read(item, word) for word in after))
    if "config" in values:
        from tfos_job.commands import settings_file  # with storage, which `--help` need not import

        values = settings_file.with_file(values, command, commands)
    own = {item.name for item in dataclasses.fields(command.config)}
    return CommandLine(
        command=command,
        given={name: value for name, value in values.items() if name in own},
        process=ProcessConfig(**{name: value for name, value in values.items() if name not in own}),
    )


def _at_dashes(words: Sequence[str], command: Command) -> tuple[Sequence[str], Sequence[str]]:
    """The words before and after `--`, which ends the flags of a command that takes other words.

    argparse's own treatment loses it, where no such word stands before it, and takes `-a.png` for a flag.
    """
    has_others = any("nargs" in item.metadata for item in dataclasses.fields(command.config))
    at = words.index("--") if has_others and "--" in words else len(words)
    return words[:at], words[at + 1 :]


def configuration(command: Command, given: Mapping[str, Any]) -> Any:
    """The configuration of a command from the values of flags, by name.

    Raises:
      FlagError: a flag is missing, or a value is not accepted.
      SettingsError: values that do not go together.
      JobError: the settings of the run that is resumed cannot be read.
    """
    missing = [
        label(item)
        for item in dataclasses.fields(command.config)
        if item.default is dataclasses.MISSING and not is_inherited(item) and item.name not in given
    ]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise FlagError(
            f"{' and '.join(missing)} {verb} needed", next_step=correction.see_help(f"tfos-job {command.name}")
        )
    if command.configure is not None:
        return command.configure(given)
    return command.config(**given)


def _add_flag(group: argparse._ActionsContainer, item: dataclasses.Field[Any], *, with_bond: bool) -> argparse.Action:
    """Adds a flag. One that is not given leaves nothing in the result: the configuration has its default."""
    text = help_text.flag_help(item, with_bond=with_bond)
    if "nargs" in item.metadata:
        # "*", so that a missing one is told as a missing flag is.
        read = functools.partial(flag_text.read, item)
        return group.add_argument(
            item.name, type=read, help=text, nargs="*", default=argparse.SUPPRESS, metavar=item.metadata["metavar"]
        )
    names = [f"--{item.name}", *([f"-{item.metadata['short']}"] if "short" in item.metadata else [])]
    if flag_text.is_switch(item):
        return group.add_argument(*names, action="store_true", default=argparse.SUPPRESS, help=text)
    if kind_of(item).startswith("tuple"):
        return group.add_argument(
            *names,
            type=functools.partial(flag_text.read, item),
            action="append",
            default=argparse.SUPPRESS,
            help=text,
            metavar=flag_text.metavar(item),
        )
    const = True if kind_of(item) == "bool" else item.metadata.get("const")
    optional_value: dict[str, Any] = {} if const is None else {"nargs": "?", "const": const}
    return group.add_argument(
        *names,
        type=functools.partial(flag_text.read, item),
        default=argparse.SUPPRESS,
        help=text,
        metavar=flag_text.metavar(item),
        **optional_value,
    )
