"""Flags as fields of frozen dataclasses. A field's metadata is all that a flag is.

`--help`, docs/reference.md and the checks of values are derived from it, so that no choice or bound is written twice;
a configuration's own `__post_init__` holds combinations of flags alone.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tfos_job.config.values import converted, either, refusal
from tfos_job.errors import FlagError, SettingsError

Config = TypeVar("Config")


class Bond(enum.Enum):
    """The effect of a flag of `train` on a run that is resumed: see `run/resume.py`."""

    RECIPE = "what is learned and how: inherited from the run; a change fails without --change_settings"
    EXTENT = "where and how much: inherited from the run, and free to change"
    ORIGIN = "where a run begins: inherited until the run has a checkpoint, ignored afterwards"
    COMMAND = "this command only"


RECIPE, EXTENT, ORIGIN, COMMAND = Bond.RECIPE, Bond.EXTENT, Bond.ORIGIN, Bond.COMMAND


class Subject(enum.Enum):
    """What a flag is about: the groups of `--help` and of docs/reference.md, in their order."""

    GENERAL = "flags"
    INPUT = "input"
    DATASET = "dataset"
    CLASSES = "classes"
    RECORDS = "records"
    RUN = "run and resuming"
    NETWORK = "network"
    LENGTH = "length"
    OPTIMIZER = "optimizer and schedule"
    NORMALIZATION = "normalization"
    AUGMENTATION = "augmentation (in training alone)"
    CHECKPOINTS = "checkpoints and evaluations"
    READING = "reading"
    NODES = "nodes"
    TIMEOUTS = "time limits"
    PROCESS = "every command"


def flag(help_text: str, default: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A dataclass field that is also a flag. Its name is the flag's name; without a default it is required.

    A flag whose field is a tuple may be given several times.

    Args:
      help_text: what it is, with its unit.
      default: the default.
      **metadata: `choices`; the bounds of a `Range`; `form` (a `TextForm`); `names` (words that are among its values,
        for completion); `next_step` (of the error about a bad value); `metavar`; `nargs` (then it is positional);
        `const` (the value of a flag without one); `subject` (a `Subject`); `one_of` (a name: exactly one of the flags
        that have it must be given); `bond` (a `Bond`, of each flag of `train`); `short` (one letter).
    """
    return field(default=default, metadata={"help": help_text, **metadata})


def path(help_text: str, default: Any = dataclasses.MISSING, *, words: tuple[str, ...] = (), **metadata: Any) -> Any:
    """A flag whose value is a path, or one of `words`."""
    return flag(help_text, default, path=words, **metadata)


def is_inherited(item: dataclasses.Field[Any]) -> bool:
    """True if a resumed run inherits the flag's value, so that a command may have to take it back."""
    return item.metadata.get("bond") in (RECIPE, EXTENT)


def own_first(config: type) -> list[dataclasses.Field[Any]]:
    """A configuration's flags; those that it shares with other commands come last."""

    def depth(item: dataclasses.Field[Any]) -> int:
        kinds = enumerate(config.__mro__)
        return next(at for at, kind in kinds if item.name in inspect.get_annotations(kind))

    return sorted(dataclasses.fields(config), key=depth)


def by_subject(config: type) -> dict[Subject, list[dataclasses.Field[Any]]]:
    """A configuration's flags by their subjects, in the order of `Subject`."""
    found: dict[Subject, list[dataclasses.Field[Any]]] = {subject: [] for subject in Subject}
    for item in own_first(config):
        found[item.metadata.get("subject", Subject.GENERAL)].append(item)
    return {subject: items for subject, items in found.items() if items}


def has_bonds(config: type) -> bool:
    """True if each flag has its effect on a resumed run."""
    return all("bond" in item.metadata for item in dataclasses.fields(config))


def alternatives(config: Any) -> dict[str, list[str]]:
    """Flags of which exactly one must be given, by the name that they share."""
    found: dict[str, list[str]] = {}
    for item in dataclasses.fields(config):
        if "one_of" in item.metadata:
            found.setdefault(item.metadata["one_of"], []).append(item.name)
    return found


def checked(item: dataclasses.Field[Any], value: Any) -> Any:
    """The value of a flag as its configuration has it.

    Raises:
      FlagError: the flag does not accept it.
    """
    if value is None:
        return None
    kind = kind_of(item)
    value = converted(value, kind)
    fact, next_step = refusal(value, kind, item.metadata, may_be_empty=item.default == "")
    if fact:
        raise FlagError(fact, place=label(item), next_step=next_step)
    return value


def kind_of(item: dataclasses.Field[Any]) -> str:
    """The type of a flag without a value: `int` of `int | None`, as it is written."""
    return str(item.type).removesuffix(" | None")


def label(item: dataclasses.Field[Any]) -> str:
    """A flag as it is written: `--epoch`, or `IMAGE` of one that is positional."""
    return item.metadata["metavar"] if "nargs" in item.metadata else f"--{item.name}"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The configuration of a command.

    Raises:
      FlagError: a value that its field does not accept, or none of the flags of which one is needed.
      SettingsError: two of those flags.
    """

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, checked(item, getattr(self, item.name)))
        for names in alternatives(self).values():
            given = [name for name in names if getattr(self, name) is not None]
            if not given:
                raise FlagError("one of them is needed", place=either([f"--{name}" for name in names]))
            refuse_both(len(given) > 1, given[-1], given[0])


def require(condition: bool, name: str, fact: str, next_step: str = "") -> None:
    """Raises the SettingsError of a flag unless the condition holds."""
    if not condition:
        raise SettingsError(fact, place=f"--{name}", next_step=next_step)


def refuse_both(is_both: bool, name: str, other: str, next_step: str = "Give one of them") -> None:
    """Raises the SettingsError of a flag that was given together with another one."""
    require(not is_both, name, f"given together with --{other}", next_step)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON values."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`, for what a file holds.

    Raises:
      SettingsError: a key the configuration does not have, or a bad value.
    """
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingsError(
            f"unknown setting{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            place=kind.__name__,
            next_step=f"Known: {', '.join(sorted(known))}",
        )
    try:
        return kind(**values)
    except FlagError as error:  # a file's value is no flag that the user could leave out
        raise SettingsError(error.fact, place=error.place, next_step=error.next_step) from error


def paths(config: Any) -> list[tuple[str, str]]:
    """The paths that a command is given, each with its flag as it is written."""
    found = []
    for item in dataclasses.fields(config):
        if "path" in item.metadata:
            value = getattr(config, item.name)
            given = value if isinstance(value, tuple) else (value,)
            found += [(label(item), path) for path in given if path and path not in item.metadata["path"]]
    return found
