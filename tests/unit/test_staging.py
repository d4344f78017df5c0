"""Copies through storage.py; what is remote about them is tested on a live HDFS (tests/hadoop/test_staging.py)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.unit.waits import wait_until
from tfos_job import storage
from tfos_job.errors import BadDataError, MissingInputError, ResourceError
from tfos_job.staging import copies as copies_module
from tfos_job.staging import stager
from tfos_job.staging.cache_plan import DONE_DIR, GIVEN_DIR, CachePlan, Copy, shard_order
from tfos_job.staging.stager import Staged, Stager


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


def cache_plan(copies: Sequence[Copy], **changes: Any) -> CachePlan:
    values: dict[str, Any] = {
        "shards": tuple(copies),
        "pinned": (),
        "seed": 1,
        "first_epoch": 2,
        "once": False,
        "window": 1,
        "cache_bytes": None,
    }
    return CachePlan(**values | changes)


class Reader:
    """Reads what a stager gives, as the graph would: a turn is there, is read, and is said to be done."""

    def __init__(self, given: CachePlan, folder: Path, cache_dir: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.turns = given.positions()
        self.folder = folder
        self.cache_dir = cache_dir
        self.passes: list[Staged] = []
        self.error: Exception | None = None
        self.most_bytes = 0
        self._stop = threading.Event()
        self._stager = Stager(given, str(folder), str(cache_dir), self.passes.append)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._stager.run(self._stop.is_set)
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.error = error

    def read(self, count: int) -> list[tuple[int, int, bytes]]:
        found = []
        for epoch, index in itertools.islice(self.turns, count):
            path = self.folder / GIVEN_DIR / f"{epoch}-{index}"
            wait_until(lambda path=path: path.exists() or self.error)
            assert self.error is None
            self.most_bytes = max(self.most_bytes, size_of(self.cache_dir))
            found.append((epoch, index, path.read_bytes()[:1]))
            (self.folder / DONE_DIR / f"{epoch}-{index}").touch()
        return found

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def size_of(folder: Path) -> int:
    """Of what is in it, while somebody may be taking it away."""
    found = 0
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += entry.stat().st_size
    return found


def test_every_shard_comes_in_its_turn_in_every_epoch(copies: list[Copy], tmp_path: Path) -> None:
    with Reader(cache_plan(copies), tmp_path / "node", tmp_path / "node" / "cache") as reader:
        found = reader.read(9)
    assert [(epoch, index) for epoch, index, _ in found] == [
        (epoch, index) for epoch in (2, 3, 4) for index in shard_order(3, 1, epoch)
    ]
    assert all(first == bytes([index]) for _, index, first in found)
    (staged,) = reader.passes
    assert (staged.num_files, staged.size_bytes, staged.num_left) == (3, sum(copy.size_bytes for copy in copies), 0)


def test_a_cache_that_is_smaller_than_the_data_makes_room(copies: list[Copy], tmp_path: Path) -> None:
    limit = 2 * copies[0].size_bytes
    with Reader(cache_plan(copies, cache_bytes=limit), tmp_path / "node", tmp_path / "node" / "cache") as reader:
        found = reader.read(30)
    assert Counter(index for _, index, _ in found) == {0: 10, 1: 10, 2: 10}
    assert all(first == bytes([index]) for _, index, first in found)
    assert reader.most_bytes <= limit
    assert reader.error is None


def test_what_is_read_once_is_brought_once_and_in_order(copies: list[Copy], tmp_path: Path) -> None:
    limit = copies[0].size_bytes
    given = cache_plan(copies, once=True, cache_bytes=limit)
    with Reader(given, tmp_path / "node", tmp_path / "node" / "cache") as reader:
        assert [index for _, index, _ in reader.read(9)] == [0, 1, 2]


def test_validation_shards_are_there_for_good(copies: list[Copy], tmp_path: Path) -> None:
    given = cache_plan(copies[:2], pinned=(copies[2],), cache_bytes=copies[0].size_bytes)
    with Reader(given, tmp_path / "node", tmp_path / "node" / "cache") as reader:
        reader.read(6)
        wait_until((tmp_path / "node" / copies[2].target).exists)
        assert (tmp_path / "node" / copies[2].target).read_bytes() == Path(copies[2].source).read_bytes()


def test_a_restart_on_the_same_host_finds_what_is_there(copies: list[Copy], tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with Reader(cache_plan(copies), tmp_path / "first", shared) as reader:
        reader.read(3)
    (shared / copies[0].sha256).write_bytes(b"torn")
    damaged = bytearray((shared / copies[1].sha256).read_bytes())
    damaged[5] ^= 1
    (shared / copies[1].sha256).unlink()
    (shared / copies[1].sha256).write_bytes(damaged)
    with Reader(cache_plan(copies), tmp_path / "second", shared) as reader:
        reader.read(3)
    assert reader.passes[0].num_files == 2  # the third one was right, as its digest says
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in shared.iterdir())


def test_two_attempts_use_one_cache_at_a_time_and_a_killed_one_leaves_no_part_of_a_file(
    copies: list[Copy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a host that was cut off comes back: its node of the attempt before may copy and evict for a moment."""
    shared, download = tmp_path / "shared", storage.download
    names: set[str] = set()

    def watched(source: str, target: str) -> str:
        digest = download(source, target)
        names.update(path.name for path in shared.iterdir())  # what a SIGKILL would leave now
        return digest

    monkeypatch.setattr(storage, "download", watched)
    given = cache_plan(copies, cache_bytes=copies[0].size_bytes)  # each evicts what the other one may want next
    with Reader(given, tmp_path / "old", shared) as old, Reader(given, tmp_path / "new", shared) as new:
        for _ in range(6):
            (of_old,), (of_new,) = old.read(1), new.read(1)
            assert of_old == of_new
    assert names <= {copy.sha256 for copy in copies}


