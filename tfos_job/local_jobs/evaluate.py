"""`evaluate`: exact counts of a checkpoint on a split, and pictures of them, in this process."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import tfos_job
from tfos_job import storage
from tfos_job.config import EvaluateConfig
from tfos_job.config.flags import require
from tfos_job.errors import BadDataError, DivergedError, JobError
from tfos_job.formats import manifest
from tfos_job.formats.manifest import Manifest
from tfos_job.inference.evaluation import evaluate_shards, joined, write_evaluation
from tfos_job.layout import RunLayout, SplitLayout
from tfos_job.networks.variables import restore_model
from tfos_job.reports.evaluation_report import publish
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.evaluation_input import JudgedSplit, choose
from tfos_job.run.evaluation_results import EvaluationResults
from tfos_job.run.kept_predictions import Header, KeptPredictions, write_predictions
from tfos_job.run.model_digest import model_digest
from tfos_job.staging.copies import local_copy

_log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, judged: JudgedSplit | None = None) -> dict[str, Any]:
    """Counts each record of the split exactly once, and writes numbers and pictures to the run's `evaluation` folder.

    Args:
      config: run, split and batches.
      judged: what executors made of the shards (`jobs/evaluate.py`), which are not read here then but for pictures.

    Returns:
      `num_examples`, `loss`, `top_<k>` and `ece`, with `step`, `split` and `checkpoint`; `pictures` is their folder,
      `predictions` the file with that for each record; None if there are none.

    Raises:
      MissingInputError: there is no checkpoint or no split.
      SettingsError: the checkpoint was trained on other classes or channels.
      BadDataError: a checkpoint or record is damaged, or the number of records is not the manifest's.
      DivergedError: the loss is not finite.
    """
    run = RunLayout(config.train_dir)
    if judged is None:
        require(not config.num_executors, "num_executors", "this process has no Spark", "Call `tfos-job evaluate`")
        info, arrays, split, contents = choose(config)
        digest = model_digest(info, arrays)
        _log.info("Evaluating step %d on %d records of %s", info.step, contents.num_records, split.root)
        counts, predictions = evaluate_shards(
            restore_model(info, arrays, config.model_name),
            _staged(split, contents),
            num_records=contents.num_records,
            batch_size=config.batch_size,
            form=info.form,
            ks=config.ks,
        )
    else:
        (info, _, split, contents), digest = judged.input, judged.model_digest
        counts, predictions = joined(judged.shards, config.ks)
    if counts.num_examples != contents.num_records:
        raise BadDataError(
            f"holds {counts.num_examples} records, its manifest says {contents.num_records}",
            place=split.root,
            next_step="Run `verify` on the split",
        )
    results = EvaluationResults(
        step=info.step,
        split_name=config.dataset_split_name,
        predictions=predictions,
        names=tuple(info.characters),
        shard_paths=manifest.shard_paths(split, contents),
        form=info.form,
    )
    metrics = {**counts.metrics(), "ece": results.calibration.ece}
    if not math.isfinite(metrics["loss"]):
        raise DivergedError(
            f"the loss on {split.root} is {metrics['loss']}",
            place=info.path,
            next_step="Evaluate an earlier checkpoint",
        )
    place = {"step": info.step, "split": config.dataset_split_name, "checkpoint": info.path}
    if storage.absolute(info.path) != storage.absolute(run.checkpoint(info.step)):
        _log.info("not recorded in %s: the checkpoint is not one of this run", run.evaluation_dir)
        return {**metrics, **place, "pictures": None, "predictions": None}
    kept = KeptPredictions(_header(config, info, contents, digest, metrics), predictions)
    written = write_predictions(run, kept)
    write_evaluation(run, info.step, results.split_name, metrics)
    _log.info("Writing the tables" if config.numbers_only else "Drawing the pictures")
    folder = publish(results, run, pictures=not config.numbers_only)
    return {**metrics, **place, "pictures": None if config.numbers_only else folder, "predictions": written}


def _header(
    config: EvaluateConfig, info: CheckpointInfo, contents: Manifest, digest: str, metrics: dict[str, Any]
) -> Header:
    """Whose predictions they are, with the run's settings as far as they can be read."""
    flags = None
    try:
        flags = dict(storage.read_json(RunLayout(config.train_dir).config))
    except (JobError, ValueError, TypeError) as error:
        _log.warning("the run's settings are left out of the predictions: %s", error)
    return Header(
        model_digest=digest,
        step=info.step,
        checkpoint=storage.absolute(info.path),
        dataset_dir=storage.absolute(config.dataset_dir),
        split=config.dataset_split_name,
        dataset_digest=contents.digest,
        charset_digest=contents.charset_digest,
        num_classes=len(info.characters),
        metrics=metrics,
        train_flags=flags,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        package_version=tfos_job.__version__,
    )


def _staged(split: SplitLayout, contents: manifest.Manifest) -> Iterator[str]:
    """Yields local files of the shards, one at a time. Remote shards are copied, verified, and removed afterwards."""
    for path, shard in zip(manifest.shard_paths(split, contents), contents.shards, strict=True):
        with local_copy(path, shard.size_bytes, shard.sha256) as local:
            yield local
