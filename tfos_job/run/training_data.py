"""The dataset as one run reads it: computed once, from the flags and the manifests."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.config import PRELOADED, TrainConfig
from tfos_job.conversion.dataset import refuse_non_folder
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.formats import readers
from tfos_job.formats.adopted_shards import load_unchanged
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.readers import Reader
from tfos_job.layout import DatasetLayout
from tfos_job.protocol.topology import assign_shards
from tfos_job.run.specs import ModelSpec
from tfos_job.staging.cache_plan import MAX_WINDOW, Copy
from tfos_job.staging.stager import copies_of

log = logging.getLogger(__name__)

_MIB = 1 << 20
SHARDS_PER_WORKER = 4  # fewer, and workers end their epochs at different times


@dataclass(frozen=True, kw_only=True)
class SplitShards:
    """A split's manifest and shards.

    Attributes:
      root: the split's folder.
      manifest: with a shard for each of `paths`.
      paths: where the shards lie.
      copies: copies of remote shards on a worker's disk, one for each shard; empty for a local split.
    """

    root: str
    manifest: Manifest
    paths: tuple[str, ...]
    copies: tuple[Copy, ...]

    @property
    def sized(self) -> tuple[tuple[str, int], ...]:
        """Path and number of records of each shard."""
        return tuple((path, shard.num_records) for path, shard in zip(self.paths, self.manifest.shards, strict=True))

    @property
    def readable_paths(self) -> tuple[str, ...]:
        """The shards as TensorFlow on a worker opens them."""
        if self.copies:
            return tuple(copy.target for copy in self.copies)
        return tuple(readable(path) for path in self.paths)

    def part_sizes(self, num_workers: int) -> tuple[int, ...]:
        """Records of each worker's part."""
        return tuple(sum(n for _, n in part) for part in assign_shards(self.sized, num_workers))


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """All that a run needs to know of its dataset.

    Attributes:
      charset: the classes.
      reader: of the records.
      train: the training split.
      validation: that of `--validation_split_name`; None without one.
      parts: for each worker path and number of records of its shards.
      model: the network for these classes and images.
      total_steps: that the run ends at.
      input_mode: `preloaded` or `files`, the same for all workers, which run the same graph.
      shuffle_buffer: in records. Photographs are larger than glyphs: as many of them would not fit a worker's memory.
      window: shards that `files` reads at a time.
      order: the settings that, with the shards, decide the order of records in a worker's stream.
    """

    charset: Charset
    reader: Reader
    train: SplitShards
    validation: SplitShards | None
    parts: tuple[tuple[tuple[str, int], ...], ...]
    model: ModelSpec
    total_steps: int
    input_mode: str
    shuffle_buffer: int
    window: int
    order: Mapping[str, int | str]

    @property
    def is_remote(self) -> bool:
        return bool(self.train.copies)

    @property
    def part_sizes(self) -> tuple[int, ...]:
        """Records of each worker's part."""
        return tuple(sum(records for _, records in part) for part in self.parts)


def load(config: TrainConfig) -> TrainingData:
    """Reads charset and manifests; warns of few shards and of a buffer that is smaller than asked for.

    Raises:
      JobError: what `training_data` raises, or there is no such dataset.
    """
    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    dataset = DatasetLayout(config.dataset_dir)
    train = _load_split(dataset, config.dataset_split_name, "train")
    if config.validation_split_name is None:
        validation = None
    else:
        validation = _load_split(dataset, config.validation_split_name, "validation")
    data = training_data(config, manifests.load_charset(dataset), train, validation)
    _warn(config, data)
    return data


def _load_split(dataset: DatasetLayout, name: str, folder: str) -> SplitShards:
    split = dataset.split(name)
    manifest = load_unchanged(split)
    return SplitShards(
        root=split.root,
        manifest=manifest,
        paths=tuple(manifests.shard_paths(split, manifest)),
        copies=copies_of(split, manifest, folder),
    )


