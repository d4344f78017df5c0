"""What `convert` says at its end."""

from __future__ import annotations

import logging

import pytest

from tests.unit.manifests import example
from tfos_job.config import ConvertConfig
from tfos_job.conversion.result import SplitResult, log_gnt_split
from tfos_job.conversion.source_changes import Changes
from tfos_job.conversion.sources import SourceListing
from tfos_job.layout import DatasetLayout


@pytest.mark.parametrize(
    ("counts", "num_empty", "words"),
    [
        ((1, 2), 0, None),
        ((3, 0), 1, "1 of the 2 classes have no record in this split"),
        ((3, *[0] * 3754), 3754, "with --charset auto, which has the 1 that are there"),
        ((1, 0, 2), 1, "the first with --charset auto, which has the 2 that are there"),
    ],
)
def test_classes_without_a_record_are_counted_and_told(
    counts: tuple[int, ...], num_empty: int, words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    made, dataset = example(class_counts=counts), DatasetLayout("/data")
    result = SplitResult.of(dataset, made, up_to_date=False, num_other_files=0, started_s=0.0)
    assert (result.num_classes, result.num_empty_classes) == (len(counts), num_empty)
    nothing = Changes(added=(), changed=(), touched=(), gone=(), renamed=())
    config = ConvertConfig(gnt_dir="/gnt", dataset_dir="/data")
    log_gnt_split(config, dataset.split("train"), made, SourceListing((), ()), nothing)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    told = [text for text in told if "have no record" in text]
    assert [words in text for text in told] == ([True] if words else [])
