"""Copies through storage.py; what is remote about them is tested on a live HDFS (tests/hadoop/test_staging.py)."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tfos_job import storage
from tfos_job.cluster.topology import Copy
from tfos_job.data import staging
from tfos_job.errors import BadDataError, MissingInputError, ResourceError


@pytest.fixture
def copies(tmp_path: Path) -> list[Copy]:
    found = []
    for number in range(3):
        content = bytes([number]) * (5 << 20) + b"end"  # more than one piece
        source = tmp_path / f"source-{number}"
        source.write_bytes(content)
        target = f"train/gen-00000/part-{number}"
        found.append(Copy(str(source), target, len(content), hashlib.sha256(content).hexdigest()))
    return found


def test_copies_are_whole_and_lie_where_they_are_to(copies: list[Copy], tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    staged = staging.stage([*copies, copies[0]], str(folder))
    assert staged.num_files == 3
    for copy in copies:
        assert (folder / copy.target).read_bytes() == Path(copy.source).read_bytes()
    assert len(list(folder.rglob("*.*"))) == 0  # nothing unfinished


@pytest.mark.parametrize(("change", "words"), [("bit", "has SHA-256"), ("length", "bytes, its manifest says")])
def test_a_file_that_is_another_one_is_named_and_not_kept(
    copies: list[Copy], tmp_path: Path, change: str, words: str
) -> None:
    source = Path(copies[1].source)
    content = bytearray(source.read_bytes())
    content[7] ^= 1
    source.write_bytes(content if change == "bit" else content[:-1])
    with pytest.raises(BadDataError, match=words) as caught:
        staging.stage(copies, str(tmp_path))
    assert caught.value.place == str(source)
    assert (tmp_path / copies[0].target).exists()
    assert not (tmp_path / copies[1].target).exists()


def test_a_file_that_is_not_there(copies: list[Copy], tmp_path: Path) -> None:
    Path(copies[2].source).unlink()
    with pytest.raises(MissingInputError, match="source-2"):
        staging.stage(copies, str(tmp_path))
    assert not list(tmp_path.rglob("*.tmp"))


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_said_before_anything_is_copied(
    copies: list[Copy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 20, 90 << 20, 10 << 20))
    with pytest.raises(ResourceError, match=r"15\.0 MiB of shards are to be copied, and 10\.0 MiB are free") as caught:
        staging.stage(copies, str(tmp_path))
    assert caught.value.place == str(tmp_path)
    assert not (tmp_path / "train").exists()


def test_a_stop_is_heard_between_files(copies: list[Copy], tmp_path: Path) -> None:
    asked = iter([False, True, True])
    staging.stage(copies, str(tmp_path), lambda: next(asked))
    assert [(tmp_path / copy.target).exists() for copy in copies] == [True, False, False]


def test_a_local_file_is_used_where_it_lies(copies: list[Copy]) -> None:
    with staging.local_copy(f"file://{copies[0].source}", 1, "anything") as path:
        assert path == copies[0].source


def test_a_download_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"older")
    digest = storage.download(str(tmp_path / "source"), str(tmp_path / "target"))
    assert digest == hashlib.sha256(b"new").hexdigest()
    assert (tmp_path / "target").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
