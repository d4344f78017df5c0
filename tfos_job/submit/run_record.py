"""The record of a submission under a run id: its place, what was asked, and what is known of its application. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tfos_job.config.defaults import SUBMISSIONS
from tfos_job.errors import BadDataError, FlagError
from tfos_job.layout import join

FORMAT_VERSION = 1
SUBMITTING, SUBMITTED, ENDED = "submitting", "submitted", "ended"
"""States: spark-submit may be at work; its application is known; the application's end is known."""

_PLAIN = frozenset((string.ascii_letters + string.digits + "._-").encode())
_LONGEST = 160  # bytes of a name; HDFS allows 255
_DIGEST_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a submission asks for, as far as another submission of the same run must ask for the same.

    Attributes:
      command: `train`, `convert`, …
      flags: the values of the command's flags that are given, as JSON values.
      spark_args: digest of the flags after `--`, in which passwords may be; empty without such flags.
    """

    command: str
    flags: Mapping[str, Any]
    spark_args: str = ""

    @classmethod
    def of(cls, command: str, given: Mapping[str, Any], spark_args: Sequence[str]) -> Self:
        """Args: the flags that are given, by name; the words after `--`."""
        flags = {name: value for name, value in given.items() if name != "dry_run"}
        digest = _digest(list(spark_args)) if spark_args else ""
        return cls(command=command, flags=json.loads(json.dumps(flags, default=str)), spark_args=digest)

    def differences(self, now: Asked) -> list[str]:
        """What `now` asks for otherwise, each in words: `--epoch: 5 before, 6 now`."""
        found = [f"command: {self.command} before, {now.command} now"] if self.command != now.command else []
        for name in sorted({*self.flags, *now.flags}):
            if self.flags.get(name) != now.flags.get(name):
                found.append(f"--{name}: {_in_words(self.flags, name)} before, {_in_words(now.flags, name)} now")
        return found + (["the flags after `--`"] if self.spark_args != now.spark_args else [])


@dataclass(frozen=True, kw_only=True)
class Record:
    """A submission under a run id.

    Attributes:
      run_id, stage: as given.
      asked: what it asks for.
      tag: YARN's tag of its applications.
      number: of the attempt, from 1.
      state: `SUBMITTING`, `SUBMITTED` or `ENDED`.
      spark_submit: identity of spark-submit's process (`process_identity`); None before it is let go.
      application: YARN's id; empty if it is not known.
      exit_code: of the submission; None before its end is known.
      error: its `fact`, `place` and `next_step`; None without an error.
      told: whether a submission has ended with this exit code.
      earlier: `number`, `application` and `exit_code` of earlier attempts that had an application.
    """

    run_id: str
    stage: str
    asked: Asked
    tag: str
    number: int = 1
    state: str = SUBMITTING
    spark_submit: Mapping[str, Any] | None = None
    application: str = ""
    exit_code: int | None = None
    error: Mapping[str, str] | None = None
    told: bool = False
    earlier: Sequence[Mapping[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    @staticmethod
    def from_json(value: Any, place: str) -> Record:
        """Raises BadDataError: the value is no record, or of a later version."""
        try:
            fields = dict(value)
            version = fields.pop("format_version")
            known = {field.name for field in dataclasses.fields(Record)}
            if version == FORMAT_VERSION:
                asked = Asked(**fields.pop("asked"))
                return Record(asked=asked, **{name: each for name, each in fields.items() if name in known})
            fact = f"a record of version {version}, this package reads {FORMAT_VERSION}"
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            fact = f"no record of a submission: {e!r}"
        raise BadDataError(
            fact, place=place, next_step="See `yarn application -list` before you remove it, or give another --run_id"
        )

    def next(self, asked: Asked, tag: str, number: int) -> Record:
        """The record of the attempt with this number, about to be submitted."""
        earlier = list(self.earlier)
        if self.application:
            earlier.append({"number": self.number, "application": self.application, "exit_code": self.exit_code})
        return Record(run_id=self.run_id, stage=self.stage, asked=asked, tag=tag, number=number, earlier=earlier)


def folder(hdfs_dir: str, run_id: str, stage: str) -> str:
    """The folder of a record and its lock.

    Raises:
      FlagError: an empty run id or stage.
    """
    for flag, word in (("--run_id", run_id), ("--stage", stage)):
        if not word:
            raise FlagError("empty", place=flag, next_step="Give a word, such as the date of the night")
    return join(hdfs_dir, SUBMISSIONS, path_name(run_id), path_name(stage))


def path_name(word: str) -> str:
    """A word as the name of a file on HDFS, which takes no `/` and no `:`; different words have different names.

    Letters, digits, `.`, `_` and `-` stay; each other byte, and a `.` in front, becomes `=` and two hexadecimal digits.
    A name that would be too long ends with `=-` and a digest instead.
    """
    data = word.encode("utf-8", "surrogateescape")
    name = "".join(
        chr(byte) if byte in _PLAIN and (at or byte != ord(".")) else f"={byte:02X}" for at, byte in enumerate(data)
    )
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(data).hexdigest()[:_DIGEST_LENGTH]
    return f"{name[: _LONGEST - len(digest) - 2]}=-{digest}"


def tag_of(hdfs_dir: str, run_id: str, stage: str, asked: Asked) -> str:
    """YARN's tag of the applications of a submission: short, ASCII, lower case, as YARN wants tags to be."""
    return "tfos_job-run-" + _digest([hdfs_dir, run_id, stage, dataclasses.asdict(asked)])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]


def _in_words(flags: Mapping[str, Any], name: str) -> str:
    return str(flags[name]) if name in flags else "not given"
