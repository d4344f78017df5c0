from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tfos_job import storage
from tfos_job.conversion.generation import damage, next_generation, publish_generation
from tfos_job.conversion.sweep import sweep_split
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import charset as charsets
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import ImageFolder, Revision, Shard, Source, SourceRange
from tfos_job.formats.quarantine import BadRange, quarantine_file
from tfos_job.layout import DatasetLayout, SplitLayout
from tfos_job.verification.consistency import check_names


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


def build(split: SplitLayout, manifest: Manifest) -> None:
    """Publishes a generation of two shards of five bytes."""
    building = split.building("x")
    storage.make_dirs(building)
    for shard in manifest.shards:
        storage.write_bytes(f"{building}/{shard.file.rpartition('/')[2]}", b"12345")
    bad = [BadRange("sub/001.gnt", 10, 40, "undecodable")]
    publish_generation(split, manifest, building, bad)


def test_what_is_published_is_loaded_again(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path / "train"))
    build(split, example())
    loaded = manifests.load(split)
    assert loaded == example()
    assert loaded.num_records == 3
    assert manifests.shard_paths(split, loaded) == [f"{split.root}/gen-00000/part-0", f"{split.root}/gen-00000/part-1"]
    quarantined = storage.read_json(f"{split.quarantine_dir}/sub/001.gnt.json")
    assert quarantined["ranges"] == [{"start": 10, "end": 40, "reason": "undecodable"}]
    written = storage.read_json(split.manifest)
    assert written["filtered"] == {"reason": "not in charset", "num_records": 1, "characters": {"!": 1}}


def test_what_could_not_be_read_is_told_under_any_name(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path / "train"))
    odd = [f"a/{'n' * 240}.png", f"{'甲' * 80}/1.png", "a/1.png.json/2.png", "a/x.tmp/3.png", "/".join(["a" * 99] * 30)]
    names = ["a/1.png", "a/1.png.jsonl/2.png", "_a/.b.png", *odd]
    contents = of_images(num_files=4 + len(names), quarantined=dict.fromkeys(names, 10))
    build(split, contents)
    sweep_split(split, contents)
    paths = {name: quarantine_file(name) for name in names}
    assert {name: storage.read_json(f"{split.root}/{path}")["source"] for name, path in paths.items()} == {
        name: name for name in names
    }
    assert [name for name, path in paths.items() if path != f"_quarantine/{name}.json"] == odd
    assert check_names("train", contents, [shard.file for shard in contents.shards] + list(paths.values())).counts == {}


def test_the_digest_is_that_of_shards_and_charset_alone() -> None:
    digest = example().digest
    assert example(created="later", generation=3).digest == digest
    assert example(charset_digest="dd").digest != digest
    assert example(shards=example().shards[::-1]).digest != digest
    changed = (dataclasses.replace(example().shards[0], sha256="9"), example().shards[1])
    assert example(shards=changed).digest != digest


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


def test_a_split_of_images_has_its_folder_for_sources(tmp_path: Path) -> None:
    manifest = of_images()
    value = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(value) == manifest
    assert (manifest.filtered, manifest.quarantined) == ({"cow": 1}, {"cat/bad.png": 7})
    with pytest.raises(BadDataError, match="its folder has 4 readable images of its classes, shards 3"):
        Manifest.from_json(json.loads(json.dumps(of_images(quarantined={}).to_json())))
    split = SplitLayout(str(tmp_path))
    storage.make_dirs(split.building("x"))
    publish_generation(split, manifest, split.building("x"), [BadRange("cat/bad.png", 0, 7, "torn")])
    line = storage.read_json(f"{split.quarantine_dir}/cat/bad.png.json")
    assert line["ranges"] == [{"start": 0, "end": 7, "reason": "torn"}]
    assert "images" not in example().to_json()


def test_what_was_left_out_is_counted_by_character() -> None:
    """Not named record by record: a million of them would be a megabyte of text."""
    many = 1_000_000
    left_out = source(num_records=3 + many, filtered={"!": many - 1, "一": 1})
    manifest = example(sources=(left_out,))
    text = json.dumps(manifest.to_json())
    assert len(text) < 2000
    assert Manifest.from_json(json.loads(text)) == manifest


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"format_version": 2}, "format_version 2, expected 3"),
        ({"num_records": 4}, "num_records is 4, its shards give 3"),
        ({"records_per_class": [3, 1]}, "classes have 4 records, shards 3"),
        ({"shards": [{"file": "part"}]}, "'sources' is missing"),
        ({"digest": "0"}, "digest is 0"),
        ({"sources": [dataclasses.asdict(source(filtered={}))]}, "sources have 4 records of its classes, shards 3"),
        ({"sources": [dataclasses.asdict(source(size_bytes=1001))]}, r"the ranges of sub/001\.gnt are not its 1001"),
    ],
)
def test_a_changed_manifest_is_bad_data(change: dict[str, Any], fact: str) -> None:
    with pytest.raises(BadDataError, match=fact):
        Manifest.from_json(json.loads(json.dumps(example().to_json())) | change)


def test_an_absent_or_torn_manifest_says_what_to_do(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path))
    with pytest.raises(MissingInputError, match="tfos-job convert"):
        manifests.load(split)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadDataError, match="--overwrite"):
        manifests.load(split)
    dataset = DatasetLayout(str(tmp_path))
    with pytest.raises(MissingInputError, match="tfos-job convert"):
        manifests.load_charset(dataset)
    storage.write_json(dataset.charset, charsets.level1(5).to_json())
    assert manifests.load_charset(dataset) == charsets.level1(5)


def test_sweeping_leaves_exactly_what_is_live(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path))
    build(split, example(0))
    build(split, example(1, sources=(source(quarantined_bytes=0),)))
    storage.write_bytes(f"{split.root}/gen-00001/part-replaced", b"")
    storage.make_dirs(split.building("killed"))
    storage.write_bytes(f"{split.building('killed')}/part", b"")
    storage.write_bytes(f"{split.root}/_manifest.json.0123.tmp", b"")
    storage.write_bytes(f"{split.root}/notes.txt", b"somebody's own")
    sweep_split(split, manifests.load(split))
    left = sorted(entry.name for entry in tmp_path.iterdir())
    assert left == ["gen-00001", "manifest.json", "notes.txt"]
    assert next_generation(split, manifests.load(split)) == 2
    assert damage(split, manifests.load(split)) == []


def test_damage_is_named_by_shard(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path))
    build(split, example())
    storage.write_bytes(f"{split.root}/gen-00000/part-0", b"123")
    storage.remove(f"{split.root}/gen-00000/part-1")
    assert damage(split, example()) == ["gen-00000/part-0 has 3 bytes, not 5", "gen-00000/part-1 is missing"]
    storage.remove(f"{split.root}/gen-00000")
    assert next_generation(split, example()) == 1


def test_a_generation_leaves_the_quarantine_of_others_alone(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path))
    build(split, example(0))
    storage.make_dirs(split.building("y"))
    second = example(1, sources=(source(generation=0),), shards=example(0).shards)
    publish_generation(split, second, split.building("y"), ())
    assert storage.read_json(f"{split.quarantine_dir}/sub/001.gnt.json")["generation"] == 0