@pytest.mark.parametrize(("change", "words"), [("bit", "has SHA-256"), ("length", "bytes, its manifest says")])
def test_a_file_that_is_another_one_is_named_and_not_kept(
    copies: list[Copy], tmp_path: Path, change: str, words: str
) -> None:
    source = Path(copies[1].source)
    content = bytearray(source.read_bytes())
    content[7] ^= 1
    source.write_bytes(content if change == "bit" else content[:-1])
    with pytest.raises(BadDataError, match=words) as caught:
        Stager(cache_plan(copies), str(tmp_path), str(tmp_path / "cache"), lambda _: None).run()
    assert caught.value.place.startswith(str(source))
    assert copies[1].sha256 not in {path.name for path in (tmp_path / "cache").iterdir()}


def test_a_file_that_is_not_there(copies: list[Copy], tmp_path: Path) -> None:
    Path(copies[2].source).unlink()
    with pytest.raises(MissingInputError, match="source-2"):
        Stager(cache_plan(copies), str(tmp_path), str(tmp_path / "cache"), lambda _: None).run()


def test_a_damaged_record_of_a_shard_is_named_by_its_byte(write_shard: Callable[..., str], tmp_path: Path) -> None:
    path = Path(write_shard("source", [(np.zeros((9, 9), np.uint8), 1), (np.ones((9, 9), np.uint8), 2)]))
    content = bytearray(path.read_bytes())
    sha256 = hashlib.sha256(content).hexdigest()
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadDataError, match=r"has SHA-256 .*: checksum of data does not fit") as caught:
        copies_module.fetch(str(path), str(tmp_path / "target"), len(content), sha256)
    assert caught.value.place == f"{path}, byte {len(content) // 2}"
    assert not list(tmp_path.glob("target*"))


def test_what_an_earlier_attempt_left_is_room_for_this_one(
    copies: list[Copy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader(cache_plan(copies), tmp_path / "first", tmp_path / "shared") as reader:
        reader.read(3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 20, 0, stager.RESERVE_BYTES))  # it is full
    with Reader(cache_plan(copies), tmp_path / "second", tmp_path / "shared") as reader:
        reader.read(6)
    assert reader.error is None


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_said_before_anything_is_copied(
    copies: list[Copy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 20, 0, stager.RESERVE_BYTES + (9 << 20)))
    given = cache_plan(copies[:2], pinned=(copies[2],))
    with pytest.raises(ResourceError, match=r"10\.0 MiB of shards must be there .*, and 9\.0 MiB are free") as caught:
        Stager(given, str(tmp_path), str(tmp_path / "cache"), lambda _: None).run()
    assert caught.value.place == str(tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_local_file_is_used_where_it_lies(copies: list[Copy]) -> None:
    with copies_module.local_copy(f"file://{copies[0].source}", 1, "anything") as path:
        assert path == copies[0].source


def test_a_download_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"older")
    digest = storage.download(str(tmp_path / "source"), str(tmp_path / "target"))
    assert digest == hashlib.sha256(b"new").hexdigest()
    assert (tmp_path / "target").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
