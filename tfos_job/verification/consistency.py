"""The consistency of a dataset: manifests, counts of shards, folders, and one split with the next.

Pure: what others have read goes in, findings come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.quarantine import quarantine_file
from tfos_job.layout import BUILDING_PREFIX, GENERATION_PREFIX, join
from tfos_job.verification.findings import Findings
from tfos_job.verification.shard_proof import ShardReport

_UNFINISHED = ".tmp"


def add_unfinished(findings: Findings, file: str, *, at_work: bool) -> None:
    """Adds an unfinished file: of a running job, which is no fault, or of a killed one."""
    if at_work:
        findings.add("in_progress", file, "of a job that is at work now")
    else:
        findings.add("leftover", file, "left by a job that was killed")


def check_shards(split: str, manifest: Manifest, reports: Sequence[ShardReport]) -> Findings:
    """Compares the split's shards with its manifest.

    Args:
      split: name of its folder.
      manifest: of the split.
      reports: one for each of the manifest's shards, in order.
    """
    findings = Findings()
    owners = {shard.sha256: shard.file for shard in manifest.shards}
    for shard, report in zip(manifest.shards, reports, strict=True):
        file = join(split, shard.file)
        findings.extend([report.findings])
        if report.sha256 and report.sha256 != shard.sha256:
            owner = owners.get(report.sha256)
            fact = f"expected {shard.sha256[:12]}, found {report.sha256[:12]}"
            findings.add("shard_digest", file, fact + (f": these are the bytes of {owner}" if owner else ""))
        if report.sha256 and report.num_records != shard.num_records:
            findings.add("shard_records", file, f"expected {shard.num_records} records, found {report.num_records}")
    if all(report.whole for report in reports):  # else the sums are wrong anyway, and the shards have the cause
        _check_classes(findings, split, manifest, reports)
        _check_sources(findings, split, manifest, reports)
    return findings


def _check_classes(findings: Findings, split: str, manifest: Manifest, reports: Sequence[ShardReport]) -> None:
    counts: Counter[int] = Counter()
    for report in reports:
        counts.update(report.class_counts)
    for label in sorted(set(counts) | set(range(manifest.num_classes))):
        expected = manifest.class_counts[label] if 0 <= label < manifest.num_classes else 0
        if counts[label] != expected:
            fact = f"class {label}: expected {expected} records, found {counts[label]}"
            findings.add("class_counts", join(split, "manifest.json"), fact)


def _check_sources(findings: Findings, split: str, manifest: Manifest, reports: Sequence[ShardReport]) -> None:
    if not manifest.sources:
        return
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.source_counts)
    for source in manifest.sources:
        if counts[source.name] != source.num_kept:
            fact = f"expected {source.num_kept} records of it, found {counts[source.name]}"
            findings.add("source_records", join(split, "manifest.json"), f"source {source.name}: {fact}")


def check_names(split: str, manifest: Manifest, names: Sequence[str], *, at_work: bool = False) -> Findings:
    """Compares the names in a split's folder with those that its manifest needs.

    Args:
      split: name of its folder.
      manifest: of the split; of its shards, those that are missing are not told here.
      names: the paths of all files below the folder, and of folders (with a `/` at the end).
      at_work: whether a job holds the dataset's lock: a generation that no manifest names may be just being published,
        or removed.
    """
    findings = Findings()
    live = {shard.file for shard in manifest.shards}
    live_folders = {file.rpartition("/")[0] + "/" for file in live}
    for name in names:
        file = join(split, name)
        first = name.partition("/")[0]
        if first.startswith(BUILDING_PREFIX):
            if name == first + "/":  # a folder is reported once, without its contents
                add_unfinished(findings, file, at_work=at_work)
        elif name.rstrip("/").endswith(_UNFINISHED):
            add_unfinished(findings, file, at_work=at_work)
        elif first.startswith(GENERATION_PREFIX) and name not in live and name not in live_folders:
            if at_work:
                add_unfinished(findings, file, at_work=True)
            else:
                findings.add("unlisted", file, "the manifest does not name it")
    for source in sorted(manifest.quarantined):
        name = quarantine_file(source)
        if name not in names:
            findings.add("quarantine", join(split, name), "missing, and the manifest counts unreadable bytes")
    return findings


def check_splits(manifests: Mapping[str, Manifest], charset: Charset | None, chosen: Collection[str]) -> Findings:
    """Compares splits with each other: one charset, and no source file in two of them.

    Args:
      manifests: by the name of the split's folder.
      charset: of the dataset; None if it could not be read.
      chosen: splits to be compared, with each other and with the rest.
    """
    findings = Findings()
    names: dict[str, str] = {}
    digests: dict[tuple[int, int, str], tuple[str, str]] = {}
    for split, manifest in manifests.items():
        place = join(split, "manifest.json")
        if manifest.split_name != split:
            findings.add("manifest", place, f"it is of a split {manifest.split_name!r}")
        if charset is not None and manifest.charset_digest != charset.digest:
            fact = f"expected {charset.digest[:12]}, as in charset.json, found {manifest.charset_digest[:12]}"
            findings.add("charset", place, fact)
        if charset is not None and manifest.num_classes != len(charset):
            findings.add("charset", place, f"expected {len(charset)} classes, found {manifest.num_classes}")
        for source in manifest.sources:
            other = names.setdefault(source.name, split)
            if other != split and (other in chosen or split in chosen):
                findings.add("shared_source", place, f"source {source.name} is in split {other} as well")
                continue
            for part in source.ranges:
                owner = digests.setdefault((part.start, part.end, part.sha256), (split, source.name))
                is_shared = owner[0] != split and part.end > part.start and part.sha256 != ""
                if is_shared and (owner[0] in chosen or split in chosen):
                    fact = f"source {source.name} holds the same bytes as {owner[1]} in split {owner[0]}"
                    findings.add("shared_source", place, fact, part.start)
                    break
    return findings
