"""`inspect`: the contents of a split as pictures, in this process."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from tfos_job import storage
from tfos_job.config import InspectConfig
from tfos_job.conversion.dataset import refuse_non_folder
from tfos_job.formats import manifest
from tfos_job.formats.adopted_shards import load_unchanged
from tfos_job.layout import DatasetLayout, RunLayout, join
from tfos_job.reports import sample
from tfos_job.reports.sample import InputView

_NAMED = 10

_log = logging.getLogger(__name__)


def inspect(config: InspectConfig) -> dict[str, Any]:
    """Writes `contact_sheet.png`, `class_histogram.png` and `class_histogram.csv`, replacing earlier ones.

    Returns:
      Their paths, counts, and the rarest and the most frequent classes.

    Raises:
      MissingInputError: the dataset or split does not exist.
      BadDataError: there are no records, or one is damaged.
    """
    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    dataset = DatasetLayout(config.dataset_dir)
    split = dataset.split(config.dataset_split_name)
    contents = load_unchanged(split)
    config.require_channels(contents.num_channels)
    names = manifest.load_charset(dataset).characters
    if config.train_dir is None:
        view = InputView(image_size=config.side, augmentation=config.augmentation)
    else:
        view = sample.input_view(RunLayout(config.train_dir))
    _log.info("Drawing %d images of %s", config.num_images, split.root)
    taken = sample.take(split, contents, view, num_images=config.num_images, seed=config.seed)
    picture, table = sample.histogram(contents, names)
    files = {
        "contact_sheet": ("contact_sheet.png", sample.contact_sheet(taken, names, split_name=contents.split_name)),
        "class_histogram": ("class_histogram.png", picture),
        "class_counts": ("class_histogram.csv", table),
    }
    storage.make_dirs(config.output_dir)
    paths = {}
    for key, (name, data) in files.items():
        paths[key] = join(config.output_dir, name)
        storage.write_bytes(paths[key], data)
        _log.info("%s: %d bytes", paths[key], len(data))
    return {
        **paths,
        **_classes(contents, names),
        "split": contents.split_name,
        "num_records": contents.num_records,
        "num_images": len(taken.class_ids),
        "num_shards_read": taken.num_shards,
        "num_eligible": taken.num_eligible,
    }


def _classes(contents: manifest.Manifest, names: tuple[str, ...]) -> dict[str, Any]:
    counts = np.array(contents.class_counts)
    rarest = [i for i in np.argsort(counts, kind="stable") if counts[i]]
    frequent = [i for i in np.argsort(-counts, kind="stable") if counts[i]]

    def named(class_ids: list[int]) -> list[dict[str, Any]]:
        return [{"class_id": int(i), "text": names[i], "records": int(counts[i])} for i in class_ids]

    return {
        "num_classes": len(counts),
        "num_empty_classes": len(counts) - len(rarest),
        "rarest": named(rarest[:_NAMED]),
        "most_frequent": named(frequent[:_NAMED]),
    }
