"""Tables and pictures of an evaluation, in addition to its numbers.

The folder is written under a temporary name and replaces that of an earlier evaluation. Errors here do not fail an
evaluation: a picture that cannot be drawn is a warning.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable

import tensorflow as tf

from tfos_job import storage
from tfos_job.formats.excerpt import Excerpt, read_positions
from tfos_job.input.decoding import decode
from tfos_job.layout import RunLayout, join
from tfos_job.reports import classes, curves, evaluation_tables, montage
from tfos_job.run import predictions as analysis
from tfos_job.run.evaluation_results import EvaluationResults
from tfos_job.run.quantities import share

_NUM_PAIRS = 12
_NUM_WRONG = 6  # confused images of a pair
_NUM_HARDEST = 35
_MOST_LISTED = 100  # rows of hardest.csv

_log = logging.getLogger(__name__)


def publish(results: EvaluationResults, run: RunLayout, *, pictures: bool) -> str | None:
    """Writes tables and pictures into the evaluation's folder.

    Args:
      results: of the evaluation.
      run: the evaluated run.
      pictures: False to omit the pictures, and the tables that need images of the shards.

    Returns:
      The folder; None, with a warning, if it could not be written.
    """
    folder = run.evaluation_pictures(results.step, results.split_name)
    building = run.evaluation_building(results.step, results.split_name)
    try:
        storage.remove(building)
        storage.make_dirs(building)
        for name, data in evaluation_tables.tables(results).items():
            storage.write_bytes(join(building, name), data)
        if pictures:
            _draw_all(results, building)
        storage.remove(folder)
        storage.publish_dir(building, folder)
    except Exception as e:  # noqa: BLE001 - the evaluation itself is done and recorded
        _log.warning("No pictures in %s: %s", folder, e)
        return None
    return folder


# --- pictures --------------------------------------------------------------------------------------------------------


def _draw_all(results: EvaluationResults, folder: str) -> None:
    """Draws each picture on its own, so that a failure does not affect the others."""
    images = functools.cache(lambda: _ShownImages(results))
    drawn: dict[str, Callable[[], bytes]] = {
        "per_class.png": lambda: classes.accuracy(
            results.per_class.num_correct,
            results.per_class.num_records,
            results.names,
            title=results.title("accuracy per class"),
        ),
        "calibration.png": lambda: curves.reliability(
            results.calibration,
            title=results.title("calibration"),
            subtitle=f"expected calibration error {share(results.calibration.ece)}; {results.wrong}",
        ),
        "confusions.png": lambda: images().confusions(),
        "hardest.png": lambda: images().hardest(),
        "hardest.csv": lambda: evaluation_tables.hardest(results, images().listed, images().excerpts),
    }
    for name, draw in drawn.items():
        try:
            storage.write_bytes(join(folder, name), draw())
        except Exception as e:  # noqa: BLE001 - a picture that fails must not turn a good evaluation into a bad one
            _log.warning("No %s: %s", name, e)


class _ShownImages:
    """The images in tables and pictures, read again: at most `_MOST_LISTED`, and those of `_NUM_PAIRS` pairs."""

    def __init__(self, results: EvaluationResults) -> None:
        self._results = results
        predictions = results.predictions
        self.listed = analysis.hardest(predictions, _MOST_LISTED)
        self._shown = self.listed[:_NUM_HARDEST]
        self._pairs = [
            (
                pair,
                analysis.surest(predictions, pair.label, pair.predicted, _NUM_WRONG),
                [analysis.surest(predictions, label, label, 1) for label in (pair.label, pair.predicted)],
            )
            for pair in results.confusions[:_NUM_PAIRS]
        ]
        to_draw = set(self._shown)
        for _, wrong, rights in self._pairs:
            to_draw.update(wrong, *rights)
        self.excerpts = self._read(to_draw.union(self.listed))
        order = sorted(to_draw)
        pixels, _ = decode(tf.constant([self.excerpts[record].example for record in order]), results.form)
        self._pixels = dict(zip(order, pixels.numpy(), strict=True))

    def _read(self, records: Iterable[int]) -> dict[int, Excerpt]:
        by_shard: dict[int, dict[int, int]] = {}
        for record in records:
            shard, position = self._results.predictions.place(record)
            by_shard.setdefault(shard, {})[position] = record
        found = {}
        for shard, places in sorted(by_shard.items()):
            for position, excerpt in read_positions(self._results.shard_paths[shard], places).items():
                found[places[position]] = excerpt
        return found

    def confusions(self) -> bytes:
        names, results = self._results.names, self._results
        rows = [
            montage.ConfusedPair(
                label=names[pair.label],
                predicted=names[pair.predicted],
                num_records=pair.num_records,
                rate=pair.rate,
                wrong=[self._pixels[record] for record in wrong],
                right=tuple(self._pixels[right[0]] if right else None for right in rights),  # type: ignore[arg-type]
            )
            for pair, wrong, rights in self._pairs
        ]
        return montage.confusions(
            rows,
            results.form.image_size,
            max((len(row.wrong) for row in rows), default=1),
            title=results.title("the most confused pairs"),
            subtitle=f"{results.wrong}; {len(rows)} of {len(results.confusions):,} pairs",
        )

    def hardest(self) -> bytes:
        predictions, names = self._results.predictions, self._results.names
        images = [
            montage.HardImage(
                label=names[predictions.labels[record]],
                predicted=names[predictions.predicted[record]],
                label_probability=predictions.label_probability(record),
                predicted_probability=float(predictions.probabilities[record]),
                is_correct=bool(predictions.is_correct[record]),
                pixels=self._pixels[record],
            )
            for record in self._shown
        ]
        return montage.hardest(
            images,
            self._results.form.image_size,
            title=self._results.title("the hardest images"),
            subtitle=f"the {len(images)} with the highest loss: true class (green) and guess (red) with probabilities; "
            + self._results.wrong,
        )
