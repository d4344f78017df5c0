"""A random sample of a split as the network sees it, and the pictures of a split."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from tfos_job import storage
from tfos_job.config import NO_NORMALIZATION, AugmentationConfig, TrainConfig, from_dict
from tfos_job.formats import readers, sampling
from tfos_job.formats.form import Form
from tfos_job.formats.manifest import Manifest
from tfos_job.input.augmentation import augment
from tfos_job.input.damage import data_errors
from tfos_job.input.decoding import decode, to_float
from tfos_job.input.normalization import Normalization, restore
from tfos_job.layout import RunLayout, SplitLayout
from tfos_job.reports import classes, montage
from tfos_job.run import checkpoints
from tfos_job.run.quantities import number

NUM_VERSIONS = 3


@dataclass(frozen=True, kw_only=True)
class InputView:
    """The processing of an image of `image_size` pixels square before the network in training."""

    image_size: int
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    normalization: Normalization = field(default_factory=Normalization)

    @property
    def num_versions(self) -> int:
        """The number of versions to show, V; 1 without random changes."""
        if self.augmentation != AugmentationConfig():
            return NUM_VERSIONS
        return 0 if self.normalization.kind == NO_NORMALIZATION else 1

    @property
    def words(self) -> str:
        """Description of the processing, for the heading of the versions."""
        augmented = ["augmented"] if self.augmentation != AugmentationConfig() else []
        kind = self.normalization.kind
        return ", ".join(augmented + ([] if kind == NO_NORMALIZATION else [f"normalized ({kind})"]))


def input_view(run: RunLayout) -> InputView:
    """Returns the input view of a run: its settings, and the normalization of its last checkpoint.

    Raises:
      MissingInputError: the run does not exist, or it normalizes and has no checkpoint yet.
    """
    config = from_dict(TrainConfig, storage.read_json(run.config))
    normalization = Normalization()
    if config.normalization != NO_NORMALIZATION:
        info, arrays = checkpoints.read_network(run, "last")
        normalization = restore(info.normalization, arrays)
    return InputView(image_size=config.side, augmentation=config.augmentation, normalization=normalization)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample of n records, sorted by class.

    Attributes:
      class_ids: int64 [n].
      stored: decoded images, uint8 [n, S, S, C].
      augmented: V versions of each, uint8 [n, V, S, S, C]; V is 0 without any processing.
      words: description of the processing.
      num_shards: number of shards read.
      num_eligible: number of records that the sample was chosen from.
    """

    class_ids: np.ndarray
    stored: np.ndarray
    augmented: np.ndarray
    words: str
    num_shards: int
    num_eligible: int


def take(split: SplitLayout, contents: Manifest, view: InputView, *, num_images: int, seed: int) -> Sample:
    """Reads a sample and processes it by the pipeline's own functions, up to the network's input.

    Args:
      split: of the dataset.
      contents: its manifest.
      view: the processing.
      num_images: n; fewer if the split has fewer records.
      seed: of the choice and the augmentation.

    Raises:
      BadDataError: there are no records, or one is damaged.
      MissingInputError: a shard does not exist.
    """
    examples, shards, num_eligible = sampling.read(split, contents, num_images=num_images, seed=seed)
    form = Form(
        image_size=view.image_size,
        num_channels=contents.num_channels,
        antialias=readers.resolve(None, contents.dataset_name, split.root).antialias,
    )
    with data_errors(shards):
        pixels, labels = decode(tf.constant(examples), form)
    order = np.argsort(labels.numpy(), kind="stable")
    stored = tf.gather(pixels, order)
    return Sample(
        class_ids=labels.numpy()[order],
        stored=stored.numpy(),
        augmented=_versions(stored, seed, view),
        words=view.words,
        num_shards=len(shards),
        num_eligible=num_eligible,
    )


def _versions(stored: tf.Tensor, seed: int, view: InputView) -> np.ndarray:
    """Returns versions of the pixels as in training: uint8 [n, V, S, S, C].

    Augmented values are clipped to [0, 1] for display. Normalized values are around 0 and are scaled to [0, 1], except
    the outermost hundredth.
    """
    num_images, *shape = stored.shape
    versions = np.empty((num_images, view.num_versions, *shape), np.float32)
    for version in range(view.num_versions):
        indices = tf.range(num_images, dtype=tf.int64) * NUM_VERSIONS + version
        seen = augment(to_float(stored), tf.constant(seed, tf.int64), indices, view.augmentation)
        versions[:, version] = view.normalization(seen).numpy()
    if view.normalization.kind != NO_NORMALIZATION:
        low, high = np.percentile(versions, (0.5, 99.5))
        versions = (versions - low) / max(high - low, 1e-6)
    return (np.clip(versions, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def contact_sheet(sample: Sample, names: Sequence[str], *, split_name: str) -> bytes:
    """Draws a sample, with `names` of all classes; returns a PNG."""
    num_images, num_versions = sample.augmented.shape[:2]
    size = f"{sample.stored.shape[1]} × {sample.stored.shape[2]} × {sample.stored.shape[3]}"
    versions = f", each with {num_versions} versions, {sample.words}" if num_versions else ", no augmentation"
    return montage.contact_sheet(
        [names[class_id] for class_id in sample.class_ids],
        sample.stored,
        sample.augmented,
        heading=sample.words,
        title=f"{split_name}: what the network sees",
        subtitle=f"{num_images} of {sample.num_eligible:,} records at random, by class, {size}{versions}",
    )


def histogram(contents: Manifest, names: Sequence[str]) -> tuple[bytes, bytes]:
    """Returns the number of records of each class, as a PNG and as CSV."""
    counts = np.array(contents.class_counts, np.int64)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("class_id", "text", "records"))
    writer.writerows(zip(range(len(counts)), names, contents.class_counts, strict=True))
    picture = classes.histogram(counts, names, title=f"{contents.split_name}: records per class")
    return picture, stream.getvalue().encode("utf-8")


def same_counts(contents: Manifest) -> str:
    """A sentence in place of a histogram whose bars are all of one length; empty if they are not."""
    counts = set(contents.class_counts)
    if len(counts) != 1:
        return ""
    return f"Each of the {number(contents.num_classes)} classes has {number(counts.pop())} records."
