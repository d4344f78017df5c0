"""Tables of an evaluation: confusions, classes, calibration and the hardest records, as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np

from tfos_job.formats.excerpt import Excerpt
from tfos_job.run.evaluation_results import EvaluationResults


def tables(results: EvaluationResults) -> dict[str, bytes]:
    """Returns the contents of the tables by file name, except the hardest records."""
    names, found, pairs = results.names, results.per_class, results.confusions
    accuracies = found.num_correct / np.maximum(found.num_records, 1)
    calibration = results.calibration
    return {
        "confusions.csv": _csv(
            ("class_id", "text", "guess_id", "guess", "count", "rate"),
            ((p.label, names[p.label], p.predicted, names[p.predicted], p.num_records, f"{p.rate:.6f}") for p in pairs),
        ),
        "per_class.csv": _csv(
            ("class_id", "text", "records", "correct", "top_1", "most_frequent_wrong_guess"),
            (
                (i, name, records, correct, f"{accuracy:.6f}" if records else "", names[wrong] if wrong >= 0 else "")
                for i, (name, records, correct, accuracy, wrong) in enumerate(
                    zip(names, found.num_records, found.num_correct, accuracies, found.most_frequent_wrong, strict=True)
                )
            ),
        ),
        "calibration.json": json.dumps(
            {
                "step": results.step,
                "split": results.split_name,
                "ece": calibration.ece,
                "bins": [b._asdict() for b in calibration.bins],
            },
            indent=1,
        ).encode("ascii"),
    }


def hardest(results: EvaluationResults, records: Sequence[int], excerpts: dict[int, Excerpt]) -> bytes:
    """Returns the CSV of the records with the highest losses, with their places in source files and shards."""
    predictions, names = results.predictions, results.names
    rows = []
    for rank, record in enumerate(records, start=1):
        shard, _ = predictions.place(record)
        label, predicted = int(predictions.labels[record]), int(predictions.predicted[record])
        probabilities = (predictions.label_probability(record), float(predictions.probabilities[record]))
        source, offset = excerpts[record].source()
        rows.append(
            (
                *(rank, label, names[label], predicted, names[predicted]),
                *(f"{value:.6f}" for value in (predictions.losses[record], *probabilities)),
                *(source, "" if offset is None else offset, results.shard_paths[shard], excerpts[record].offset),
            )
        )
    head = ("rank", "class_id", "text", "guess_id", "guess", "loss", "class_probability", "guess_probability")
    return _csv((*head, "source_file", "source_offset", "shard", "shard_offset"), rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8")
