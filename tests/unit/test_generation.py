from __future__ import annotations

from pathlib import Path

from tests.unit.manifests import example, of_images, source
from tfos_job import storage
from tfos_job.conversion.generation import damage, next_generation, publish_generation
from tfos_job.conversion.sweep import sweep_split
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.quarantine import BadRange, quarantine_file
from tfos_job.layout import SplitLayout
from tfos_job.verification.consistency import check_names


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


def test_unreadable_images_are_listed(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path))
    storage.make_dirs(split.building("x"))
    publish_generation(split, of_images(), split.building("x"), [BadRange("cat/bad.png", 0, 7, "torn")])
    line = storage.read_json(f"{split.quarantine_dir}/cat/bad.png.json")
    assert line["ranges"] == [{"start": 0, "end": 7, "reason": "torn"}]


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
