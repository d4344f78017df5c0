"""The tasks of `verify`: one a shard, and groups of ranges of source files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tfos_job import storage
from tfos_job.config import VerifyConfig
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats import archives
from tfos_job.formats.archives import Member
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest, shard_paths
from tfos_job.layout import DatasetLayout, join
from tfos_job.verification.findings import Findings
from tfos_job.verification.shard_proof import ShardTask
from tfos_job.verification.source_proof import RangeTask

_RANGE_TASK_BYTES = 128 << 20


def shard_tasks(dataset: DatasetLayout, chosen: Mapping[str, Manifest], charset: Charset | None) -> list[ShardTask]:
    """A task for each shard, in the order of the splits and of their manifests."""
    found: list[ShardTask] = []
    first_source = 0
    for name, manifest in chosen.items():
        sources = {
            source.name: (number, source.size_bytes) for number, source in enumerate(manifest.sources, first_source)
        }
        first_source += len(sources)
        found += [
            ShardTask(
                number=number,
                path=path,
                file=join(name, shard.file),
                shard=shard,
                image_format=manifest.image_format,
                of_pictures=manifest.of_pictures,
                is_adopted=manifest.adoption is not None,
                characters=charset.characters if charset else (),
                sources={own: sources[own] for own in shard.sources or sources if own in sources} or None,
            )
            for number, (path, shard) in enumerate(
                zip(shard_paths(dataset.split(name), manifest), manifest.shards, strict=True), len(found)
            )
        ]
    return found


def range_tasks(
    config: VerifyConfig, chosen: Mapping[str, Manifest], findings: Findings
) -> list[tuple[RangeTask, ...]]:
    """The source files' ranges in groups of about `_RANGE_TASK_BYTES`; none without `--gnt_dir`."""
    if config.gnt_dir is None:
        return []
    if config.gnt_dir != "auto" and len(chosen) > 1:
        raise SettingsError(
            f"{config.gnt_dir} is one folder, and {len(chosen)} splits are chosen",
            place="--gnt_dir",
            next_step="Give --dataset_split_name, or --gnt_dir auto for the folder that each was converted from",
        )
    for name, manifest in chosen.items():
        if not manifest.sources:
            raise SettingsError(
                f"split {name} was made from {manifest.made_from}: no GNT files can prove it",
                place="--gnt_dir",
                next_step="Leave it out, or give the --dataset_split_name of a split that was made from GNT files",
            )
    groups: list[tuple[RangeTask, ...]] = []
    for manifest in chosen.values():
        folder = storage.absolute(manifest.settings.get("gnt_dir", "") if config.gnt_dir == "auto" else config.gnt_dir)
        if not storage.is_dir(folder):
            raise MissingInputError("no such folder of GNT files", place=folder, next_step="Check --gnt_dir")
        group: list[RangeTask] = []
        group_bytes = 0
        for task in _source_tasks(folder, manifest, findings):
            group.append(task)
            group_bytes += task.range.end - task.range.start
            if group_bytes >= _RANGE_TASK_BYTES:
                groups.append(tuple(group))
                group, group_bytes = [], 0
        if group:
            groups.append(tuple(group))
    return groups


def _source_tasks(folder: str, manifest: Manifest, findings: Findings) -> Iterator[RangeTask]:
    """A task for each range of each source that is there. Archives are looked into here, once each."""
    members: dict[str, dict[str, Member]] = {}
    faults: dict[str, str] = {}
    for archive in sorted({source.archive for source in manifest.sources} - {""}):
        try:
            members[archive] = {member.name: member for member in archives.read_directory(join(folder, archive))}
        except BadDataError as error:
            faults[archive] = error.fact
        except MissingInputError:
            members[archive] = {}
    for source in manifest.sources:
        path, member = join(folder, source.archive or source.name), None
        if source.archive in faults:
            findings.add("changed_source", source.name, f"its archive is {faults[source.archive]}")
            continue
        if source.archive:
            member = members[source.archive].get(source.name.removeprefix(f"{source.archive}/"))
            if member is None or member.fault:
                findings.add("missing_source", source.name, f"not in {path}" if member is None else member.fault)
                continue
        for part in source.ranges:
            yield RangeTask(path=path, name=source.name, size_bytes=source.size_bytes, range=part, member=member)
