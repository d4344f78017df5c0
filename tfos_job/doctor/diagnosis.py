"""The result of all checks: as a table, as JSON, and as one error that names every failure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.doctor.probe import ProbeResult
from tfos_job.errors import (
    AccessError,
    JobError,
    MissingInputError,
    ResourceError,
    SettingsError,
    StorageError,
    exit_code_class,
)

OK, WARNING, FAILED, NOT_TRIED = "ok", "warning", "failed", "not tried"
# Of several exit codes the first of these is reported: those that no retry helps, so that a scheduler does not retry.
_PRECEDENCE = (SettingsError, AccessError, MissingInputError, JobError, StorageError, ResourceError)
_NUM_NAMED = 5  # places named in a message; the JSON has all of them
_WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
      name: subject of the check, in one word.
      state: `OK`, `WARNING`, `FAILED` or `NOT_TRIED`.
      where: processes or hosts of the finding; empty if it concerns all of them.
      exit_code: of a failure; 0 otherwise.
    """

    name: str
    state: str
    fact: str
    where: tuple[str, ...] = ()
    next_step: str = ""
    exit_code: int = 0

    def __str__(self) -> str:
        return f"{name_some(self.where)}: {self.fact}" if self.where else self.fact


def failed(name: str, kind: type[JobError], fact: str, *, where: Sequence[str] = (), next_step: str = "") -> Check:
    return Check(name=name, state=FAILED, fact=fact, where=tuple(where), next_step=next_step, exit_code=kind.exit_code)


def name_some(names: Sequence[str]) -> str:
    """Returns `a, b`; of more than five names the rest is counted."""
    more = len(names) - _NUM_NAMED
    return ", ".join(names[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The findings of an examination; `seconds` is its duration."""

    checks: tuple[Check, ...]
    driver: ProbeResult
    executors: tuple[ProbeResult, ...]
    seconds: float

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.state == FAILED)

    @property
    def exit_code(self) -> int:
        """0, or the exit code of the failures; of several codes, one that no retry helps."""
        codes = {check.exit_code for check in self.failures}
        return next((kind.exit_code for kind in _PRECEDENCE if kind.exit_code in codes), min(codes, default=0))

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {
            "exit_code": self.exit_code,
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "driver": self.driver.to_dict(),
            "executors": [result.to_dict() for result in self.executors],
            "seconds": round(self.seconds, 3),
        }

    def table(self) -> str:
        """Returns a table with a row for each check, and the next step below those that need one."""
        name_width = max(len(check.name) for check in self.checks)
        indent = " " * (len(NOT_TRIED) + name_width + 4)
        lines: list[str] = []
        for check in self.checks:
            state = check.state.upper() if check.state == FAILED else check.state
            head = f"{state:<{len(NOT_TRIED)}}  {check.name:<{name_width}}  "
            text = [str(check), f"→ {check.next_step}"] if check.next_step else [str(check)]
            for begin, part in zip((head, indent), text, strict=False):
                lines += textwrap.wrap(
                    part, _WIDTH, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False,
                    break_long_words=False,
                )  # fmt: skip
        return "\n".join(lines)

    def raise_for_failures(self) -> None:
        """Raises one JobError of the class of `exit_code` that names every failure, if there are failures."""
        if not self.failures:
            return
        texts = [f"{c.name}: {c}" + (f" ({c.next_step})" if c.next_step else "") for c in self.failures]
        raise exit_code_class(self.exit_code)(
            f"{len(texts)} of {len(self.checks)} checks failed: {'; '.join(texts)}",
            next_step="`tfos-job doctor` examines the cluster again",
        )
