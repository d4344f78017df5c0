"""A run's page: one HTML file that refers to nothing outside itself.

`view` chooses what the page shows and turns every value into text; the template page.html, with page.css, puts the
texts into markup and escapes each of them (autoescape).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfos_job.reports import page_attempts, page_tables, page_wire
from tfos_job.reports.page_attempts import FailedAttempt
from tfos_job.reports.page_parts import Bar, Picture, Table, clock, shown, template
from tfos_job.reports.page_tables import Evaluation
from tfos_job.reports.page_wire import Wire
from tfos_job.run import attempt_words, given_settings, summary, verdict
from tfos_job.run.folder import RUNNING
from tfos_job.run.quantities import NOTHING, duration, is_number, measured, number, share
from tfos_job.run.summary import RunSummary

SECTIONS = {
    "curves": "Curves",
    "evaluations": "Evaluations",
    "settings": "Settings",
    "speed": "Speed",
    "attempts": "Attempts",
    "data": "Data",
}
# How `bound.by` of a report reads in a sentence, and the order of its phases, which JSON does not keep.
_BOUND_BY = {"input": "waiting for input", "network": "the network between the nodes", "compute": "computing"}
_PHASES = (
    "application", "containers", "statistics", "registration", "build", "first_step", "training", "shutdown", "backoff",
    "end",
)  # fmt: skip
# Their names in reports of earlier versions.
_OLD_PHASES = {
    "spark": "application", "preflight": "containers", "nodes": "registration", "coordinator": "build",
    "stopping": "shutdown",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunData:
    """A run's data, of which the page is made.

    Attributes:
      run: report, settings and numbers, of any version of the package.
      previous: the run that it is compared with.
      compared_with: which one that is, and why, in a sentence.
      data_title: the dataset's place.
      notes: missing parts, by section: `curves`, `evaluations`, `data`, `settings`.
    """

    run: RunSummary
    previous: RunSummary | None = None
    compared_with: str = ""
    curves: Sequence[Picture] = ()
    evaluations: Sequence[Evaluation] = ()
    data_title: str = ""
    data: Sequence[Picture] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    made: str = ""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The first cause of a failure; `place` and `next_step` may be empty."""

    fact: str
    place: str
    next_step: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """Top-1 on a split; `difference` is empty if there is nothing to compare with, `basis` is what it was counted on.

    Attributes:
      kind: `better`, `worse` or empty: the difference is larger than chance makes it.
    """

    label: str
    top_1: str
    difference: str
    kind: str
    basis: str


@dataclass(frozen=True, kw_only=True)
class View:
    """The page's content in the order of the page; a part that is None or empty is left out, or a note says so.

    Attributes:
      state_words: the state, with what follows from it.
      kind: `good`, `bad` or empty.
      facts: the numbers of the summary, by name.
      command: its parts, each a flag with its value.
      bottleneck: of the steps, in sentences.
      settings: those that were given, then the defaults.
      failed: the ends of attempts that failed.
      notes: missing parts, by section.
    """

    title: str
    sections: Mapping[str, str]
    state: str
    state_words: str
    kind: str
    cause: Cause | None
    standings: Sequence[Result]
    compared_with: str
    facts: Mapping[str, str]
    command: Sequence[str]
    curves: Sequence[Picture]
    bottleneck: str
    step_shares: Sequence[Bar]
    wire: Wire | None
    phases: Sequence[Bar]
    metrics: Table | None
    evaluations: Sequence[Evaluation]
    data_title: str
    data: Sequence[Picture]
    settings: Sequence[Table]
    attempts: Table | None
    nodes: Table | None
    failed: Sequence[FailedAttempt]
    notes: Mapping[str, Sequence[str]]
    made: str


def render(data: RunData) -> str:
    """The page, as UTF-8 text."""
    return template("page.html").render(view=view(data))


