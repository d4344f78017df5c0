"""`evaluate`: exact counts of a checkpoint on a split, and pictures of them, in the driver's own process."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

from tfos_job import storage
from tfos_job.config import EvaluateConfig
from tfos_job.conversion.dataset import refuse_non_folder
from tfos_job.errors import BadDataError, DivergedError, SettingsError
from tfos_job.formats import manifest
from tfos_job.inference.evaluation import evaluate_shards, write_evaluation
from tfos_job.layout import DatasetLayout, RunLayout, SplitLayout
from tfos_job.networks.variables import form_of, restore_model
from tfos_job.reports.evaluation_report import Results, publish
from tfos_job.run import checkpoints
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.staging.stager import local_copy

_log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Counts each record of the split exactly once and records it in the run's `evaluation` folder, then draws.

    Returns:
      `num_examples`, `loss`, `top_<k>` and `ece`, with `step`, `split` and `checkpoint`; `pictures` is the folder that
      they are in, None where there are none.

    Raises:
      MissingInputError: no checkpoint or no split.
      SettingsError: the split's classes are not those the checkpoint was trained on.
      BadDataError: a damaged checkpoint or record, or not as many records as the manifest says.
      DivergedError: the loss is not finite.
    """
    run = RunLayout(config.train_dir)
    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    split = DatasetLayout(config.dataset_dir).split(config.dataset_split_name)
    info, arrays = checkpoints.read(run, config.checkpoint)
    contents = manifest.load(split)
    _require_same_charset(info, contents, split.root)
    form = form_of(info)
    if contents.num_channels != form.num_channels:
        raise SettingsError(
            f"images of {contents.num_channels} channel(s), {info.path} was trained on {form.num_channels}",
            place=split.root,
            next_step="Evaluate on a split that was converted with the same --num_channels",
        )
    counts, predictions = evaluate_shards(
        restore_model(info, arrays),
        _staged(split, contents),
        num_records=contents.num_records,
        batch_size=config.batch_size,
        form=form,
        ks=config.ks,
    )
    if counts.num_examples != contents.num_records:
        raise BadDataError(
            f"holds {counts.num_examples} records, its manifest says {contents.num_records}",
            place=split.root,
            next_step="Run `verify` on the split",
        )
    results = Results(
        step=info.step,
        split_name=config.dataset_split_name,
        predictions=predictions,
        names=tuple(info.characters),
        shard_paths=manifest.shard_paths(split, contents),
        form=form,
    )
    metrics = {**counts.metrics(), "ece": results.calibration.ece}
    if not math.isfinite(metrics["loss"]):
        raise DivergedError(
            f"the loss on {split.root} is {metrics['loss']}",
            place=info.path,
            next_step="Evaluate an earlier checkpoint",
        )
    if storage.absolute(info.path) == storage.absolute(run.checkpoint(info.step)):
        write_evaluation(run, info.step, config.dataset_split_name, metrics)
        folder = publish(results, run, pictures=not config.numbers_only)
    else:
        folder = None
        _log.info("not recorded in %s: the checkpoint is not one of this run", run.evaluation_dir)
    pictures = None if config.numbers_only else folder
    place = {"step": info.step, "split": config.dataset_split_name, "checkpoint": info.path}
    return {**metrics, **place, "pictures": pictures}


def _require_same_charset(info: CheckpointInfo, contents: manifest.Manifest, place: str) -> None:
    if contents.charset_digest != info.charset_digest:
        raise SettingsError(
            f"charset {contents.charset_digest[:12]} is not the one of {info.path}, {info.charset_digest[:12]}",
            place=place,
            next_step="Evaluate on a dataset converted with the charset that the run was trained on",
        )


def _staged(split: SplitLayout, contents: manifest.Manifest) -> Iterator[str]:
    """Local files for the shards, one at a time. Remote ones are copied and proved, then removed."""
    for path, shard in zip(manifest.shard_paths(split, contents), contents.shards, strict=True):
        with local_copy(path, shard.size_bytes, shard.sha256) as local:
            yield local
