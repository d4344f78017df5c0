"""Drawing itself: text, tiles, charts and the page. What fetches the pixels is tested in test_inspect_and_report.py."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import tfos_job
from tests.unit.reader import Parsed, assert_self_contained
from tfos_job.config import deadlines
from tfos_job.formats.charset import level1
from tfos_job.reports import classes, curves, lettering, montage, page
from tfos_job.reports.page import RunData, render
from tfos_job.reports.page_parts import Picture, Table
from tfos_job.reports.page_tables import Evaluation
from tfos_job.run import predictions
from tfos_job.run.summary import RunSummary
from tfos_job.submit import environment

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "drawing"
NAMES = ("一", "丁", "七", "万", "丈", "三", "traffic light", "<b> $x$", "ก")


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def patterns(count: int, side: int, channels: int = 1) -> np.ndarray:
    """uint8 [count, side, side, channels], no two alike."""
    return np.random.default_rng(count).integers(0, 256, (count, side, side, channels), np.uint8)


# --- text ------------------------------------------------------------------------------------------------------------


def drawn(text: str) -> bytes:
    image = Image.new("L", (60, 60), 255)
    lettering.write(ImageDraw.Draw(image), 5, 45, text, size=40, fill="black")
    return image.tobytes()


def test_chinese_characters_are_drawn_and_not_the_box_of_missing_ones() -> None:
    font = ImageFont.truetype(lettering.font_files()[0], 40, layout_engine=ImageFont.Layout.BASIC)
    box = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(box).text((5, 45), "\ue123", font=font, fill="black", anchor="ls")  # a private character: no font's
    pictures = [drawn("一"), drawn("啊"), drawn("嘴"), drawn("a"), drawn("Ж"), drawn("ش"), box.tobytes()]
    assert len(set(pictures)) == len(pictures)
    assert bytes([255]) * 3600 not in pictures


def test_a_chart_draws_chinese_names() -> None:
    counts = np.array([3, 5])
    one, other = (opened(classes.histogram(counts, ("b", name), title="t")) for name in "啊阿")
    assert one.shape == other.shape
    differing = np.argwhere((one != other).any(axis=2))
    assert 20 < len(differing) < 2000  # the name of one class, and nothing else
    assert differing[:, 1].max() < 120


def test_a_name_in_dollars_is_no_formula() -> None:
    assert classes.histogram(np.array([1, 2]), ("$\\nosuch$", "a"), title="$\\frac$").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("a\n b\t c", "a b c"),
        ("ก", "U+0E01"),
        ("", "(no name)"),
        ("a name of many characters", "a name of many…"),
        ("啊" * 20, "啊" * 15 + "…"),
    ],
)
def test_names_are_one_short_line_that_fonts_have(text: str, shown: str) -> None:
    assert lettering.short(text) == shown


def test_a_caption_keeps_to_its_tile() -> None:
    for text in ("traffic light at night", "啊" * 9, "i" * 40):
        fitted = lettering.fitted(text, 15, 80)
        assert fitted.endswith("…")
        assert lettering.width_of(fitted, 15) <= 80 < lettering.width_of(text, 15)


# --- tiles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_cells_of_a_contact_sheet_are_the_pixels(channels: int) -> None:
    stored, augmented = patterns(5, 8, channels), patterns(15, 8, channels).reshape(5, 3, 8, 8, channels)
    sheet = opened(montage.contact_sheet(NAMES[:5], stored, augmented, title="t", subtitle="s"))
    side, left, top = montage.side_of(8), montage.MARGIN, montage.HEAD + 20
    group = 2 * montage.GAP + 4 * side + 2 * montage.GAP + 4 * montage.GAP
    for number in range(5):
        row, column = divmod(number, 2)
        y, x = top + row * (side + 30), left + column * group
        places = [x, *(x + side + 2 * montage.GAP + v * (side + montage.GAP) for v in range(3))]
        for place, pixels in zip(places, (stored[number], *augmented[number]), strict=True):
            cell = sheet[y : y + side, place : place + side]
            expected = np.broadcast_to(pixels, (8, 8, 3)).repeat(side // 8, axis=0).repeat(side // 8, axis=1)
            np.testing.assert_array_equal(cell, expected)


@pytest.mark.parametrize(
    ("image_size", "side"), [(8, 96), (28, 84), (32, 96), (64, 128), (96, 96), (128, 128), (299, 128)]
)
def test_tiles_are_enlarged_by_whole_factors(image_size: int, side: int) -> None:
    assert montage.side_of(image_size) == side
    assert montage.enlarged(patterns(1, image_size)[0]).size == (side, side)


# --- golden pictures -------------------------------------------------------------------------------------------------


def draw_few() -> bytes:
    return classes.histogram(np.array([12, 9, 0, 4, 25, 7, 8, 8, 1]), NAMES, title="train: records per class")


def draw_many() -> bytes:
    counts = np.arange(300) // 3
    return classes.histogram(counts, level1(300).characters, title="train: records per class")


def draw_accuracy() -> bytes:
    records = np.full(200, 20)
    return classes.accuracy(np.arange(200) // 10, records, level1(200).characters, title="test: accuracy")


def draw_calibration() -> bytes:
    generator = np.random.default_rng(1)
    probabilities = generator.uniform(0.2, 1, 500)
    right = generator.uniform(size=500) < probabilities**2
    found = predictions.Predictions.joined([(np.zeros(500), 1 - right.astype(int), probabilities, np.zeros(500))])
    return curves.reliability(predictions.calibration(found), title="test: calibration", subtitle="500 records")


def ramp(count: int) -> np.ndarray:
    """Images that survive being made smaller: a bright disc that grows."""
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    radii = np.linspace(0.2, 1, count)[:, None, None]
    return ((x**2 + y**2 < radii**2) * np.uint8(200))[..., None]


def draw_sheet() -> bytes:
    stored = ramp(6)
    return montage.contact_sheet(NAMES[:6], stored, 255 - stored[:, None], title="train", subtitle="6 records")


def draw_confusions() -> bytes:
    images = list(ramp(6))
    pairs = [
        montage.ConfusedPair(
            label=NAMES[i], predicted=NAMES[i + 1], num_records=3 - i // 2, rate=0.25, wrong=images[i : i + 2],
            right=(images[0], None if i else images[1]),
        )
        for i in range(3)
    ]  # fmt: skip
    return montage.confusions(pairs, 16, 2, title="test: confusions", subtitle="8 of 40 records")


def draw_hardest() -> bytes:
    images = [
        montage.HardImage(
            label=NAMES[i], predicted=NAMES[i // 2], label_probability=0.01 * i, predicted_probability=0.9,
            is_correct=not i, pixels=image,
        )
        for i, image in enumerate(ramp(7))
    ]  # fmt: skip
    return montage.hardest(images, 16, title="test: the hardest", subtitle="7 of 40 records")


PICTURES: dict[str, Callable[[], bytes]] = {
    "few": draw_few,
    "many": draw_many,
    "accuracy": draw_accuracy,
    "calibration": draw_calibration,
    "sheet": draw_sheet,
    "confusions": draw_confusions,
    "hardest": draw_hardest,
}


def small(png: bytes) -> Image.Image:
    """A picture in grey at a fifth of its size: what other versions of fonts and libraries draw alike."""
    image = Image.open(io.BytesIO(png)).convert("L")
    return image.resize((image.width // 5, image.height // 5), Image.Resampling.BOX)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_as_they_did_when_somebody_looked(name: str) -> None:
    """After a change that is meant, look at the new picture, then write it: `python tests/unit/test_drawing.py`."""
    found = np.asarray(small(PICTURES[name]()), np.float64)
    golden = np.asarray(Image.open(GOLDEN / f"{name}.png"), np.float64)
    assert found.shape == golden.shape
    assert np.abs(found - golden).mean() < 2.0
    assert np.corrcoef(found.ravel(), golden.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_values_give_the_same_bytes(name: str) -> None:
    assert PICTURES[name]() == PICTURES[name]()


def test_a_users_own_settings_of_matplotlib_change_no_picture() -> None:
    name = next(iter(PICTURES))
    ours = PICTURES[name]()
    with matplotlib.rc_context({"text.usetex": True, "lines.linewidth": 9, "savefig.dpi": 10, "axes.titlesize": 40}):
        assert PICTURES[name]() == ours
        assert matplotlib.rcParams["text.usetex"]


def test_many_classes_are_a_curve_of_a_bounded_size() -> None:
    counts = np.random.default_rng(0).integers(0, 80, 3755)
    picture = opened(classes.histogram(counts, level1().characters, title="t"))
    assert picture.shape[0] < 1000
    few = opened(classes.histogram(np.ones(classes.MOST_BARS, int), level1(classes.MOST_BARS).characters, title="t"))
    assert few.shape[0] < 2200


# --- the page --------------------------------------------------------------------------------------------------------

# Ends an attribute as well, be it in quotes or not, to add one of its own.
HOSTILE = "<b>\"&amp;'</b> onload=x"


def run_data(
    report: dict[str, object] | None = None, settings: dict[str, object] | None = None, place: str = HOSTILE,
    **changes: object,
) -> RunData:  # fmt: skip
    return RunData(run=RunSummary(place=place, report=report or {}, settings=settings or {}), **changes)  # type: ignore[arg-type]


def test_a_page_holds_every_picture_and_points_nowhere() -> None:
    pictures = [Picture(png=bytes([137]) + name.encode(), alt=f"{HOSTILE} {name}") for name in "abcd"]
    evaluation = Evaluation(name=HOSTILE, metrics={"top_1": 0.5, HOSTILE: HOSTILE}, pictures=pictures[1:3])
    text = render(run_data(curves=pictures[:1], evaluations=[evaluation], data=pictures[3:]))
    parsed = Parsed(text)
    embedded = [base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,")) for image in parsed.images()]
    assert embedded == [picture.png for picture in pictures]
    assert [image["alt"] for image in parsed.images()] == [picture.alt for picture in pictures]
    assert_self_contained(text)


def test_nothing_that_a_run_says_becomes_markup() -> None:
    report = {
        "state": HOSTILE,
        "first_cause": {"fact": HOSTILE, "place": HOSTILE, "next_step": HOSTILE},
        "model": {"model_name": HOSTILE},
        "slowest_worker": {"task": HOSTILE, "host": HOSTILE},
        "bound": {"by": HOSTILE, "shares": {HOSTILE: 0.5}, "step_s": 0.1},
        "phases": {HOSTILE: 3.0},
        "attempts": [
            {
                HOSTILE: HOSTILE,
                "records": None,
                "state": HOSTILE,
                "decision": HOSTILE,
                "stacks": {HOSTILE: HOSTILE},
                "first_cause": {"fact": HOSTILE, "place": HOSTILE, "task": HOSTILE, "last_lines": [HOSTILE]},
                "followed_by": [{"task": HOSTILE, "host": HOSTILE, "fact": HOSTILE}],
                "nodes": [{"task": HOSTILE, "host": HOSTILE, "log_url": HOSTILE}],
            }
        ],
    }
    tables = [Table(head=(HOSTILE, "n"), rows=[(HOSTILE, 3)], caption=HOSTILE, chinese=frozenset({0}))]
    evaluation = Evaluation(name=HOSTILE, metrics={"top_1": HOSTILE}, tables=tables, notes=[HOSTILE])
    notes = {section: [HOSTILE] for section in ("curves", "evaluations", "data", "settings")}
    text = render(
        run_data(
            report=report, settings={HOSTILE: HOSTILE}, evaluations=[evaluation], data_title=HOSTILE, notes=notes,
            made=HOSTILE,
        )
    )  # fmt: skip
    parsed = Parsed(text)
    assert "b" not in {tag for tag, _ in parsed.tags}
    assert not [attributes for _, attributes in parsed.tags if "onload" in attributes]
    assert parsed.text.count(HOSTILE) >= 35


def test_the_template_escapes_everything() -> None:
    """The one way around autoescape would be to ask for it."""
    templates = list(Path(page.__file__).parent.glob("*.html"))
    assert len(templates) == 4
    for template in templates:
        text = re.sub(r"{#.*?#}", "", template.read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"\|\s*safe|autoescape false", text)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"state": "running", "bound": {"by": None}, "phases": {}, "attempts": []},
        {
            "bound": None,
            "phases": None,
            "metrics": None,
            "model": 3,
            "attempts": [None],
            "first_cause": "x",
            "slowest_worker": 3,
            "excluded_hosts": [None],
            "goodput": "?",
            "num_attempts": "?",
        },
        {"attempts": [{"first_cause": 3, "nodes": [None], "stacks": 3, "followed_by": [None], "decision": 3}]},
        {"attempts": [{"first_cause": {}, "nodes": [{}], "phases": None}], "slowest_worker": {}},
        {"bound": {"shares": {"input": None}, "step_s": "?"}, "phases": {"spark": "?"}, "attempts": None},
    ],
)
def test_a_report_of_any_age_makes_a_page(report: dict[str, object]) -> None:
    parsed = Parsed(render(run_data(report=report)))
    assert "What bounds the speed was not measured." in parsed.text
    assert "The report has no phases." in parsed.text


def test_phases_are_in_the_order_of_a_run_whatever_that_of_the_report() -> None:
    """All that the program tells, taken from its text: a phase that the page does not know would come last."""
    known = {*page._PHASES, *page._OLD_PHASES}
    source = "".join(path.read_text() for path in Path(tfos_job.__file__).parent.rglob("*.py"))
    told = set(re.findall(r'(?:on_phase|BeginPhase)\("(\w+)"\)', source))
    assert told <= known
    assert {name for name in deadlines.PHASES if name not in ("stall", "checkpoint", "drain")} <= known
    for phases in (page._PHASES, ("spark", "preflight", "statistics", "nodes", "coordinator", "training", "stopping")):
        text = render(run_data(report={"phases": dict.fromkeys(sorted(phases), 1.0)}))
        cells = [cell.replace(" ", "_") for cell in re.findall(r"<t[dh][^>]*>([\w ]+)</t[dh]>", text)]
        assert [cell for cell in cells if cell in known] == list(phases)


def test_a_difference_has_its_direction_and_other_records_are_told() -> None:
    def run(top_1: float, num_examples: int) -> RunSummary:
        metrics = {"split": "test", "step": 9, "top_1": top_1, "num_examples": num_examples}
        return RunSummary(place="/r", report={}, evaluations=[metrics])

    before = run(0.90, 10_000)
    views = [page.view(RunData(run=run(*now), previous=before)) for now in ((0.95, 10_000), (0.85, 9_000))]
    assert [(s.kind, s.basis) for view in views for s in view.standings] == [
        ("better", "at step 9, on 10,000 records"),
        ("worse", "at step 9, on 9,000 records; the other run on 10,000"),
    ]


def test_classes_in_tables_are_chinese_to_those_who_read_aloud() -> None:
    table = Table(head=("class", "records"), rows=[("门", 3), ("闩", 1234)], chinese=frozenset({0}))
    text = render(run_data(evaluations=[Evaluation(name="test", metrics={}, tables=[table])]))
    assert text.count('lang="zh"') == 2
    assert '<td lang="zh">门</td>\n<td class="number">3</td>' in text
    assert "1,234" in text


def test_a_column_is_of_numbers_if_all_that_is_there_are() -> None:
    table = Table(head=("a", "b", "c"), rows=[(1, "1", True), (None, 2, 3)])
    assert [column.is_number for column in table.columns] == [True, False, False]
    assert table.cells == [["1", "1", "True"], ["–", "2", "3"]]


def test_the_page_is_made_from_a_zip_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFOS_JOB_CACHE", str(tmp_path / "cache"))
    package = str(environment.package_zip())
    program = f"""
from tfos_job.reports import page
from tfos_job.run.summary import RunSummary
assert page.__file__.startswith({package!r})
print(page.render(page.RunData(run=RunSummary(place="r", report={{}}))))
"""
    made = subprocess.run(
        [sys.executable, "-P", "-c", program], env={"PYTHONPATH": package}, cwd=tmp_path, capture_output=True,
        check=True,
    )  # fmt: skip
    assert made.stdout.decode("utf-8").strip() == render(run_data(place="r")).strip()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each, draw in PICTURES.items():
        small(draw()).save(GOLDEN / f"{each}.png", optimize=True)
