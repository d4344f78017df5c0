"""A run's page: one HTML file that refers to nothing outside itself.

`view` chooses what the page shows and turns every value into text; the template page.html, with page.css, puts the
texts into markup and escapes each of them (autoescape). Both are read as resources, since the package may be a zip.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jinja2

from tfos_job.reports.page_parts import Bar, Picture, Table, is_number, seconds, shown

# How `bound.by` of a report reads in a sentence, and the order of its phases, which JSON does not keep.
_BOUND_BY = {"input": "waiting for input", "network": "the network between the nodes", "compute": "computing"}
_PHASES = ("spark", "preflight", "statistics", "nodes", "coordinator", "training", "stopping", "end")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation: its name, numbers, pictures and tables, and its missing parts."""

    name: str
    metrics: Mapping[str, Any]
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class RunData:
    """A run's data, of which the page is made.

    Attributes:
      report: the run's report, of any version of the package.
      settings: the settings of its last command; empty if they could not be read.
      data_title: the dataset's place.
      notes: missing parts, by section: `curves`, `evaluations`, `data`, `settings`.
    """

    name: str
    place: str
    report: Mapping[str, Any]
    settings: Mapping[str, Any]
    curves: Sequence[Picture]
    evaluations: Sequence[Evaluation]
    data_title: str
    data: Sequence[Picture]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    made: str = ""


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The first cause of a failure; `place` and `next_step` may be empty."""

    fact: str
    place: str
    next_step: str


@dataclass(frozen=True, kw_only=True)
class View:
    """The page's content in the order of the page; a part that is None or empty is left out, or a note says so.

    Attributes:
      end: follows the state in its sentence.
      facts: the numbers of the summary, by name.
      verdict: the bottleneck of the steps, in sentences.
      notes: missing parts, by section.
    """

    name: str
    place: str
    state: str
    end: str
    cause: Cause | None
    facts: Mapping[str, str]
    curves: Sequence[Picture]
    verdict: str
    step_shares: Sequence[Bar]
    phases: Sequence[Bar]
    metrics: Table | None
    evaluations: Sequence[Evaluation]
    data_title: str
    data: Sequence[Picture]
    settings: Table | None
    attempts: Table | None
    notes: Mapping[str, Sequence[str]]
    made: str


def render(run: RunData) -> str:
    """The page, as UTF-8 text."""
    return _template().render(view=view(run))


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")


def _resource(name: str) -> str:
    return (importlib.resources.files("tfos_job.reports") / name).read_text("utf-8")


def view(run: RunData) -> View:
    """The page's content."""
    report = run.report
    return View(
        name=run.name,
        place=run.place,
        state=str(report.get("state", "unknown")),
        end=_end(report),
        cause=_cause(report),
        facts=_facts(report),
        curves=run.curves,
        verdict=_verdict(_mapping(report, "bound")),
        step_shares=_step_shares(_mapping(report, "bound")),
        phases=_phases(_mapping(report, "phases")),
        metrics=_metrics(run.evaluations),
        evaluations=[e for e in run.evaluations if e.pictures or e.tables or e.notes],
        data_title=run.data_title,
        data=run.data,
        settings=_settings(run.settings),
        attempts=_attempts(report),
        notes=run.notes,
        made=run.made,
    )


# --- summary and speed -----------------------------------------------------------------------------------------------


def _end(report: Mapping[str, Any]) -> str:
    code = report.get("exit_code")
    if code is not None:
        return f", exit code {code}"
    return ", but its driver is gone" if report.get("abandoned") else ""


def _cause(report: Mapping[str, Any]) -> Cause | None:
    cause = report.get("first_cause")
    if not isinstance(cause, Mapping):
        return None
    fact, place, next_step = cause.get("fact", "not told"), cause.get("place") or "", cause.get("next_step") or ""
    return Cause(fact=str(fact), place=str(place), next_step=str(next_step))


def _facts(report: Mapping[str, Any]) -> dict[str, str]:
    metrics, model = _mapping(report, "metrics"), _mapping(report, "model")
    at = f" at step {shown(metrics['evaluated_step'])}" if "evaluated_step" in metrics else ""
    return {
        "step": f"{shown(report.get('step'))} of {shown(report.get('total_steps'))}",
        f"validation top-1{at}": shown(metrics.get("top_1")),
        f"validation loss{at}": shown(metrics.get("loss")),
        "training loss": shown(metrics.get("train_loss")),
        "images/s": shown(report.get("images_per_second")),
        "training records": shown(report.get("num_records")),
        "classes": shown(model.get("num_classes")),
        "network": str(model.get("model_name", "–")),
    }


def _verdict(bound: Mapping[str, Any]) -> str:
    by = bound.get("by")
    verdict = f"Most of a step goes to {_BOUND_BY.get(str(by), by)}." if by else "Nothing bounds a step clearly."
    return f"{verdict} A step takes {seconds(bound['step_s'])}." if is_number(bound.get("step_s")) else verdict


def _step_shares(bound: Mapping[str, Any]) -> list[Bar]:
    shares = _numbers(_mapping(bound, "shares"))
    return [Bar(name=name, share=share, value=f"{share:.1%}") for name, share in shares.items()]


def _phases(phases: Mapping[str, Any]) -> list[Bar]:
    """Each phase and its share of all of them; those that the page does not know come last."""
    times_s = _numbers(phases)
    total_s = sum(times_s.values())
    if total_s <= 0:
        return []
    names = sorted(times_s, key=lambda name: _PHASES.index(name) if name in _PHASES else len(_PHASES))
    return [Bar(name=name, share=times_s[name] / total_s, value=seconds(times_s[name])) for name in names]


# --- tables ----------------------------------------------------------------------------------------------------------


def _metrics(evaluations: Sequence[Evaluation]) -> Table | None:
    if not evaluations:
        return None
    there = dict.fromkeys(name for e in evaluations for name in e.metrics if name not in ("split", "step"))
    names = sorted(there, key=lambda name: (name != "num_examples", name != "loss"))
    rows = [(e.name, *(e.metrics.get(name) for name in names)) for e in evaluations]
    return Table(head=("evaluation", *names), rows=rows, caption="Metrics of every evaluation")


def _settings(settings: Mapping[str, Any]) -> Table | None:
    """The settings as they were given: no thousands separators, no rounding."""
    if not settings:
        return None
    words = {None: "–", True: "yes", False: "no"}
    rows = [
        (name, words[value] if value is None or isinstance(value, bool) else str(value))
        for name, value in sorted(settings.items())
    ]
    return Table(head=("setting", "value"), rows=rows, caption="Settings of the last command")


def _attempts(report: Mapping[str, Any]) -> Table | None:
    attempts = [a for a in report.get("attempts") or [] if isinstance(a, Mapping)]
    if not attempts:
        return None
    names = ("started", "ended", "state", "start_step", "end_step")
    more = sorted({name for attempt in attempts for name in attempt} - {*names, "records"})
    rows = [
        (number, *(attempt.get(name) for name in (*names, *more)), _records(attempt.get("records")))
        for number, attempt in enumerate(attempts, start=1)
    ]
    return Table(head=("attempt", *names, *more, "records"), rows=rows, caption="Each start of training")


def _records(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "other ones than before"
    return f"{value.get('seen_twice', 0)} seen twice, {value.get('skipped', 0)} skipped"


# --- values ----------------------------------------------------------------------------------------------------------


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): value for name, value in values.items() if is_number(value)}


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, Mapping) else {}