def training_data(
    config: TrainConfig, charset: Charset, train: SplitShards, validation: SplitShards | None
) -> TrainingData:
    """Divides the shards among the workers, and derives the rest from that. Pure.

    Raises:
      BadDataError: the split has no records.
      SettingsError: the flags do not go with the dataset.
    """
    manifest = train.manifest
    if manifest.num_records == 0:
        raise BadDataError("the split has no records", place=train.root)
    config.require_channels(manifest.num_channels)
    reader = readers.resolve(config.dataset_name, manifest.dataset_name, train.root)
    if validation is not None:
        _require_same_channels(train, validation)
    parts = assign_shards(train.sized, config.num_workers)
    most_records = max(sum(records for _, records in part) for part in parts)
    input_mode = config.resolved_input_mode(most_records, manifest.num_channels)
    shuffle_buffer = config.buffered_records(manifest.record_bytes)
    window = _window(config.cache_bytes, train.copies)
    return TrainingData(
        charset=charset,
        reader=reader,
        train=train,
        validation=validation,
        parts=parts,
        model=ModelSpec(
            model_name=config.model_name,
            num_classes=len(charset),
            image_size=config.side,
            num_channels=manifest.num_channels,
            keep_prob=config.keep_prob,
        ),
        total_steps=config.total_steps(manifest.num_records),
        input_mode=input_mode,
        shuffle_buffer=shuffle_buffer,
        window=window,
        order=_order(config, input_mode, shuffle_buffer, window),
    )


def _order(config: TrainConfig, input_mode: str, shuffle_buffer: int, window: int) -> dict[str, int | str]:
    """`TrainingData.order`."""
    order: dict[str, int | str] = {"num_workers": config.num_workers, "seed": config.seed, "input_mode": input_mode}
    return order if input_mode == PRELOADED else order | {"shuffle_buffer": shuffle_buffer, "window": window}


def _require_same_channels(train: SplitShards, validation: SplitShards) -> None:
    if validation.manifest.num_channels != train.manifest.num_channels:
        raise SettingsError(
            f"images of {validation.manifest.num_channels} channel(s), those of {train.root} have "
            f"{train.manifest.num_channels}",
            place=validation.root,
            next_step="Convert both with the same --num_channels",
        )


def _window(cache_bytes: int | None, copies: tuple[Copy, ...]) -> int:
    """Shards that are read at a time, one number for all workers: as many as `--cache_gb` holds."""
    if cache_bytes is None or not copies:
        return MAX_WINDOW
    largest = max(copy.size_bytes for copy in copies)
    if cache_bytes < largest:
        raise SettingsError(
            f"{cache_bytes / _MIB:,.2f} MiB are less than the largest shard has, {largest / _MIB:,.2f}",
            place="--cache_gb",
            next_step="Give more, or convert with a smaller --target_shard_mb",
        )
    return min(MAX_WINDOW, cache_bytes // largest)


def readable(path: str) -> str:
    """The path as TensorFlow on a node opens it."""
    return storage.local_path(path) or path


def _warn(config: TrainConfig, data: TrainingData) -> None:
    train = data.train
    if data.input_mode != PRELOADED and data.shuffle_buffer < config.shuffle_buffer:
        log.warning(
            "A record of %s has %d bytes on average, so the shuffle buffer holds %d, not %d",
            train.root,
            train.manifest.record_bytes,
            data.shuffle_buffer,
            config.shuffle_buffer,
        )
    if len(train.manifest.shards) < SHARDS_PER_WORKER * config.num_workers:
        log.warning(
            "%s has %d shards for %d workers, and %d for each of them is few: they cannot be given equal parts. %s",
            train.root,
            len(train.manifest.shards),
            config.num_workers,
            SHARDS_PER_WORKER,
            "Convert it with a smaller --target_shard_mb"
            if train.manifest.adoption is None
            else "Write its records into more shards, and adopt those",
        )
