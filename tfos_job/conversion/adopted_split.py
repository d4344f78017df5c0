"""A split of adopted shards: what is in all of them together, and its manifest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from tfos_job.config import IMAGES
from tfos_job.conversion.adopted_shard import AdoptedShard
from tfos_job.conversion.split_manifest import first_manifest
from tfos_job.errors import SettingsError
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Adoption, Shard
from tfos_job.formats.picture_head import is_grey, needs_three_channels
from tfos_job.formats.slim_labels import FoundLabels
from tfos_job.storage import Entry


def found_labels(shards: Sequence[AdoptedShard]) -> FoundLabels:
    """The labels of all shards, and the text of each that has but one."""
    counts: Counter[int] = Counter()
    texts: dict[int, str] = {}
    for shard in shards:
        for label, count, text in zip(
            shard.labels.tolist(), shard.counts.tolist(), shard.texts.split("\n"), strict=False
        ):
            counts[label] += count
            if texts.setdefault(label, text) != text:
                texts[label] = ""
    return FoundLabels(dict(sorted(counts.items())), {label: text for label, text in texts.items() if text})


def shard_with(shards: Sequence[AdoptedShard], labels: Collection[int]) -> int:
    """The number of the first shard that has a record with one of these labels."""
    return next(number for number, shard in enumerate(shards) if not set(labels).isdisjoint(shard.labels.tolist()))


def channels_of(modes: Mapping[str, int], requested: int | None, others: int | None) -> int:
    """The channels of a split's images.

    Args:
      modes: pictures by mode (`picture_head.PictureHead`).
      requested: `--num_channels`.
      others: those of the dataset's other splits; None if it has none.

    Raises:
      SettingsError: one is asked for, and training cannot make that of some of the pictures.
    """
    odd = {mode: count for mode, count in sorted(modes.items()) if needs_three_channels(mode)}
    found = requested or others or (1 if all(map(is_grey, modes)) else 3)
    if found == 1 and odd:
        told = ", ".join(f"{count} of mode {mode}" for mode, count in odd.items())
        raise SettingsError(
            f"1, and training can read pictures with transparency or in CMYK in 3 alone: {told}",
            place="--num_channels",
            next_step="Give 3",
        )
    return found


def adopted_manifest(
    *,
    split_name: str,
    generation: int,
    charset: Charset,
    files: Sequence[Entry],
    shards: Sequence[AdoptedShard],
    num_channels: int,
    folder: str,
    labels: str,
    labels_sha256: str,
    settings: Mapping[str, str | None],
) -> Manifest:
    """The manifest of a split whose shards are `files`, with `shards` in them; else as `Manifest` and `Adoption`."""
    counts = found_labels(shards).counts
    return first_manifest(
        split_name=split_name,
        generation=generation,
        image_format="keep",
        charset=charset,
        shards=[
            Shard(
                file=file.name,
                size_bytes=shard.size_bytes,
                sha256=shard.sha256,
                num_records=shard.num_records,
                sources=(),
            )
            for file, shard in zip(files, shards, strict=True)
        ],
        class_counts=counts,
        settings=settings,
        num_channels=num_channels,
        dataset_name=IMAGES,
        adoption=Adoption(
            folder=folder,
            labels=labels,
            labels_sha256=labels_sha256,
            mtimes_s=tuple(file.mtime_s for file in files),
        ),
    )
