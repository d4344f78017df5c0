"""One HTML file with all of a run: pure text in, pure text out. Nothing in it points outside of itself.

Every value is escaped where it enters the markup (`_text`); functions that begin with an underscore return markup.
Pictures are embedded and keep their white paper in the dark.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# How `bound.by` of a report reads in a sentence, and the order of its phases, of which JSON keeps none.
_BOUND_BY = {"input": "waiting for input", "network": "the network between the nodes", "compute": "computing"}
_PHASES = ("spark", "preflight", "statistics", "nodes", "coordinator", "training", "stopping", "end")

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5b6874; --line: #d9dee4; --ground: #f6f7f9;
  --paper: #fff; --blue: #2b6cb0; --bad: #c53030; --good: #2f855a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --muted: #9aa5b1; --line: #3a434d; --ground: #14181d;
  --paper: #1d2329; --blue: #63a4e8; --bad: #fc8181; --good: #68d391; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Microsoft YaHei",
  "Noto Sans CJK SC", sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1.25rem 0 .25rem; }
p { margin: .5rem 0; }
a { color: var(--blue); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; margin: .75rem 0 0; }
.place, .note, figcaption, footer { color: var(--muted); font-size: .9rem; overflow-wrap: anywhere; }
.state { font-weight: 600; } .state.finished { color: var(--good); } .state.failed { color: var(--bad); }
.cause { border-left: .25rem solid var(--bad); background: var(--paper); padding: .75rem 1rem; margin: 1rem 0; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
dl.facts div { background: var(--paper); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
dl.facts dt { color: var(--muted); font-size: .8rem; } dl.facts dd { margin: 0; font-size: 1.2rem; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--muted); font-weight: 500; }
tbody th { font-weight: 500; } td.number, th.number { text-align: right; white-space: nowrap; }
caption { text-align: left; color: var(--muted); padding: .5rem 0 .25rem; }
figure { margin: 1rem 0; } figcaption { margin-top: .25rem; }
figure .scroll { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .25rem; }
img { display: block; max-width: 100%; height: auto; } figure.large img { min-width: 34rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 1rem; }
.bar { display: inline-block; height: .7rem; background: var(--blue); border-radius: .2rem; vertical-align: middle; }
td.bars { min-width: 9rem; width: 14rem; }
footer { padding: 2rem 1rem 3rem; }
"""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG with what it shows in words: `alt` for those who do not see it, `caption` for all."""

    png: bytes
    alt: str
    caption: str = ""
    large: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows below a head. `chinese` are the columns that hold names of classes."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    chinese: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation: its name, numbers, pictures and tables, and what of it is missing."""

    name: str
    metrics: Mapping[str, Any]
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Account:
    """All that the page shows.

    Attributes:
      report: of the run.
      settings: of its last command; empty where they could not be read.
      data_title: the dataset's place.
      notes: what is missing, by section: `curves`, `evaluations`, `data`, `settings`.
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


def render(account: Account) -> str:
    """The page, as UTF-8 text."""
    sections = {
        "Curves": ("curves", _curves(account)),
        "Speed": ("speed", _speed(account.report)),
        "Evaluations": ("evaluations", _evaluations(account)),
        "Data": ("data", _data(account)),
        "Settings": ("settings", _settings(account)),
        "Attempts": ("attempts", _attempts(account.report)),
    }
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for title, (key, _) in sections.items())
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{content}</section>\n'
        for title, (key, content) in sections.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(account.name)}: training run</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{_text(account.name)}</h1>
<p class="place">{_text(account.place)}</p>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{_summary(account.report)}
{body}</main>
<footer>{_text(account.made)}</footer>
</body>
</html>
"""


# --- sections --------------------------------------------------------------------------------------------------------


