"""The shards of a split by their names; where they may lie; what is read of them; what never happens to them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit import slim_records
from tests.unit.manifests import adopted, example
from tfos_job import storage
from tfos_job.commands import train, verify
from tfos_job.commands.registry import SUBMISSIONS
from tfos_job.config import EvaluateConfig, TrainConfig, VerifyConfig
from tfos_job.conversion import adoption
from tfos_job.conversion.adopted_shard import AdoptedShard, AdoptTask, place_of, read_shard
from tfos_job.conversion.adopted_split import channels_of, found_labels, shard_with
from tfos_job.conversion.adoption_place import require_apart, require_own_charset, require_own_folder
from tfos_job.conversion.locked_split import locked_split
from tfos_job.conversion.sweep import sweep_split
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError, StorageError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.adopted_shards import load_unchanged
from tfos_job.formats.charset import Charset
from tfos_job.formats.excerpt import read_positions
from tfos_job.formats.manifest import Manifest
from tfos_job.input.decoder_process import training_view
from tfos_job.layout import DatasetLayout, SplitLayout
from tfos_job.staging.stager import copies_of
from tfos_job.storage import Entry
from tfos_job.verification import adopted_picture
from tfos_job.verification.findings import Findings
from tfos_job.verification.inventory import load_manifests


def entries(*names: str) -> list[Entry]:
    return [Entry(name, f"/t/{name}", 10, 1.0, is_dir=name.endswith("/")) for name in sorted(names)]


def shards(split: str, *names: str) -> list[str]:
    return [entry.name for entry in adoption.shards_of(entries(*names), split, "/t")]


def test_shards_are_found_by_every_form_of_name_in_order() -> None:
    imagenet = [f"train-{i:05d}-of-00011" for i in range(11)]
    others = ["validation-00000-of-00001", "labels.txt", "train", "pretrain-00000-of-00001", "_train-00000-of-00001"]
    assert shards("train", *reversed(imagenet), *others) == imagenet
    assert shards("validation", *imagenet, *others) == ["validation-00000-of-00001"]
    flowers = ["flowers_train_00000-of-00002.tfrecord", "flowers_train_00001-of-00002.tfrecord"]
    assert shards("train", *flowers, "flowers_validation_00000-of-00002.tfrecord") == flowers
    assert shards("test", "mnist_test.tfrecord", "mnist_train.tfrecord") == ["mnist_test.tfrecord"]
    tfds = ["tf_flowers-train.tfrecord-00000-of-00002", "tf_flowers-train.tfrecord-00001-of-00002"]
    assert shards("train", *tfds) == tfds
    assert shards("train", "train.record-0-of-1") == ["train.record-0-of-1"]


@pytest.mark.parametrize(
    ("names", "kind", "words"),
    [
        ([], MissingInputError, "no shards of a split 'train'; it is empty"),
        (["a.jpg", "train/"], MissingInputError, "it holds a.jpg, train/"),
        (["test-00000-of-00001", "x_dev.tfrecord"], MissingInputError, "it has shards of test, x_dev"),
        (["train-00000-of-00003", "train-00002-of-00003"], MissingInputError, "1 of its 3 .* train-00001-of-00003"),
        (
            ["a_train_0000-of-0002.tfrecord"],
            MissingInputError,
            r"1 of its 2 shards are missing: a_train_0001-of-0002\.",
        ),
        (["train-00000-of-00001", "train-00000-of-00002"], SettingsError, "2 sets of shards, which say of 1, 2"),
        (["a_train.tfrecord", "b_train.tfrecord"], SettingsError, "2 datasets a_train, b_train"),
        (["train-00000-of-00001", "train_00000-of-00001.tfrecord"], SettingsError, "one shard under two names"),
        (["train-00000-of-00001", "train-00001-of-00001"], MissingInputError, "shard 1 of 1 cannot be"),
        (["train-00000-of-00001/"], MissingInputError, "no shards of a split"),
    ],
)
def test_sets_of_shards_that_are_not_whole_are_refused(names: list[str], kind: type[JobError], words: str) -> None:
    with pytest.raises(kind, match=words):
        shards("train", *names)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-00000-of-00001")
    with pytest.raises(BadDataError, match="a FIFO, not a file"):
        adoption.shards_of(storage.list_dir(str(tmp_path)), "train", str(tmp_path))


def test_adopted_shards_lie_apart_from_what_conversion_owns(tmp_path: Path) -> None:
    dataset = DatasetLayout(str(tmp_path / "data"))
    (tmp_path / "data" / "train" / "gen-00000").mkdir(parents=True)
    (tmp_path / "data" / "train" / "manifest.json").write_text("{}")
    (tmp_path / "link").symlink_to("data/train/gen-00000")
    require_apart(dataset.root, dataset)
    require_apart(str(tmp_path / "data2"), dataset)
    for folder in ("data/train", "data/train/gen-00000", "link"):
        with pytest.raises(SettingsError, match="it is within --dataset_dir"):
            require_apart(str(tmp_path / folder), dataset)
    with pytest.raises(SettingsError, match=f"Train on it as it is: --dataset_dir {dataset.root}"):
        require_apart(str(tmp_path / "data" / "train" / "gen-00000"), DatasetLayout(str(tmp_path / "other")))
    require_own_folder(dataset.split("train"))
    (tmp_path / "data" / "validation" / "n01440764").mkdir(parents=True)
    with pytest.raises(SettingsError, match="other files are, such as n01440764"):
        require_own_folder(dataset.split("validation"))
    for name in ("gen-2", "_old.tmp", "_quarantine"):  # another program's, which a conversion would take for its own
        (tmp_path / "data" / name / name).mkdir(parents=True)
        with pytest.raises(SettingsError, match=f"other files are, such as {name}"):
            require_own_folder(dataset.split(name))
    (tmp_path / "data" / "killed" / "_building-1").mkdir(parents=True)
    (tmp_path / "data" / "killed" / "_manifest.json.1.tmp").touch()
    require_own_folder(dataset.split("killed"))


# --- what is in them --------------------------------------------------------------------------------------------------


def read(path: Path) -> AdoptedShard:
    return read_shard(AdoptTask(str(path), path.stat().st_size), training_view)


def test_a_shard_is_counted_and_hashed_where_it_is(tmp_path: Path) -> None:
    grey = {"image/encoded": slim_records.picture(7, "PNG", "L"), "image/format": b"png"}
    records = [slim_records.of_imagenet(n, 1 + n % 2, f"name {n % 2}") for n in range(5)]
    one = slim_records.write(tmp_path / "a", [*records, slim_records.of_flowers(7, 9, **grey)])
    two = slim_records.write(tmp_path / "b", [slim_records.of_imagenet(9, 2, "another")])
    found = [read(one), read(two)]
    assert [shard.num_records for shard in found] == [6, 1]
    assert found[0].modes == {"RGB": 5, "L": 1}
    labels = found_labels(found)
    assert labels.counts == {1: 3, 2: 3, 9: 1}
    assert labels.texts == {1: "name 0"}  # of 2 there are two, of 9 none
    assert shard_with(found, [9]) == 0
    assert place_of(str(one), [9]).startswith(f"{one}, record 6, byte ")
    assert place_of(str(one), [2]).endswith(" (n00000002_1.JPEG)")
    empty = slim_records.write(tmp_path / "c", [])
    assert read(empty).num_records == 0
    assert found_labels([read(empty)]).counts == {}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-3], r"/s, record 3, byte \d+: truncated: expected \d+ bytes, found \d+"),
        (lambda data: data[:40] + b"X" + data[41:], r"/s, record 1, byte 0: checksum of data does not fit"),
        (lambda data: b"\x1f\x8b" + data, r"record 1, byte 0: checksum of length .* with gzip compression"),
        (lambda data: b"version https://git-lfs", r"record 1, byte 0: checksum of length"),
    ],
)
def test_damage_is_told_with_its_record_and_byte(tmp_path: Path, damage: Any, words: str) -> None:
    path = slim_records.write(tmp_path / "s", [slim_records.of_flowers(n, 0) for n in range(3)])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadDataError, match=words) as caught:
        read(path)
    assert "nothing was adopted" in caught.value.next_step


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image/class/label": None}, "not a record of TF-Slim's: no feature image/class/label"),
        ({"image/encoded": slim_records.picture(1)[:60]}, "its picture x.jpg cannot be read: "),
        ({"image/encoded": b"\xff\xd8\xff" + bytes(100)}, "its picture x.jpg cannot be read: "),
    ],
)
def test_a_record_that_training_cannot_read_ends_it(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    bad = slim_records.of_flowers(1, 0, **{"image/filename": b"x.jpg"}, **changes)
    path = slim_records.write(tmp_path / "s", [slim_records.of_flowers(0, 0), bad])
    with pytest.raises(BadDataError, match=rf"/s, record 2, byte \d+: {words}"):
        read(path)


def test_a_shard_that_grows_is_not_adopted(tmp_path: Path) -> None:
    path = slim_records.write(tmp_path / "s", [slim_records.of_flowers(0, 0)])
    with pytest.raises(StorageError, match="changed while it was read"):
        read_shard(AdoptTask(str(path), path.stat().st_size - 1), training_view)


def test_channels_follow_from_the_pictures_unless_they_are_given() -> None:
    assert channels_of({"L": 5, "1": 1}, None, None) == 1
    assert channels_of({"L": 5, "RGB": 1}, None, None) == 3
    assert channels_of({"L": 5}, 3, None) == 3
    assert channels_of({"L": 5}, None, 3) == 3
    assert channels_of({"RGB": 5}, 1, None) == 1
    assert channels_of({"CMYK": 5}, None, None) == 3
    with pytest.raises(SettingsError, match="in 3 alone: 2 of mode RGBA\\+alpha"):
        channels_of({"RGB": 1, "RGBA+alpha": 2}, 1, None)


def test_verify_sees_a_picture_as_training_does_and_says_where_others_see_another(tmp_path: Path) -> None:
    plain = adopted_picture.prove(slim_records.picture(1), "jpeg", training_view)
    assert (plain.height, plain.width, len(plain.pixels), plain.oddity) == (18, 25, 18 * 25 * 3, "")
    turned = adopted_picture.prove(slim_records.turned(1), "jpeg", training_view)
    assert (turned.height, turned.width) == (18, 25)
    assert turned.oddity.startswith("training reads it, unlike other programs: a jpeg of a kind that conversion makes")
    with pytest.raises(ValueError, match=r"."):
        adopted_picture.prove(slim_records.picture(1)[:70], "jpeg", training_view)
    # Adopted all the same: TF-Slim trains on it as well.
    record = slim_records.of_flowers(0, 0, **{"image/encoded": slim_records.turned(1)})
    assert read(slim_records.write(tmp_path / "s", [record])).num_records == 1


# --- its manifest, and what is safe from whom -------------------------------------------------------------------------


def test_an_adopted_split_has_a_format_that_earlier_versions_refuse() -> None:
    manifest = adopted()
    value = json.loads(json.dumps(manifest.to_json()))
    assert (value["format_version"], example().to_json()["format_version"]) == (4, 3)
    assert Manifest.from_json(value) == manifest
    assert "adoption" not in example().to_json()
    with pytest.raises(BadDataError, match="format_version is 3, its shards give 4"):
        Manifest.from_json(value | {"format_version": 3})
    with pytest.raises(BadDataError, match="1 times of 2 adopted shards"):
        Manifest.from_json(value | {"adoption": value["adoption"] | {"mtimes_s": [1.0]}})


def test_shards_are_where_they_were_found() -> None:
    split = DatasetLayout("hdfs://nn/data").split("train")
    assert manifests.shard_paths(split, adopted()) == ["hdfs://nn/data/train-0", "hdfs://nn/data/train-1"]
    elsewhere = adopted(folder="/disk/t")
    assert manifests.shard_paths(split, elsewhere) == ["/disk/t/train-0", "/disk/t/train-1"]
    # A shard is copied if it is remote, wherever the manifest is.
    assert copies_of(split, elsewhere, "train") == ()
    (copy, _) = copies_of(SplitLayout("/disk/data/train"), adopted(folder="hdfs://nn/t"), "train")
    assert (copy.source, copy.target) == ("hdfs://nn/t/train-0", "train/train-0")


def test_a_shard_that_was_written_again_is_noticed(tmp_path: Path) -> None:
    split = DatasetLayout(str(tmp_path)).split("train")
    for name in ("train-0", "train-1"):
        (tmp_path / name).write_bytes(b"12345")
        os.utime(tmp_path / name, (1.5, 1.5))
    (tmp_path / "train").mkdir()
    manifest = adopted(mtimes_s=(1.5, 1.5))
    storage.write_json(split.manifest, manifest.to_json())
    assert load_unchanged(split) == manifest
    os.utime(tmp_path / "train-1", (2.5, 2.5))
    with pytest.raises(BadDataError, match=r"train-1 was written again\. Run `tfos-job convert --tfrecord_dir"):
        load_unchanged(split)
    (tmp_path / "train-1").unlink()
    (tmp_path / "train-0").write_bytes(b"1")
    with pytest.raises(BadDataError, match="train-0 has 1 bytes, had 5, train-1 is missing"):
        load_unchanged(split)


def test_a_job_asks_for_the_tokens_of_adopted_shards_elsewhere(tmp_path: Path) -> None:
    for name, folder in (("train", "hdfs://far/t"), ("validation", ""), ("test", "hdfs://third/t")):
        (tmp_path / name).mkdir()
        storage.write_json(str(tmp_path / name / "manifest.json"), adopted(folder=folder).to_json())
    data = {"dataset_dir": str(tmp_path), "train_dir": "r"}
    far, third = ("tfrecord_dir", "hdfs://far/t"), ("tfrecord_dir", "hdfs://third/t")
    assert train.other_dirs(TrainConfig(**data, validation_split_name="validation")) == [far]
    evaluated = EvaluateConfig(**data, dataset_split_name="test")
    assert SUBMISSIONS["evaluate"].other_dirs(evaluated) == [third]
    assert verify.other_dirs(VerifyConfig(dataset_dir=str(tmp_path))) == [far, third]
    assert verify.size_of_work(VerifyConfig(dataset_dir=str(tmp_path))).of_pictures


def test_a_record_of_slims_names_the_file_that_its_picture_was(tmp_path: Path) -> None:
    records = [slim_records.of_imagenet(5, 1, "x"), slim_records.of_flowers(1, 0)]
    found = read_positions(str(slim_records.write(tmp_path / "s", records)), [0, 1])
    assert [found[position].source() for position in (0, 1)] == [("n00000001_5.JPEG", None), ("", None)]


def lock(folder: Path, split: str = "train", **changes: Any) -> Any:
    return locked_split(str(folder), split, owner="test", requested=None, **{"overwrite": False, **changes})


def test_no_conversion_writes_over_adopted_shards_or_removes_one(tmp_path: Path) -> None:
    """Whatever the flags: also what bears the names that conversion uses for its own files."""
    foreign = ["train-0", "train-1", "gen-00000/x.tfrecord", "_building-1/x", "a.tmp", "_manifest.json.1.tmp"]
    for name in foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    charset = Charset(("a", "b"))
    storage.write_json(str(tmp_path / "charset.json"), charset.to_json())
    manifest = adopted(charset_digest=charset.digest)
    (tmp_path / "train").mkdir()
    storage.write_json(str(tmp_path / "train" / "manifest.json"), manifest.to_json())
    for changes in ({}, {"overwrite": True}, {"of_gnt": True}, {"num_channels": 3, "overwrite": True}):
        with pytest.raises(SettingsError), lock(tmp_path, **changes):
            pass
    with pytest.raises(SettingsError, match="were adopted"), lock(tmp_path, num_channels=3):
        pass
    with (
        pytest.raises(SettingsError, match="train: its shards were adopted"),
        lock(tmp_path, "test", num_channels=3, of_gnt=True),
    ):
        pass
    with lock(tmp_path, num_channels=None, adopts=True) as target:
        assert target.live == manifest
        sweep_split(target.layout, target.live)
        sweep_split(target.layout, None)
    assert all((tmp_path / name).exists() for name in foreign)


def test_even_shards_in_a_swept_folder_would_stay(tmp_path: Path) -> None:
    split = SplitLayout(str(tmp_path / "train"))
    (tmp_path / "train" / "gen-00007").mkdir(parents=True)
    for name in ("train-0", "train-1"):
        (tmp_path / "train" / "gen-00007" / name).write_bytes(b"12345")
    sweep_split(split, adopted(folder=f"{split.root}/gen-00007"))
    assert len(list((tmp_path / "train" / "gen-00007").iterdir())) == 2


def test_verify_does_not_look_into_other_folders_beside_adopted_shards(tmp_path: Path) -> None:
    """There may be a million files, of which the shards were made."""
    for name in ("raw-data/train/n1", "half/gen-00000"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "raw-data" / "train" / "gen-1.jpg").write_bytes(b"")
    (tmp_path / "train").mkdir()
    storage.write_json(str(tmp_path / "train" / "manifest.json"), adopted().to_json())
    findings, listed = Findings(), []
    list_dir = storage.list_dir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "list_dir", lambda path: listed.append(path) or list_dir(path))
        assert list(load_manifests(DatasetLayout(str(tmp_path)), "all", findings)) == ["train"]
    assert listed == [str(tmp_path), str(tmp_path / "half"), str(tmp_path / "raw-data")]
    assert findings.counts == {"missing_manifest": 1}


def test_a_charset_json_that_is_none_of_ours_is_not_removed(tmp_path: Path) -> None:
    dataset = DatasetLayout(str(tmp_path))
    require_own_charset(dataset)
    for text in ("{", '{"some": "other program"}'):
        (tmp_path / "charset.json").write_text(text)
        with pytest.raises(SettingsError, match=r"charset\.json: the dataset's classes would be here"):
            require_own_charset(dataset)
    storage.write_json(dataset.charset, Charset(("a", "b")).to_json())
    require_own_charset(dataset)
