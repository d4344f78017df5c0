"""`report` of one run: in short, as JSON, or as one page with all pictures, in this process.

A page has all data that can be read, and names the missing parts: an old run, a removed dataset or a damaged picture
does not prevent a page of the rest.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tfos_job import storage
from tfos_job.config import TrainConfig, from_dict
from tfos_job.errors import BadDataError, JobError
from tfos_job.formats import manifest
from tfos_job.layout import DatasetLayout, RunLayout, join
from tfos_job.reports import page_file, page_wire
from tfos_job.reports.page import RunData, render
from tfos_job.reports.page_parts import Picture, Share, Table
from tfos_job.reports.page_tables import Evaluation
from tfos_job.run import attempt_words, given_settings, previous_run, summary, verdict
from tfos_job.run.quantities import duration, is_number, number, share
from tfos_job.run.summary import RunSummary

_PNG = b"\x89PNG\r\n\x1a\n"
_NUM_IMAGES = 24
_ROWS = 10

# Descriptions of an evaluation's pictures, in the order of the page.
_PICTURES = {
    "confusions.png": "the most confused pairs of classes, with images that were confused and rightly recognised ones",
    "per_class.png": "top-1 of each class, the worst first",
    "calibration.png": "share of right guesses by the probability of the guess, and how many guesses have it",
    "hardest.png": "the images with the highest loss, each with its true class and the guess",
}
_CURVES = {
    "loss": "loss (nats)",
    "top_1": "top-1",
    "learning_rate": "learning rate",
    "images_per_second": "images/s",
}

_log = logging.getLogger(__name__)
_Value = TypeVar("_Value")


def previous(run: RunSummary, compare_to: str | None) -> tuple[RunSummary | None, str]:
    """The run to compare with, and a sentence that says which one it is: `compare_to`, else the one before it.

    Raises:
      JobError: `compare_to` cannot be read.
    """
    if compare_to is not None:
        other = summary.read(compare_to)
        return other, f"Compared with {other.place}."
    found = previous_run.find(run)
    if found is None:
        return (
            None,
            "Not compared: no finished run of this dataset is in the folder beside this one (--compare_to RUN).",
        )
    return found, f"Compared with {found.place}, the last run of this dataset that finished before."


def lines(run: RunSummary, other: RunSummary | None, compared_with: str) -> list[str]:
    """A run in short: the verdict first."""
    report, cause = run.report, summary.cause(run.report)
    told = JobError(cause[0], place=cause[1], next_step=cause[2]) if cause else ""
    rows: list[tuple[str, Any]] = [("state", summary.words(run)), ("cause", str(told))]
    for standing in verdict.standings(run, other):
        score = standing.score
        top_1 = share(standing.top_1, score.num_records)
        rows.append((f"top-1, {score.label}", f"{top_1} at step {number(score.step)}  {standing.words}".rstrip()))
    bound = report.get("bound")
    took, rate = run.duration_s, report.get("images_per_second")
    rows += [
        ("", compared_with),
        ("step", f"{report.get('step')} of {report.get('total_steps')}"),
        ("duration", duration(took) if took is not None else None),
        ("host", run.host),
        ("attempts", attempt_words.count(report)),
        *attempt_words.failed_before(report),
        ("goodput", share(run.goodput) if run.goodput is not None else None),
        *attempt_words.memories(run.attempts),
        ("excluded hosts", attempt_words.excluded_hosts(report)),
        ("images/s", number(float(rate)) if is_number(rate) else None),
        ("slow worker", attempt_words.slowest_worker(report)),
        ("bound by", bound.get("by") if isinstance(bound, Mapping) else None),
        ("wire", page_wire.words(report)),
        ("checkpoint", report.get("checkpoint")),
        ("command", " ".join(given_settings.command(run.settings))),
    ]
    return [f"{name:<28}{value}" for name, value in rows if value not in (None, "")]


def write_page(
    train_dir: str, run: RunSummary, path: str, other: RunSummary | None, compared_with: str
) -> dict[str, Any]:
    """Writes one HTML file with all data of a run, beside the results of `other`.

    Returns:
      Its path and size, the number of its pictures, the run that it is compared with, and the missing parts.

    Raises:
      JobError: the file cannot be written.
    """
    data = _Collector(train_dir, run).collect(other, compared_with)
    return {
        "html": path,
        "size_bytes": page_file.write(path, render(data)),
        "state": run.report.get("state"),
        "step": run.report.get("step"),
        "compared_with": data.previous.place if data.previous is not None else None,
        "num_evaluations": len(data.evaluations),
        "num_pictures": len(data.curves) + len(data.data) + sum(len(e.pictures) for e in data.evaluations),
        "missing": [note for notes in data.notes.values() for note in notes]
        + [f"{e.name}: {note}" for e in data.evaluations for note in e.notes],
    }


class _Collector:
    """The collection of a run's readable pictures and tables, with notes about the missing parts."""

    def __init__(self, train_dir: str, run: RunSummary) -> None:
        self._layout = RunLayout(train_dir)
        self._run = run
        self._notes: dict[str, list[str]] = defaultdict(list, {name: list(notes) for name, notes in run.notes.items()})

    def collect(self, before: RunSummary | None, compared_with: str) -> RunData:
        settings = self._run.settings
        newest_first = sorted(self._run.evaluations, key=lambda metrics: -metrics["step"])
        return RunData(
            run=self._run,
            previous=before,
            compared_with=compared_with,
            curves=self._curves(),
            evaluations=[self._evaluation(metrics) for metrics in newest_first],
            data_title=str(settings.get("dataset_dir", "")),
            data=self._try("data", "pictures of the data", lambda: _data_pictures(self._layout, settings)) or [],
            notes=self._notes,
            made=page_file.made(),
        )

    def _try(self, section: str, what: str, make: Callable[[], _Value]) -> _Value | None:
        """Returns the result of `make`; None, with a note in its section, if it fails."""
        try:
            return make()
        except Exception as e:  # noqa: BLE001 - an error in one part does not prevent the others
            reason = summary.reason(e)
            self._notes[section].append(f"No {what}: {reason}")
            _log.warning("No %s: %s", what, reason)
            return None

    def _curves(self) -> list[Picture]:
        from tfos_job.reports.curves import draw_one

        report = self._run.report
        curve, validation = report.get("curve") or [], report.get("validation") or []
        pictures = []
        for key, name in _CURVES.items():

            def draw(key: str = key, name: str = name) -> bytes:
                png = draw_one(key, name, curve, validation, limit=1.0 if key == "top_1" else None)
                if png is None:
                    raise BadDataError("the report has no such values")
                return png

            png = self._try("curves", f"curve of {name}", draw)
            if png is not None:
                values = [point[key] for point in curve if point.get(key) is not None]
                course = f", from {values[0]:.4g} to {values[-1]:.4g}" if values else ""
                pictures.append(Picture(png=png, alt=f"Curve of {name} over global steps{course}", large=False))
        return pictures

    def _evaluation(self, metrics: Mapping[str, Any]) -> Evaluation:
        name = f"{metrics.get('split')}, step {metrics['step']:,}"
        folder = metrics["file"].removesuffix(".json")
        if not storage.is_dir(folder):
            return Evaluation(name=name, metrics=metrics)
        of_classes = self._try("evaluations", f"tables of {name}", lambda: _rows(join(folder, "per_class.csv"))) or []
        folded = {"per_class.png": self._try("evaluations", f"tables of {name}", lambda: _all_alike(of_classes)) or ""}
        pictures, notes = [], []
        for file, shows in _PICTURES.items():
            try:
                png = storage.read_bytes(join(folder, file))
                if not png.startswith(_PNG):
                    raise BadDataError("not a PNG", place=file)
            except JobError as error:
                notes.append(f"No {file}: {error.fact}")
            else:
                caption = f"{shows[0].upper()}{shows[1:]}."
                alt = f"{name}: {shows}"
                pictures.append(Picture(png=png, alt=alt, caption=caption, folded=folded.get(file, "")))
        tables = self._try("evaluations", f"tables of {name}", lambda: _tables(folder, of_classes)) or []
        return Evaluation(name=name, metrics=metrics, pictures=pictures, tables=tables, notes=notes)


