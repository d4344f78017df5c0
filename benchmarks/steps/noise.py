"""Records of noise with the sizes of handwriting: speed does not depend on what the glyphs show."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfos_job.config import TrainConfig
from tfos_job.formats.charset import Charset, level1
from tfos_job.formats.example_writer import GlyphEncoder
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Shard
from tfos_job.run.plan import TrainPlan, plan_of
from tfos_job.run.specs import normalization_of
from tfos_job.run.training_data import SplitShards, TrainingData, training_data

ENDLESS = 1 << 30
"""Steps of a training that ends when it has been measured."""
_NUM_SHARDS = 8
_NUM_RECORDS = 4096


class Noise:
    """A split of 4,096 records in 8 shards, as conversion would leave it, without its files of JSON."""

    def __init__(self, folder: Path, num_classes: int, seed: int) -> None:
        """Writes the shards into the folder."""
        self._folder = folder
        self._charset = level1(num_classes)
        draw = np.random.default_rng(seed)
        encoder = GlyphEncoder(self._charset.characters, "raw")
        counts = np.zeros(num_classes, int)
        self._paths = []
        for number in range(_NUM_SHARDS):
            path = folder / f"part-{number:05d}.tfrecord"
            with open(path, "wb") as stream:
                for _ in range(_NUM_RECORDS // _NUM_SHARDS):
                    height, width = (int(side) for side in draw.integers(64, 101, 2))
                    label = int(draw.integers(num_classes))
                    counts[label] += 1
                    stream.write(encoder.encode_one(label, draw.bytes(height * width), width, height, path.name, 0))
            self._paths.append(path)
        self._split = self._split_of(self._charset, tuple(map(int, counts)))

    def _split_of(self, charset: Charset, class_counts: tuple[int, ...]) -> SplitShards:
        shards = tuple(
            Shard(
                file=path.name,
                size_bytes=path.stat().st_size,
                sha256="",
                num_records=_NUM_RECORDS // _NUM_SHARDS,
                sources=(),
            )
            for path in self._paths
        )
        manifest = Manifest(
            split_name="train",
            generation=0,
            image_format="raw",
            charset_digest=charset.digest,
            shards=shards,
            sources=(),
            class_counts=class_counts,
            settings={},
            history=(),
            created="",
            package_version="",
        )
        return SplitShards(root=str(self._folder), manifest=manifest, paths=tuple(map(str, self._paths)), copies=())

    def data(self, config: TrainConfig) -> TrainingData:
        """What `tfos-job train` with these flags makes of the split."""
        return training_data(config, self._charset, self._split, None)


def fresh_plan(config: TrainConfig, data: TrainingData) -> TrainPlan:
    """The plan of a training that begins."""
    return plan_of(
        config,
        data,
        start_step=0,
        positions=(0,) * config.num_workers,
        normalization=normalization_of(config),
        statistics=None,
    )
