"""The table of docs/security.md: what came of attacks on the ports of running jobs; the same until that changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.attacker import CLOSED, CONNECTION, FEW, FLOOD, HALF_OPEN, NO_CONNECTION, REFUSED, REPLAYED, SLOW, Outcome
from tests.listeners import HELD, LINE, NAMES, PAGE, PROCESSES, RENDEZVOUS, TENSORFLOW

BEGIN, END = "<!-- attacker: begin -->", "<!-- attacker: end -->"
HEAD = "| port | processes | from | attack | outcome |\n|---|---|---|---|---|\n"
ANYWHERE, ELSEWHERE, OWN_HOST = "anywhere", "another address", "the job's hosts"
ALL = "all"
_SILENT, _OTHERS, _REPLAYS = "nothing sent; slow sends", "garbage, pickles, calls of other protocols", "replayed frames"
_BOUNDED = (TENSORFLOW, HELD, LINE, RENDEZVOUS)
_ORDER = (_SILENT, FLOOD, _OTHERS, _REPLAYS, CONNECTION)


@dataclass(frozen=True)
class Row:
    """One of the table."""

    port: str
    processes: tuple[str, ...]
    source: str
    attacks: tuple[str, ...]
    outcome: str

    def __str__(self) -> str:
        attacks = ALL if len(self.attacks) > 2 else "; ".join(self.attacks)
        return f"| {self.port} | {', '.join(self.processes)} | {self.source} | {attacks} | {self.outcome} |"


def table(outcomes: Iterable[Outcome], sources: Mapping[str, str]) -> str:
    """Markdown, with a line for what is equal.

    Args:
      outcomes: of all attacks.
      sources: `ELSEWHERE` or `OWN_HOST` by address.
    """
    groups: dict[tuple[str, str, str, str], list[Outcome]] = {}
    outcomes = list(outcomes)
    pages = {each.listener for each in outcomes if each.received.startswith(b"HTTP/")}
    for each in outcomes:
        key = (
            PAGE if each.listener in pages else each.listener.port_name,
            each.listener.process,
            sources[each.source],
            _group(each),
        )
        groups.setdefault(key, []).append(each)
    by_port: dict[tuple[str, str, str], dict[str, str]] = {}
    for (port, process, source, attack), found in groups.items():
        by_port.setdefault((port, process, source), {})[attack] = _words(found)
    rows = []
    for port in NAMES:
        of_port = {key[1:]: words for key, words in by_port.items() if key[0] == port}
        rows += [row for source, words, who in _folded(of_port) for row in _rows(port, who, source, words)]
    return HEAD + "".join(f"{row}\n" for row in rows)


def _folded(
    of_port: Mapping[tuple[str, str], Mapping[str, str]],
) -> list[tuple[str, Mapping[str, str], tuple[str, ...]]]:
    """Sources and processes with the same outcomes, together."""
    found: list[tuple[str, Mapping[str, str], tuple[str, ...]]] = []
    for process in PROCESSES:
        by_source = {source: words for (who, source), words in of_port.items() if who == process}
        if len(by_source) == 2 and by_source[ELSEWHERE] == by_source[OWN_HOST]:
            by_source = {ANYWHERE: by_source[ELSEWHERE]}
        for source, words in sorted(by_source.items()):
            same = next((at for at, each in enumerate(found) if each[:2] == (source, words)), None)
            if same is None:
                found.append((source, words, (process,)))
            else:
                found[same] = (source, words, (*found[same][2], process))
    return found


def _rows(port: str, processes: tuple[str, ...], source: str, words: Mapping[str, str]) -> list[Row]:
    rows: list[Row] = []
    for attack in [name for name in _ORDER if name in words]:
        if rows and rows[-1].outcome == words[attack]:
            rows[-1] = Row(port, processes, source, (*rows[-1].attacks, attack), rows[-1].outcome)
        else:
            rows.append(Row(port, processes, source, (attack,), words[attack]))
    return rows


def _group(outcome: Outcome) -> str:
    if outcome.attack in (HALF_OPEN, SLOW):
        return _SILENT
    if outcome.attack in (FLOOD, CONNECTION):
        return outcome.attack
    return _REPLAYS if outcome.attack in REPLAYED and outcome.listener.port_name in (LINE, RENDEZVOUS) else _OTHERS


def _words(found: Iterable[Outcome]) -> str:
    """For several: the worst of them. Which of several ends random bytes have is left open."""
    outcomes = list(found)
    ends = {each.end for each in outcomes}
    if ends == {NO_CONNECTION}:
        return "no connection"
    answers = sorted({answer for each in outcomes if (answer := answer_of(each.received))})
    heard = f"; answered with {' and '.join(answers)}" if answers else ""
    if ends <= {CLOSED, REFUSED}:
        return "closed" + heard
    if outcomes[0].listener.port_name in _BOUNDED and ends <= {CLOSED, REFUSED, FEW}:
        return "few are kept" + heard
    return "nothing happens; may stay open" + heard


def answer_of(received: bytes) -> str:
    """What somebody has said, in words that are the same each time."""
    if not received:
        return ""
    if len(received) == 16:
        return "a nonce"
    if received.startswith(b"HTTP/"):
        return f"HTTP {received.split()[1].decode()}"
    is_error = received.startswith(b"!") or received.endswith(b"err") or b"Exception" in received
    return "an error" if is_error else f"{len(received)} bytes"


def written(page: str, made: str) -> str:
    """The page with the table between its marks.

    Raises:
      ValueError: it has not both of them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{begin}\n{made}{end}{after}"


def processes_of(page: str) -> set[str]:
    """The processes that the table of a page names."""
    lines = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    return {process for line in lines for process in line.split(" | ")[1].split(", ")}


def write(path: Path, made: str) -> None:
    path.write_text(written(path.read_text("utf-8"), made), "utf-8")
