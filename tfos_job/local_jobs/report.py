"""`report`: a run's report, as JSON or as one page with all pictures, in this process.

A page has all data that can be read, and names the missing parts: an old run, a removed dataset or a damaged picture
does not prevent a page of the rest.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from tfos_job import __version__, storage
from tfos_job.config import TrainConfig, from_dict
from tfos_job.errors import BadDataError, JobError, MissingInputError
from tfos_job.formats import manifest
from tfos_job.layout import DatasetLayout, RunLayout, join
from tfos_job.lease import is_abandoned
from tfos_job.reports.page import Evaluation, RunData, render
from tfos_job.reports.page_parts import Picture, Table

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


def read(train_dir: str) -> dict[str, Any]:
    """Reads the report of a run; adds `abandoned` if its state is "running" but no process holds its lock.

    Raises:
      MissingInputError: the run has no report.
      BadDataError: the report is damaged.
    """
    path = RunLayout(train_dir).report
    try:
        report = storage.read_json(path)
        if not isinstance(report, dict):
            raise ValueError(f"{type(report).__name__}, expected an object")
    except MissingInputError as error:
        raise MissingInputError(
            "no such run: it has no report", place=path, next_step="Check --train_dir: `train` writes it"
        ) from error
    except ValueError as error:
        raise BadDataError(
            f"not a report: {error}", place=path, next_step="Run `train` again, which renews it"
        ) from error
    if report.get("state") == "running" and is_abandoned(RunLayout(train_dir).lock):
        report["abandoned"] = True
    return report


def summary(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns a short form of the report: names and values."""
    metrics, bound = report.get("metrics") or {}, report.get("bound") or {}
    cause = report.get("first_cause") or {}
    rows: list[tuple[str, Any]] = [
        ("state", f"{report.get('state')}, but its driver is gone" if report.get("abandoned") else report.get("state")),
        ("exit code", report.get("exit_code")),
        ("first cause", cause.get("fact")),
        ("step", f"{report.get('step')} of {report.get('total_steps')}"),
        ("attempts", len(report.get("attempts") or [])),
        ("images/s", report.get("images_per_second")),
        ("bound by", bound.get("by")),
        *((name, value) for name, value in metrics.items()),
        ("checkpoint", report.get("checkpoint")),
    ]
    return [
        (name, f"{value:.4f}" if isinstance(value, float) else str(value)) for name, value in rows if value is not None
    ]


def write_page(train_dir: str, path: str) -> dict[str, Any]:
    """Writes one HTML file with all data of a run.

    Returns:
      Its path and size, the number of its pictures, and the missing parts.

    Raises:
      MissingInputError: the run has no report.
      JobError: the file cannot be written.
    """
    report = read(train_dir)
    data = _Collector(train_dir, report).collect()
    page = render(data).encode("utf-8")
    folder = path.rpartition("/")[0]
    if folder:
        storage.make_dirs(folder)
    storage.write_bytes(path, page)
    return {
        "html": path,
        "size_bytes": len(page),
        "state": report.get("state"),
        "step": report.get("step"),
        "num_evaluations": len(data.evaluations),
        "num_pictures": len(data.curves) + len(data.data) + sum(len(e.pictures) for e in data.evaluations),
        "missing": [note for notes in data.notes.values() for note in notes]
        + [f"{e.name}: {note}" for e in data.evaluations for note in e.notes],
    }


