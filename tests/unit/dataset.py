"""A dataset and a run's folder as values, without a file: what the pure parts of a training are given."""

from __future__ import annotations

from typing import Any

from tests.plan import PLAN
from tfos_job.config import TrainConfig
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Shard
from tfos_job.layout import RunLayout
from tfos_job.run.assignment import RunAssignment, assignment_of
from tfos_job.run.folder import RunFolder
from tfos_job.run.training_data import SplitShards, TrainingData, training_data
from tfos_job.staging.cache_plan import Copy

SIZES = (30, 20, 10, 40)  # records a shard: two workers have 50 records each
SHARD_BYTES = 1 << 20


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "dataset_dir": "/data",
            "train_dir": "/run",
            "num_executors": 3,
            "input_mode": "files",
            "image_size": 16,
            "max_number_of_steps": 20,
            **changes,
        }
    )


def split(name: str = "train", charset: str = "一丁", *, is_remote: bool = False, **changes: Any) -> SplitShards:
    shards = tuple(Shard(file=f"{n}", size_bytes=SHARD_BYTES, sha256=f"{n}", num_records=n, sources=()) for n in SIZES)
    manifest = Manifest(
        **{
            "split_name": name,
            "generation": 0,
            "image_format": "raw",
            "charset_digest": Charset(tuple(charset)).digest,
            "shards": shards,
            "sources": (),
            "class_counts": (50, 50),
            "settings": {},
            "history": (),
            "created": "",
            "package_version": "0",
            **changes,
        }
    )
    paths = tuple(f"/data/{name}/{shard.file}" for shard in manifest.shards)
    copies = tuple(
        Copy(path, f"{name}/{shard.file}", shard.size_bytes, shard.sha256)
        for path, shard in zip(paths, manifest.shards, strict=True)
    )
    return SplitShards(root=f"/data/{name}", manifest=manifest, paths=paths, copies=copies if is_remote else ())


def data(settings: TrainConfig | None = None, charset: str = "一丁") -> TrainingData:
    return training_data(settings or config(), Charset(tuple(charset)), split(charset=charset), None)


def run_assignment() -> RunAssignment:
    return assignment_of(config(), data(), PLAN, checkpoint=None, lock_token="t")


def folder(**changes: Any) -> RunFolder:
    """Of a run that has not begun."""
    return RunFolder(
        **{
            "run": RunLayout("/run"),
            "clear": False,
            "is_next_attempt": False,
            "report": None,
            "settings": None,
            "checkpoints": (),
            "committed_digest": None,
            "next_attempt": 1,
            **changes,
        }
    )
