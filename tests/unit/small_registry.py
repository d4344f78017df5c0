"""Exports of no network, and predictions that they would have made: what a registry sees of a model, in bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfos_job import storage
from tfos_job.config import PromoteConfig
from tfos_job.formats.charset import Charset
from tfos_job.layout import ExportLayout, RegistryLayout
from tfos_job.local_jobs.promote import promote
from tfos_job.run import exports, kept_predictions
from tfos_job.run.kept_predictions import Header, KeptPredictions
from tfos_job.run.predictions import Predictions

CHARSET = Charset(("一", "丁", "七"))
OTHER_CHARSET = Charset(("一", "丁", "万"))
NUM_RECORDS = 90


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class SmallModel:
    """A folder of one exported version, and a file of predictions."""

    export_dir: str
    predictions: str
    digest: str


def model(
    root: Path,
    name: str,
    num_wrong: int = 0,
    *,
    frozen: str = "frozen",
    charset: Charset = CHARSET,
    evaluated: str | None = None,
    **changes: Any,
) -> SmallModel:
    """A model that is wrong about the first `num_wrong` records.

    Args:
      root: folder of all models.
      name: its content, so that two of one name are one model.
      num_wrong: of `NUM_RECORDS`.
      frozen: the frozen set.
      charset: of model and frozen set.
      evaluated: the model whose predictions these are, if it is another one.
      **changes: those of `export.json`.
    """
    export_dir, digest = str(root / name), digest_of(name)
    files = root / f"{name}-files"
    (files / "variables").mkdir(parents=True)
    (files / "saved_model.pb").write_bytes(f"graph of {name}".encode())
    (files / "variables" / "variables.index").write_bytes(name.encode() * 100)
    document = {
        "digest": digest,
        "step": 20,
        "checkpoint": f"{root}/run/checkpoints/step-00000020",
        "checkpoint_digest": digest_of(f"checkpoint of {name}"),
        "classes": list(charset.characters),
        "charset_digest": charset.digest,
        "dataset_name": "gnt",
        "dataset_digest": digest_of("training"),
        "package_version": "0.1.0",
        "versions": {"tensorflow": "2"},
        "top_k": 3,
        "formats": {"saved_model": {}},
        "metrics": {"training": {"top_1": 0.5}, "evaluations": {}},
        "ink": None,
    }
    storage.make_dirs(export_dir)
    exports.publish(ExportLayout(export_dir), str(files), document | changes)
    labels = np.arange(NUM_RECORDS, dtype=np.int32) % len(charset)
    is_wrong = np.arange(NUM_RECORDS) < num_wrong
    predictions = Predictions(
        labels=labels,
        predicted=np.where(is_wrong, (labels + 1) % len(charset), labels).astype(np.int32),
        probabilities=np.full(NUM_RECORDS, 0.5, np.float32),
        losses=np.full(NUM_RECORDS, 0.5, np.float32),
        shard_sizes=(NUM_RECORDS,),
    )
    header = Header(
        model_digest=digest_of(evaluated or name),
        step=20,
        checkpoint=document["checkpoint"],
        dataset_dir="/frozen",
        split="test",
        dataset_digest=digest_of(frozen + charset.digest),
        charset_digest=charset.digest,
        num_classes=len(charset),
        metrics={"num_examples": NUM_RECORDS, "top_1": 1 - num_wrong / NUM_RECORDS},
        train_flags={"epoch": 5},
        created="2026-12-01T00:00:00+00:00",
        package_version="0.1.0",
    )
    path = str(root / f"{name}.npz")
    storage.write_bytes(path, kept_predictions.to_bytes(KeptPredictions(header, predictions)))
    return SmallModel(export_dir, path, digest)


def offer(registry_dir: str, candidate: SmallModel, **flags: Any) -> dict[str, Any]:
    """`promote`, of a network that answers."""
    config = PromoteConfig(
        registry_dir=registry_dir, export_dir=candidate.export_dir, predictions=candidate.predictions, **flags
    )
    return promote(config, bless=lambda folder: None)


def served(registry_dir: str) -> str | None:
    """The model that a server takes: the highest number, whose files must be whole. None if there is none."""
    registry = RegistryLayout(registry_dir)
    numbers = exports.numbers(registry)
    if not numbers:
        return None
    info = exports.read(registry.version(numbers[0]))
    exports.prove(info)
    assert info.version == numbers[0]
    return info.digest
