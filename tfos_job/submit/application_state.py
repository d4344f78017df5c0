"""State of a submitted application, read from spark-submit's log and from `yarn application -status`. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tfos_job.submit.verdict import ApplicationEnd

_ENDS = ("FINISHED", "FAILED", "KILLED")
_ASSIGNED = re.compile(r"Application ID is assigned: (application_\d+_\d+)")
_APPLICATION = re.compile(r"Submitted application (application_\d+_\d+)")
_STATE = re.compile(r"Application report for (application_\d+_\d+) \(state: (\w+)\)")
_DETAIL = re.compile(r"^\s+(diagnostics|final status|tracking URL|queue): (.*)$")
# Fields of `yarn application -status`, by their names in spark-submit's log.
_STATUS = {
    "State": "state",
    "Final-State": "final status",
    "Tracking-URL": "tracking URL",
    "Diagnostics": "diagnostics",
}
_STATUS_LINE = re.compile(r"^\t([A-Z][A-Za-z -]*?) : ?(.*)$")
_LOG_LINE = re.compile(r"^(?:INFO|WARN|ERROR|FATAL|DEBUG) \S+: ")
_LISTED = re.compile(r"^\s*(application_\d+_\d+)\t(.*)$", re.MULTILINE)
_NUMBER_LISTED = re.compile(r"^Total number of applications .*:(\d+)\s*$", re.MULTILINE)
TAIL_LINES = 40


@dataclass
class Watched:
    """The observed state of the application. Times are `time.time` on this host.

    Attributes:
      assigned: its id, known before the submission.
      application: its id, after the submission.
      times: of the first observation of each state, by state in lower case.
      tail: last lines of spark-submit's log.
    """

    assigned: str = ""
    application: str = ""
    state: str = ""
    details: dict[str, str] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    tail: list[str] = field(default_factory=list)

    def hear(self, line: str, now_s: float) -> None:
        """Reads one line of spark-submit's log."""
        if found := _APPLICATION.search(line):
            self.application = found[1]
            self.times.setdefault("submitted", now_s)
        elif found := _STATE.search(line):
            self.application, self.state = found.groups()
            self.times.setdefault(self.state.lower(), now_s)
        elif found := _DETAIL.match(line):
            self.details[found[1]] = found[2].strip()
        elif found := _ASSIGNED.search(line):
            self.assigned = found[1]
        elif self._goes_on(line):
            self.details["diagnostics"] += "\n" + line.rstrip()
        self.tail = [*self.tail, line.rstrip()][-TAIL_LINES:]

    def hear_status(self, text: str, now_s: float) -> bool:
        """Reads the output of `yarn application -status`; true if it describes the application."""
        found_fields: dict[str, str] = {}
        name = ""
        for line in text.splitlines():
            if found := _STATUS_LINE.match(line):
                name = _STATUS.get(found[1], "")
                found_fields[name] = found[2].strip()
            elif name == "diagnostics" and line.strip():
                found_fields[name] += "\n" + line.rstrip()
        if not found_fields.get("state"):
            return False
        self.state = found_fields.pop("state")
        self.details |= {key: value for key, value in found_fields.items() if key}
        self.times.setdefault(self.state.lower(), now_s)
        return True

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDS

    def _goes_on(self, line: str) -> bool:
        """True if the line continues diagnostics of several lines, which end at the next detail."""
        return (
            "diagnostics" in self.details
            and not _LOG_LINE.match(line)
            and not line.strip().startswith(("ApplicationMaster", "start time", "user:", "client token", "Exception"))
            and not line.startswith("\tat ")
        )

    def end(self, command: str) -> ApplicationEnd:
        words = self.details.get("diagnostics", "") if self.has_ended else ""
        return ApplicationEnd(
            application=self.application,
            final_status="KILLED" if self.state == "KILLED" else self.details.get("final status", ""),
            diagnostics=words if words not in ("", "N/A") else "\n".join(without_frames(self.tail)),
            command=command,
        )


def listed(text: str) -> dict[str, bool] | None:
    """Reads the output of `yarn application -list`: each application, and whether it has ended; None without a list.

    The columns are type, user, queue, state and four more behind an application's name, in which tabs may be.
    """
    number = _NUMBER_LISTED.search(text)
    states = {match[1]: match[2].split("\t")[-4:-3] for match in _LISTED.finditer(text)}
    found = {application: any(cell.strip() in _ENDS for cell in cells) for application, cells in states.items()}
    return found if number and len(found) == int(number[1]) else None


def without_frames(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith(("\tat ", "WARNING: "))]