def _summary(report: Mapping[str, Any]) -> str:
    state = str(report.get("state", "unknown"))
    code = report.get("exit_code")
    ended = f", exit code {code}" if code is not None else ", but its driver is gone" if report.get("abandoned") else ""
    parts = [f'<p>State: <span class="state {_text(state)}">{_text(state)}</span>{_text(ended)}</p>']
    cause = report.get("first_cause")
    if isinstance(cause, Mapping):
        place = f"<p>{_text(cause['place'])}</p>" if cause.get("place") else ""
        step = f"<p>{_text(cause['next_step'])}.</p>" if cause.get("next_step") else ""
        fact = _text(cause.get("fact", "not told"))
        parts.append(f'<div class="cause" role="alert"><strong>First cause: {fact}</strong>{place}{step}</div>')
    metrics, model = _mapping(report, "metrics"), _mapping(report, "model")
    at = f" at step {_number(metrics['evaluated_step'])}" if "evaluated_step" in metrics else ""
    facts = {
        "step": f"{_number(report.get('step'))} of {_number(report.get('total_steps'))}",
        f"validation top-1{at}": _number(metrics.get("top_1")),
        f"validation loss{at}": _number(metrics.get("loss")),
        "training loss": _number(metrics.get("train_loss")),
        "images/s": _number(report.get("images_per_second")),
        "training records": _number(report.get("num_records")),
        "classes": _number(model.get("num_classes")),
        "network": _text(model.get("model_name", "–")),
    }
    items = "".join(f"<div><dt>{_text(name)}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return "".join(parts) + f'<dl class="facts">{items}</dl>'


def _curves(account: Account) -> str:
    figures = "".join(map(_figure, account.curves))
    return f'<div class="pair">{figures}</div>' + _notes(account, "curves")


def _speed(report: Mapping[str, Any]) -> str:
    bound = _mapping(report, "bound")
    shares = {str(name): share for name, share in _mapping(bound, "shares").items() if _is_number(share)}
    parts = []
    if shares:
        by = bound.get("by")
        verdict = f"Most of a step goes to {_BOUND_BY.get(by, by)}." if by else "Nothing bounds a step clearly."
        step = f" A step takes {_seconds(bound['step_s'])}." if _is_number(bound.get("step_s")) else ""
        parts.append(f"<p>{_text(verdict + step)}</p>")
        rows = [(name, _bar(share), f"{share:.1%}") for name, share in shares.items()]
        parts.append(_bars("What a step consists of", ("part", "share"), rows))
    else:
        parts.append('<p class="note">What bounds the speed was not measured.</p>')
    phases = {str(name): s for name, s in _mapping(report, "phases").items() if _is_number(s)}
    phases = {name: phases[name] for name in sorted(phases, key=_place_of)}
    total = sum(phases.values())
    if total > 0:
        rows = [(name, _bar(seconds / total), _seconds(seconds)) for name, seconds in phases.items()]
        parts.append(_bars("Phases of the last attempt", ("phase", "time"), rows))
    else:
        parts.append('<p class="note">The report has no phases.</p>')
    return "".join(parts)


def _place_of(phase: str) -> int:
    return _PHASES.index(phase) if phase in _PHASES else len(_PHASES)


def _evaluations(account: Account) -> str:
    parts = []
    if account.evaluations:
        there = dict.fromkeys(name for e in account.evaluations for name in e.metrics if name not in ("split", "step"))
        names = sorted(there, key=lambda name: (name != "num_examples", name != "loss"))
        rows = [(e.name, *(e.metrics.get(name) for name in names)) for e in account.evaluations]
        parts.append(_table(Table(head=("evaluation", *names), rows=rows, caption="Metrics of every evaluation")))
    for evaluation in account.evaluations:
        if evaluation.pictures or evaluation.tables or evaluation.notes:
            content = "".join(map(_figure, evaluation.pictures)) + "".join(map(_table, evaluation.tables))
            content += "".join(f'<p class="note">{_text(note)}</p>' for note in evaluation.notes)
            parts.append(f"<h3>{_text(evaluation.name)}</h3>{content}")
    return "".join(parts) + _notes(account, "evaluations")


def _data(account: Account) -> str:
    place = f'<p class="place">{_text(account.data_title)}</p>' if account.data_title else ""
    return place + "".join(map(_figure, account.data)) + _notes(account, "data")


def _settings(account: Account) -> str:
    words = {None: "–", True: "yes", False: "no"}
    # As they were given: no thousands, no digits that say nothing.
    rows = [
        (name, words[value] if value is None or isinstance(value, bool) else str(value))
        for name, value in sorted(account.settings.items())
    ]
    table = _table(Table(head=("setting", "value"), rows=rows, caption="Settings of the last command")) if rows else ""
    return table + _notes(account, "settings")


def _attempts(report: Mapping[str, Any]) -> str:
    attempts = [a for a in report.get("attempts") or [] if isinstance(a, Mapping)]
    if not attempts:
        return '<p class="note">The report has no attempts.</p>'
    names = ("started", "ended", "state", "start_step", "end_step")
    more = sorted({name for attempt in attempts for name in attempt} - {*names, "records"})
    rows = [
        (number, *(attempt.get(name) for name in (*names, *more)), _records(attempt.get("records")))
        for number, attempt in enumerate(attempts, start=1)
    ]
    return _table(Table(head=("attempt", *names, *more, "records"), rows=rows, caption="Each start of training"))


def _records(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "other ones than before"
    return f"{value.get('seen_twice', 0)} seen twice, {value.get('skipped', 0)} skipped"


# --- parts -----------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """Any value as markup that shows it."""
    return html.escape(str(value), quote=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> str:
    """A value as people read it, as markup."""
    if isinstance(value, float):
        small = value != 0 and abs(value) < 1e-3
        return _text(f"{value:.3g}" if small else f"{value:,.4f}" if abs(value) < 100 else f"{value:,.1f}")
    if _is_number(value):
        return _text(f"{value:,}")
    return "–" if value is None else _text(value)


def _seconds(value: float) -> str:
    return f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.1f} s"


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, Mapping) else {}


def _notes(account: Account, section: str) -> str:
    return "".join(f'<p class="note">{_text(note)}</p>' for note in account.notes.get(section, ()))


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = f"<figcaption>{_text(picture.caption)}</figcaption>" if picture.caption else ""
    image = f'<img alt="{_text(picture.alt)}" src="data:image/png;base64,{data}">'
    # What may have to be scrolled sideways on a phone must be reachable by the keyboard.
    scroll = f' tabindex="0" role="group" aria-label="{_text(picture.caption or picture.alt)}"' if picture.large else ""
    kind = ' class="large"' if picture.large else ""
    return f'<figure{kind}><div class="scroll"{scroll}>{image}</div>{caption}</figure>'


def _table(table: Table) -> str:
    numeric = {i for i in range(len(table.head)) if all(_is_number(row[i]) or row[i] is None for row in table.rows)}

    def attributes(i: int) -> str:
        return ' class="number"' if i in numeric else ""

    def cell(i: int, value: Any) -> str:
        language = ' lang="zh"' if i in table.chinese else ""
        return f"<td{attributes(i)}{language}>{_number(value)}</td>"

    head = "".join(f'<th scope="col"{attributes(i)}>{_text(name)}</th>' for i, name in enumerate(table.head))
    rows = "".join("<tr>" + "".join(cell(i, value) for i, value in enumerate(row)) + "</tr>" for row in table.rows)
    label = _text(table.caption)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}"><table><caption>{label}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _bars(label: str, head: tuple[str, str], rows: Iterable[tuple[str, str, str]]) -> str:
    """A table of names, bars and values; the bars are markup already."""
    lines = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="bars">{bar}</td><td class="number">{_text(value)}</td></tr>'
        for name, bar, value in rows
    )
    first, last = map(_text, head)
    return (
        f'<table><caption>{_text(label)}</caption><thead><tr><th scope="col">{first}</th><td></td>'
        f'<th scope="col" class="number">{last}</th></tr></thead><tbody>{lines}</tbody></table>'
    )


def _bar(share: float) -> str:
    return f'<span class="bar" style="width: {100 * min(max(share, 0.0), 1.0):.1f}%"></span>'