class _Collector:
    """The collection of a run's readable data, with notes about the missing parts."""

    def __init__(self, train_dir: str, report: dict[str, Any]) -> None:
        self._run = RunLayout(train_dir)
        self._report = report
        self._notes: dict[str, list[str]] = defaultdict(list)

    def collect(self) -> RunData:
        place = storage.absolute(self._run.root)
        settings = self._try("settings", "settings", lambda: dict(storage.read_json(self._run.config))) or {}
        evaluations = self._evaluations()
        return RunData(
            name=f"Run {place.rstrip('/').rpartition('/')[2]}",
            place=place,
            report=self._report,
            settings=settings,
            curves=self._curves(),
            evaluations=evaluations,
            data_title=str(settings.get("dataset_dir", "")),
            data=self._try("data", "pictures of the data", lambda: _data_pictures(self._run, settings)) or [],
            notes=self._notes,
            made=f"Made by tfos_job {__version__} on {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}.",
        )

    def _try(self, section: str, what: str, make: Callable[[], _Value]) -> _Value | None:
        """Returns the result of `make`; None, with a note in its section, if it fails."""
        try:
            return make()
        except Exception as e:  # noqa: BLE001 - an error in one part does not prevent the others
            reason = str(e) if isinstance(e, JobError) else f"{type(e).__name__}: {e}"
            self._notes[section].append(f"No {what}: {reason}")
            _log.warning("No %s: %s", what, reason)
            return None

    def _curves(self) -> list[Picture]:
        from tfos_job.reports.curves import draw_one

        curve, validation = self._report.get("curve") or [], self._report.get("validation") or []
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

    def _evaluations(self) -> list[Evaluation]:
        folder = self._run.evaluation_dir
        if not storage.is_dir(folder):
            self._notes["evaluations"].append("None yet: `tfos-job evaluate` makes them.")
            return []
        names = [entry.name for entry in storage.list_dir(folder) if not entry.name.startswith("_")]
        found = (
            self._try("evaluations", name, lambda name=name: self._evaluation(join(folder, name)))  # type: ignore[misc]
            for name in names
            if name.endswith(".json")
        )
        return [evaluation for evaluation in found if evaluation is not None]

    def _evaluation(self, path: str) -> Evaluation:
        metrics = dict(storage.read_json(path))
        name = f"{metrics.get('split')}, step {int(metrics.get('step', 0)):,}"
        folder = path.removesuffix(".json")
        if not storage.is_dir(folder):
            return Evaluation(name=name, metrics=metrics)
        pictures, notes = [], []
        for file, shows in _PICTURES.items():
            try:
                png = storage.read_bytes(join(folder, file))
                if not png.startswith(_PNG):
                    raise BadDataError("not a PNG", place=file)
            except JobError as error:
                notes.append(f"No {file}: {error.fact}")
            else:
                pictures.append(Picture(png=png, alt=f"{name}: {shows}", caption=f"{shows[0].upper()}{shows[1:]}."))
        tables = self._try("evaluations", f"tables of {name}", lambda: _tables(folder)) or []
        return Evaluation(name=name, metrics=metrics, pictures=pictures, tables=tables, notes=notes)


def _tables(folder: str) -> list[Table]:
    """Returns the first rows of an evaluation's tables."""
    pairs = _rows(join(folder, "confusions.csv"))
    of_classes = [row for row in _rows(join(folder, "per_class.csv")) if row["correct"] != row["records"]]
    of_classes.sort(key=lambda row: float(row["top_1"]))
    tables = [
        Table(
            head=("class", "taken for", "records", "share"),
            rows=[(r["text"], r["guess"], int(r["count"]), float(r["rate"])) for r in pairs[:_ROWS]],
            caption=f"The most confused of {len(pairs):,} pairs",
            chinese=frozenset({0, 1}),
        ),
        Table(
            head=("class", "records", "right", "top-1", "mostly taken for"),
            rows=[
                (r["text"], int(r["records"]), int(r["correct"]), float(r["top_1"]), r["most_frequent_wrong_guess"])
                for r in of_classes[:_ROWS]
            ],
            caption=f"The worst of {len(of_classes):,} classes with mistakes",
            chinese=frozenset({0, 4}),
        ),
    ]
    return [table for table in tables if table.rows]


def _rows(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(storage.read_bytes(path).decode("utf-8"))))


def _data_pictures(run: RunLayout, settings: dict[str, Any]) -> list[Picture]:
    """Draws contact sheet and histogram of the run's training data, from the dataset."""
    from tfos_job.reports import sample

    config = from_dict(TrainConfig, settings)
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
        ),
    ]
