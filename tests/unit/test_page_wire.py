"""What a step puts on the wire, as a run's page, its text form and the comparison of runs show it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.reader import Parsed
from tfos_job.local_jobs.report import lines
from tfos_job.reports import comparison, page, page_wire
from tfos_job.run.placement import wire
from tfos_job.run.summary import RunSummary

EXPECTED = wire(
    (75_000_000, 25_000_000),
    wire_dtype="float32",
    ps_placement="greedy",
    num_ps_tasks=2,
    num_workers=4,
    link_gbit=1.0,
)
REPORT = {"wire": {**EXPECTED, "measured_step_s": 3.0}, "bound": {"by": "network", "step_s": 4.8}}
MARKUP = "<b>\"&amp;'</b>"
WORDS = (
    "100.0 MB a step and worker as float32 (greedy: 75.0 MB, 25.0 MB; the largest has 75.0 %): "
    "at least 2.4 s on links of 1 Gbit/s for 4 workers at once"
)


def page_of(report: Mapping[str, Any]) -> str:
    return page.render(page.RunData(run=RunSummary(place="/runs/a", report=report)))


def bars(text: str, caption: str) -> list[tuple[str, str, str]]:
    """Name, percent and value of each bar of a table."""
    table = text.partition(f"<caption>{caption}")[2].partition("</table>")[0]
    row = r'<th scope="row">(.*?)</th>.*?width: (.*?)%.*?<td class="number">(.*?)</td>'
    return re.findall(row, table, re.DOTALL)


def test_the_page_has_each_servers_bytes_and_the_times() -> None:
    text = page_of(REPORT)
    assert f"{WORDS}; the network took 3.0 s." in Parsed(text).text
    assert '<th scope="col">parameter server</th>' in text
    assert bars(text, "Bytes that each") == [
        ("ps:0", "75.0", "75.0 MB, 75.0 %"),
        ("ps:1", "25.0", "25.0 MB, 25.0 %"),
    ]
    assert bars(text, "Time of a step") == [
        ("expected", "50.0", "2.4 s"),
        ("network", "62.5", "3.0 s"),
        ("step", "100.0", "4.8 s"),
    ]


def test_before_anything_was_measured_there_is_what_is_expected() -> None:
    text = page_of({"wire": EXPECTED, "bound": None})
    assert f"{WORDS}." in Parsed(text).text
    assert len(bars(text, "Bytes that each")) == 2
    assert "Time of a step" not in text


def test_one_server_has_no_share_to_show() -> None:
    one = wire(
        (168_000_000,), wire_dtype="bfloat16", ps_placement="partitioned", num_ps_tasks=1, num_workers=1, link_gbit=10.0
    )
    text = page_of({"wire": one})
    assert "168.0 MB a step and worker as bfloat16: at least 134 ms on links of 10 Gbit/s." in Parsed(text).text
    assert "Bytes that each" not in text
    assert page_wire.in_short({"wire": one}) == "168.0 MB"


def test_without_parameter_servers_the_bytes_are_the_workers() -> None:
    of_workers = {"wire_dtype": "float32", "ps_placement": "partitioned", "num_workers": 2, "link_gbit": 1.0}
    report = {"wire": wire((50_000_000, 50_000_000), num_ps_tasks=0, **of_workers)}
    text = page_of(report)
    assert '<th scope="col">worker</th>' in text
    assert [name for name, _, _ in bars(text, "Bytes that each")] == ["worker:0", "worker:1"]
    assert page_wire.in_short(report) == "50.0 MB"
    assert "50.0 MB a step to and from each worker as float32, by all-reduce: at least 200 ms" in text
    older = {"wire": {name: value for name, value in EXPECTED.items() if name != "engine"}}
    assert page_wire.wire(older) == page_wire.wire({"wire": EXPECTED})


def test_the_text_form_and_the_comparison_have_it() -> None:
    runs = [RunSummary(place=f"/runs/{name}", report=report) for name, report in (("a", REPORT), ("b", {}))]
    assert f"{'wire':<28}{WORDS}; the network took 3.0 s" in lines(runs[0], None, "")
    assert not any(line.startswith("wire") for line in lines(runs[1], None, ""))
    assert ("bytes a step", "100.0 MB; ps:0 has 75.0 %", "–") in comparison.results(runs).rows


@pytest.mark.parametrize(
    "value",
    [None, 3, "x", [], {}, {"step_bytes": None}, {"step_bytes": [None, 1]}, {"step_bytes": "12", "num_workers": 2}],
)
def test_a_report_without_it_makes_a_page_without_it(value: Any) -> None:
    report = {"wire": value, "bound": {"step_s": 1.0}}
    for text in (page_of(report), page_of({"bound": {"step_s": 1.0}})):
        assert "On the wire" not in text
    assert page_wire.in_short(report) == "–"


@pytest.mark.parametrize("missing", EXPECTED)
def test_what_a_report_lacks_is_left_out(missing: str) -> None:
    some = {name: value for name, value in EXPECTED.items() if name != missing}
    for odd in (some, {**some, missing: MARKUP}, {**some, missing: float("nan")}, {**some, missing: float("inf")}):
        text = page_of({"wire": odd, "bound": {"step_s": 4.8}})
        assert "On the wire" in text
        assert MARKUP not in text
        assert len(bars(text, "Bytes that each")) == (0 if missing == "step_bytes" else 2)
        times = 0 if missing == "expected_step_s" else 2
        assert len(bars(text, "Time of a step")) == times
