from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.manifests import example, of_images, source
from tfos_job import storage
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import charset as charsets
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import DatasetLayout, SplitLayout


def test_the_digest_is_that_of_shards_and_charset_alone() -> None:
    digest = example().digest
    assert example(created="later", generation=3).digest == digest
    assert example(charset_digest="dd").digest != digest
    assert example(shards=example().shards[::-1]).digest != digest
    changed = (dataclasses.replace(example().shards[0], sha256="9"), example().shards[1])
    assert example(shards=changed).digest != digest


def test_a_split_of_images_has_its_folder_for_sources() -> None:
    manifest = of_images()
    value = json.loads(json.dumps(manifest.to_json()))
    assert Manifest.from_json(value) == manifest
    assert (manifest.filtered, manifest.quarantined) == ({"cow": 1}, {"cat/bad.png": 7})
    with pytest.raises(BadDataError, match="its folder has 4 readable images of its classes, shards 3"):
        Manifest.from_json(json.loads(json.dumps(of_images(quarantined={}).to_json())))
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


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "gen-00000/../../x", ".."])
def test_no_name_in_a_manifest_leads_out_of_its_folder(name: str) -> None:
    """Shards are read, compared and left out by these names, and a manifest may be somebody else's."""
    shards = (dataclasses.replace(example().shards[0], file=name), example().shards[1])
    with pytest.raises(BadDataError, match="is not below the folder"):
        Manifest.from_json(json.loads(json.dumps(example(shards=shards).to_json())))
    with pytest.raises(BadDataError, match="is not below the folder"):
        Manifest.from_json(json.loads(json.dumps(example(sources=(source(name=name),)).to_json())))
    archived = source(name=f"a.zip/{name}", archive="a.zip")
    assert Manifest.from_json(json.loads(json.dumps(example(sources=(archived,)).to_json()))).sources == (archived,)


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
