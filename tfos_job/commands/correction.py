"""What a wrong word of the command line was meant to be: a command, a flag of this command or of another one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from tfos_job.commands.command import Command
from tfos_job.config.nearest import nearest
from tfos_job.errors import FlagError

_ARGPARSE = (
    (re.compile("expected .*argument.*"), "its value is missing"),
    (re.compile("the following arguments are required: (.*)"), r"\1 is needed"),
    (re.compile("invalid int value: (.*)"), r"\1 is not a whole number"),
    (re.compile("ignored explicit argument (.*)"), r"it takes no value, and has \1"),
)


def see_help(prog: str) -> str:
    return f"`{prog} --help` lists the flags"


def fact(message: str) -> str:
    """Argparse's message about a flag, in our words."""
    for pattern, words in _ARGPARSE:
        if match := pattern.fullmatch(message):
            return match.expand(words)
    return message


def command(commands: Mapping[str, Command], argv: Sequence[str]) -> Command:
    """The command of a command line.

    Raises:
      FlagError: there is none of its name.
    """
    name = argv[0] if argv else ""
    if name in commands:
        return commands[name]
    later = next((word for word in argv[1:] if word in commands), "")
    if name.startswith("-"):
        raise FlagError(
            f"{name} stands before the command",
            next_step=f"A command's flags follow its name: tfos-job {later or 'COMMAND'} {name}",
        )
    near = nearest(name, commands)
    raise FlagError(
        f"there is no command {name!r}",
        next_step=(f"Did you mean {near}? " if near else "") + "`tfos-job --help` lists the commands",
    )


def flags_of(command: Command) -> list[str]:
    """The names of a command's flags."""
    return [item.name for item in command.flags if "nargs" not in item.metadata]


def unknown_word(
    words: Sequence[str], command: Command, commands: Mapping[str, Command], other_flags: Iterable[str] = ()
) -> FlagError:
    """The error about words that a command does not take.

    Args:
      words: those that were left over.
      command: the command.
      commands: all commands by name.
      other_flags: of a program around this one.
    """
    word = next((word for word in words if word.startswith("-") and word != "-"), words[0])
    own, hint = flags_of(command), see_help(f"tfos-job {command.name}")
    if not word.startswith("-"):
        return FlagError(
            f"{word!r} is no flag",
            next_step=(f"Did you mean --{word}? " if word in own else "Flags begin with `--`. ") + hint,
        )
    flag = word.partition("=")[0]
    name = flag.lstrip("-").replace("-", "_").lower()
    elsewhere = [other.name for other in commands.values() if name in flags_of(other)]
    if name in own:
        step = f"Did you mean --{name}? "
    elif elsewhere:
        return FlagError(
            f"{flag} is no flag of {command.name}", next_step=f"It is a flag of {', '.join(elsewhere)}. {hint}"
        )
    else:
        near = nearest(flag, [*own, *(other.lstrip("-") for other in other_flags)])
        if near and near not in own:
            return FlagError(f"there is no flag {flag}", next_step=f"Did you mean {_written(near, other_flags)}?")
        step = f"Did you mean --{near}? " if near else ""
    return FlagError(f"there is no flag {flag}", next_step=step + hint)


def _written(name: str, other_flags: Iterable[str]) -> str:
    return next((flag for flag in other_flags if flag.lstrip("-") == name), f"--{name}")
