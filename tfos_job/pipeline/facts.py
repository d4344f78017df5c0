"""What is there for a run of the pipeline: files, dataset, registry, and what stages have made. It changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfos_job import storage
from tfos_job.conversion import sources
from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.errors import BadDataError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import EXPORT_DOCUMENT, RegistryLayout, join
from tfos_job.pipeline.names import FROZEN_SPLIT, TRAIN_SPLIT, PipelineLayout
from tfos_job.pipeline.record import StageRecord
from tfos_job.pipeline.stages import (
    CONVERT,
    EVALUATE,
    EXPORT,
    FREEZE,
    PROMOTE,
    TRAIN,
    VERIFY,
    Found,
    Promoted,
    Settings,
    digest,
)
from tfos_job.run import model_registry

_SPLITS = {CONVERT: TRAIN_SPLIT, FREEZE: FROZEN_SPLIT}


class Listings:
    """The GNT files of both sets, as they were at the beginning.

    Raises as `conversion.sources.find` does.
    """

    def __init__(self, settings: Settings) -> None:
        self.trained = sources.find(settings.gnt_dir).sources
        self.frozen = sources.find(settings.eval_gnt_dir).sources

    @property
    def digests(self) -> dict[str, str]:
        """Of each list, by the stage that converts it."""
        return {CONVERT: _digest(self.trained), FREEZE: _digest(self.frozen)}


def _digest(files: Sequence[SourceFile]) -> str:
    """Of names, sizes and times, by which `convert` tells that a file is another one."""
    crcs = [None if file.member is None else file.member.crc32 for file in files]
    rows = [[file.name, file.size_bytes, file.mtime_s, crc] for file, crc in zip(files, crcs, strict=True)]
    return digest(json.dumps(rows))


def look(settings: Settings, files: Mapping[str, str]) -> Found:
    """Reads dataset and registry; `files` are the digests of the listings.

    Raises:
      BadDataError: a manifest, the charset or the registry is damaged.
      SettingsError: the registry has a version that no promotion has published.
    """
    dataset = settings.layout.dataset
    charset = manifests.load_charset(dataset).digest if storage.exists(dataset.charset) else None
    splits = {stage: manifest_of(settings.layout, stage) for stage in _SPLITS}
    return Found(
        files=files,
        datasets={stage: found.digest for stage, found in splits.items() if found is not None},
        charset=charset,
        promoted=_promoted(RegistryLayout(settings.registry_dir)),
    )


def manifest_of(layout: PipelineLayout, stage: str) -> Manifest | None:
    """The manifest of the split that a stage makes; None if it is not there."""
    split = layout.dataset.split(_SPLITS[stage])
    return manifests.load(split) if storage.exists(split.manifest) else None


def _promoted(registry: RegistryLayout) -> Promoted | None:
    newest = model_registry.newest(registry) if storage.is_dir(registry.root) else None
    if newest is None:
        return None
    entry = newest[0]
    assert entry.version is not None
    checkpoint = str(entry.source.get("checkpoint") or "")
    return Promoted(
        version=entry.version,
        reason=entry.reason,
        checkpoint=checkpoint,
        has_checkpoint=bool(checkpoint) and storage.exists(checkpoint),
        charset=entry.model.charset_digest,
        frozen=entry.frozen_set.digest,
    )


def is_there(stage: str, before: StageRecord, found: Found) -> bool:
    """Whether what a stage has made is still there."""
    outputs = before.outputs
    if stage in _SPLITS:
        return found.datasets.get(stage) == outputs.get("digest")
    if stage == VERIFY:
        return True
    if stage == PROMOTE:
        version = None if found.promoted is None else found.promoted.version
        return outputs.get("version") == _text(version)
    path = {
        TRAIN: outputs.get("checkpoint"),
        EVALUATE: outputs.get("predictions"),
        EXPORT: join(outputs.get("path", ""), EXPORT_DOCUMENT),
    }[stage]
    return bool(path) and storage.exists(str(path))


def things_of(found: Found) -> Callable[[str, StageRecord], bool]:
    """`is_there` of what was found."""
    return lambda stage, before: is_there(stage, before, found)


def outputs_of(stage: str, result: Any, settings: Settings, found: Found, trained: str) -> dict[str, str]:
    """What later stages take from a stage that has ended well.

    Args:
      stage: its name.
      result: its JSON result.
      settings: the run's.
      found: what is there afterwards.
      trained: the folder of the training.

    Raises:
      BadDataError: the result lacks it.
    """
    if stage in _SPLITS:
        if stage not in found.datasets or found.charset is None:
            raise _lacks(stage, "split", settings)
        return {"digest": found.datasets[stage], "charset": found.charset}
    names = _RESULTS[stage]
    values = result if isinstance(result, dict) else {}
    for name in names:
        if name not in values or (values[name] is None and name != "version"):
            raise _lacks(stage, name, settings)
    outputs = {name: _text(values[name]) for name in names}
    return {**outputs, "train_dir": trained} if stage == TRAIN else outputs


_RESULTS: dict[str, tuple[str, ...]] = {
    VERIFY: (),
    TRAIN: ("checkpoint",),
    EVALUATE: ("checkpoint", "predictions"),
    EXPORT: ("path", "digest"),
    PROMOTE: ("decision", "version", "reason"),
}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _lacks(stage: str, name: str, settings: Settings) -> BadDataError:
    return BadDataError(
        f"{stage} has ended well, and its result has no {name}",
        place=f"run {settings.run_id}",
        next_step="Run it again; if that does not help, this is a bug",
    )
