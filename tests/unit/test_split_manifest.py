from __future__ import annotations

import dataclasses

import pytest

from tests.unit.manifests import example, source
from tfos_job.conversion.compaction import num_generations, plan_compaction, require_same_records
from tfos_job.conversion.rewrite import Stretch
from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.conversion.source_changes import Changes
from tfos_job.conversion.split_manifest import compacted_manifest, updated_manifest
from tfos_job.errors import BadDataError
from tfos_job.formats.manifest import Manifest, check_counts
from tfos_job.formats.manifest_parts import Shard, SourceRange
from tfos_job.layout import SplitLayout


def shard(file: str, num_records: int) -> Shard:
    return Shard(file=file, size_bytes=10 * num_records, sha256=file, num_records=num_records, sources=())


def updated() -> Manifest:
    """A split of 1, 2, 3 and 4.gnt: 1 stays, 2 was touched, 3 has changed, 4 is pruned and 5 has come."""
    ranges = (SourceRange(start=0, end=1000, sha256="aa"),)
    one_of_each = {"num_records": 1, "filtered": {}, "ranges": ranges}
    live = example(
        shards=(shard("gen-00000/part-0", 2), shard("gen-00000/part-1", 2)),
        sources=tuple(source(name=f"{number}.gnt", **one_of_each) for number in range(1, 5)),
        class_counts=(3, 1),
    )
    check_counts(live)
    changes = Changes(
        added=(SourceFile("5.gnt", "/5.gnt", 1000, 5.0),),
        changed=(SourceFile("3.gnt", "/3.gnt", 1000, 3.0),),
        touched=(SourceFile("2.gnt", "/2.gnt", 1000, 2.0),),
        gone=("4.gnt",),
        renamed=(),
    )
    return updated_manifest(
        live,
        generation=1,
        gnt_dir="/new",
        changes=changes,
        pruned=changes.gone,
        added=[source(name=name, generation=1, **one_of_each) for name in ("5.gnt", "3.gnt")],
        added_counts={1: 2},
        dropped_counts={0: 1, 1: 1},
        shards=[shard("gen-00000/part-0", 2), shard("gen-00001/part-0", 2)],
    )


def test_an_update_keeps_what_has_not_changed_and_says_what_has() -> None:
    manifest = updated()
    check_counts(manifest)
    assert [(one.name, one.generation, one.mtime_s) for one in manifest.sources] == [
        ("1.gnt", 0, 1.25),
        ("2.gnt", 0, 2.0),
        ("3.gnt", 1, 1.25),
        ("5.gnt", 1, 1.25),
    ]
    assert manifest.class_counts == (2, 2)
    assert manifest.settings == {"on_bad_record": "quarantine", "gnt_dir": "/new"}
    last = manifest.history[-1]
    assert (last.num_records, last.num_added, last.replaced, last.pruned) == (4, 1, ("3.gnt",), ("4.gnt",))


def test_compaction_takes_every_record_once_and_proves_it() -> None:
    live = updated()
    split = SplitLayout("/train")
    assert num_generations(live) == 2
    expected = [Stretch("/train/gen-00000/part-0", 0, 2), Stretch("/train/gen-00001/part-0", 0, 2)]
    assert [stretch for group in plan_compaction(live, split, 1 << 20) for stretch in group] == expected
    made = compacted_manifest(live, generation=2, gnt_dir="/new", shards=[shard("gen-00002/part-0", 4)])
    require_same_records(split, live, made, {0: 2, 1: 2})
    assert (num_generations(made), made.history[-1].compacted) == (1, True)
    with pytest.raises(BadDataError, match="or other classes"):
        require_same_records(split, live, made, {0: 3, 1: 1})
    fewer = dataclasses.replace(made, shards=(shard("gen-00002/part-0", 3),))
    with pytest.raises(BadDataError, match="its shards hold 3 records, its manifest says 4"):
        require_same_records(split, live, fewer, {0: 2, 1: 2})