def _tables(folder: str, of_classes: list[dict[str, str]]) -> list[Table]:
    """Returns the first rows of an evaluation's tables."""
    pairs = _rows(join(folder, "confusions.csv"))
    wrong = [row for row in of_classes if row["correct"] != row["records"]]
    wrong.sort(key=lambda row: float(row["top_1"]))
    tables = [
        Table(
            head=("class", "taken for", "records", "share"),
            rows=[(r["text"], r["guess"], int(r["count"]), Share(float(r["rate"]))) for r in pairs[:_ROWS]],
            caption=_caption("Confused pairs", len(pairs)),
            chinese=frozenset({0, 1}),
        ),
        Table(
            head=("class", "top-1", "right", "records", "mostly taken for"),
            rows=[
                (
                    r["text"],
                    Share(float(r["top_1"])),
                    int(r["correct"]),
                    int(r["records"]),
                    r["most_frequent_wrong_guess"],
                )
                for r in wrong[:_ROWS]
            ],
            caption=_caption("Classes with mistakes, the worst first", len(wrong)),
            chinese=frozenset({0, 4}),
        ),
    ]
    return [table for table in tables if table.rows]


def _caption(words: str, count: int) -> str:
    return f"{words}: the first {_ROWS} of {count:,}" if count > _ROWS else words


def _rows(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(storage.read_bytes(path).decode("utf-8"))))


def _all_alike(of_classes: list[dict[str, str]]) -> str:
    """A sentence in place of a chart whose bars are all of one length; empty if they are not."""
    shares = {row["top_1"] for row in of_classes if row["top_1"]}
    if len(shares) != 1:
        return ""
    return f"Top-1 of every class that has records is {share(float(shares.pop()))}."


def _data_pictures(run: RunLayout, settings: Mapping[str, Any]) -> list[Picture]:
    """Draws contact sheet and histogram of the run's training data, from the dataset."""
    from tfos_job.reports import sample

    config = from_dict(TrainConfig, dict(settings))
    dataset = DatasetLayout(config.dataset_dir)
    split = dataset.split(config.dataset_split_name)
    contents = manifest.load(split)
    names = manifest.load_charset(dataset).characters
    taken = sample.take(split, contents, sample.input_view(run), num_images=_NUM_IMAGES, seed=config.seed)
    return [
        Picture(
            png=sample.contact_sheet(taken, names, split_name=contents.split_name),
            alt=f"{len(taken.class_ids)} training images as the network sees them, before and after augmentation",
            caption="A random sample of the training split as the network sees it.",
        ),
        Picture(
            png=sample.histogram(contents, names)[0],
            alt=f"Records of each of {contents.num_classes:,} classes; {contents.num_records:,} in all",
            caption="Records per class.",
            folded=sample.same_counts(contents),
        ),
    ]
