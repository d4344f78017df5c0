"""Manifests for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Adoption, ImageFolder, Revision, Shard, Source, SourceRange


def source(**changes: Any) -> Source:
    values: dict[str, Any] = {
        "name": "sub/001.gnt",
        "size_bytes": 1000,
        "mtime_s": 1.25,
        "num_records": 4,
        "filtered": {"!": 1},
        "quarantined_bytes": 30,
        "generation": 0,
        "ranges": (SourceRange(start=0, end=400, sha256="aa"), SourceRange(start=400, end=1000, sha256="bb")),
    }
    return Source(**values | changes)


def example(generation: int = 0, **changes: Any) -> Manifest:
    shards = tuple(
        Shard(
            file=f"gen-{generation:05d}/part-{index}",
            size_bytes=5,
            sha256=f"{index}",
            num_records=2 - index,
            sources=("sub/001.gnt",),
        )
        for index in range(2)
    )
    values: dict[str, Any] = {
        "split_name": "train",
        "generation": generation,
        "image_format": "raw",
        "charset_digest": "cc",
        "shards": shards,
        "class_counts": (3, 0),
        "sources": (source(generation=generation),),
        "history": (
            Revision(
                generation=generation,
                created="2026-01-01T00:00:00+00:00",
                num_records=3,
                num_added=1,
                replaced=(),
                pruned=("gone.gnt",),
                compacted=False,
            ),
        ),
        "settings": {"on_bad_record": "quarantine"},
        "created": "2026-01-01T00:00:00+00:00",
        "package_version": "0.1.0",
    }
    return Manifest(**values | changes)


def of_images(**changes: Any) -> Manifest:
    """Three records of five files: one has a class that is not in the charset, one cannot be read."""
    folder = ImageFolder(
        sha256="dd",
        num_files=5,
        size_bytes=100,
        files_per_class={"cat": 4, "cow": 1},
        num_unlisted=2,
        num_other_files=0,
        filtered={"cow": 1},
        quarantined={"cat/bad.png": 7},
    )
    return example(sources=(), num_channels=3, dataset_name="images", images=dataclasses.replace(folder, **changes))


def adopted(charset_digest: str = "cc", **changes: Any) -> Manifest:
    """Two shards of another program, with three records."""
    adoption = Adoption(folder="", labels="", labels_sha256="", mtimes_s=(1.5, 2.5))
    shards = tuple(
        Shard(file=f"train-{index}", size_bytes=5, sha256=f"{index}", num_records=2 - index, sources=())
        for index in range(2)
    )
    return example(
        sources=(),
        shards=shards,
        image_format="keep",
        num_channels=3,
        dataset_name="images",
        charset_digest=charset_digest,
        adoption=dataclasses.replace(adoption, **changes),
    )