def view(data: RunData) -> View:
    """The page's content."""
    run, report = data.run, data.run.report
    words, kinds = summary.words(run), {"finished": "good", "running": ""}
    return View(
        title=run.place,
        sections=SECTIONS,
        state=run.state,
        state_words=f"{words[:1].upper()}{words[1:]}",
        kind=kinds.get(run.state, "bad"),
        cause=_cause(report),
        standings=[result(standing) for standing in verdict.standings(run, data.previous)],
        compared_with=data.compared_with,
        facts=facts(run),
        command=given_settings.command(run.settings),
        curves=data.curves,
        bottleneck=_bottleneck(_mapping(report, "bound")),
        step_shares=_step_shares(_mapping(report, "bound")),
        wire=page_wire.wire(report),
        phases=_phases(_mapping(report, "phases")),
        metrics=page_tables.metrics(data.evaluations),
        evaluations=[e for e in data.evaluations if e.pictures or e.tables or e.notes],
        data_title=data.data_title,
        data=data.data,
        settings=page_tables.settings(run.settings),
        attempts=page_attempts.attempts(run),
        nodes=page_attempts.nodes(run),
        failed=page_attempts.failed(run),
        notes=data.notes,
        made=data.made,
    )


# --- verdict and speed -----------------------------------------------------------------------------------------------


def _cause(report: Mapping[str, Any]) -> Cause | None:
    found = summary.cause(report)
    return None if found is None else Cause(fact=found[0], place=found[1], next_step=found[2].rstrip("."))


def result(standing: verdict.Standing) -> Result:
    """A standing as text."""
    score, difference = standing.score, standing.difference
    kind = "" if not difference or standing.may_be_chance else "better" if difference > 0 else "worse"
    of = f", on {number(score.num_records)} records" if score.num_records is not None else ""
    if difference is not None and standing.other_records not in (None, score.num_records):
        of += f"; the other run on {number(standing.other_records or 0)}"
    return Result(
        label=score.label,
        top_1=share(standing.top_1, score.num_records),
        difference=standing.words,
        kind=kind,
        basis=f"at step {number(score.step)}{of}",
    )


def facts(run: RunSummary) -> dict[str, str]:
    """The numbers of a run that people ask for first, by name."""
    report, model = run.report, _mapping(run.report, "model")
    metrics = _mapping(report, "metrics")
    took = run.duration_s
    return {
        "step": f"{shown(report.get('step'))} of {shown(report.get('total_steps'))}",
        "duration": NOTHING if took is None else duration(took),
        "host": run.host or NOTHING,
        "started": clock(run.started),
        "ended": clock(run.ended) if run.state != RUNNING else NOTHING,
        "attempts": attempt_words.count(report) or NOTHING,
        "goodput": NOTHING if run.goodput is None else share(run.goodput),
        "training loss": measured(metrics.get("train_loss")),
        "validation loss": measured(metrics.get("loss")),
        "images/s": measured(report.get("images_per_second")),
        "bytes a step": page_wire.in_short(report),
        "slow worker": attempt_words.slowest_worker(report) or NOTHING,
        "training records": shown(report.get("num_records")),
        "classes": shown(model.get("num_classes")),
        "network": str(model.get("model_name", NOTHING)),
    }


def _bottleneck(bound: Mapping[str, Any]) -> str:
    by = bound.get("by")
    found = f"Most of a step goes to {_BOUND_BY.get(str(by), by)}." if by else "Nothing bounds a step clearly."
    return f"{found} A step takes {duration(bound['step_s'])}." if is_number(bound.get("step_s")) else found


def _step_shares(bound: Mapping[str, Any]) -> list[Bar]:
    shares = _numbers(_mapping(bound, "shares"))
    return [Bar(name=name, share=part, value=share(part)) for name, part in shares.items()]


def _phases(phases: Mapping[str, Any]) -> list[Bar]:
    """Each phase and its share of all of them; those that the page does not know come last."""
    times_s = _numbers(phases)
    total_s = sum(times_s.values())
    if total_s <= 0:
        return []

    def place(name: str) -> int:
        known = _OLD_PHASES.get(name, name)
        return _PHASES.index(known) if known in _PHASES else len(_PHASES)

    names = sorted(times_s, key=place)
    return [
        Bar(name=name.replace("_", " "), share=times_s[name] / total_s, value=duration(times_s[name])) for name in names
    ]


# --- values ----------------------------------------------------------------------------------------------------------


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): value for name, value in values.items() if is_number(value)}


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, Mapping) else {}
