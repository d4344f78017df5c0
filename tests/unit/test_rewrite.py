from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from tfos_job.conversion import rewrite
from tfos_job.conversion.rewrite import Dealt, DealTask, GatherTask, RewriteTask, Stretch
from tfos_job.errors import BadDataError
from tfos_job.formats import tf_example, tfrecord


def write_shard(path: Path, glyphs: list[tuple[str, int]]) -> str:
    with path.open("wb") as stream:
        for offset, (name, class_id) in enumerate(glyphs):
            example = {"image/class/label": class_id, "source/file": name.encode(), "source/offset": offset}
            tfrecord.write_record(stream, tf_example.encode_example(example))
    return str(path)


def origins(path: str) -> list[tuple[str, int]]:
    with open(path, "rb") as stream:
        found = [tf_example.decode_example(data) for _, data in tfrecord.read_records(stream, path)]
    return [(example["source/file"].decode(), example["source/offset"]) for example in found]  # type: ignore[union-attr]


def test_records_are_copied_by_number_and_without_those_of_dropped_sources(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1", [("a", 0), ("b", 1), ("a", 1), ("c", 2)])
    second = write_shard(tmp_path / "2", [("d", 0), ("b", 1)])
    task = RewriteTask(
        shard_file="part",
        stretches=(Stretch(first, 1, 4), Stretch(second, 0, 2)),
        building_dir=str(tmp_path),
        drop=frozenset("b"),
    )
    result = rewrite.rewrite(task)
    assert origins(result.written_file) == [("a", 2), ("c", 3), ("d", 0)]
    assert result.shard.sources == ("a", "c", "d")
    assert (result.class_counts, result.dropped_counts) == ({1: 1, 2: 1, 0: 1}, {1: 2})
    assert (result.shard.num_records, result.shard.size_bytes) == (3, Path(result.written_file).stat().st_size)
    data = bytearray(Path(first).read_bytes())
    data[-8] ^= 1
    Path(first).write_bytes(data)
    with pytest.raises(BadDataError, match=r"/1, byte \d+: checksum of data"):
        rewrite.rewrite(task)
    Path(first).write_bytes(data[: len(data) // 4])
    with pytest.raises(BadDataError, match=r"/1"):
        rewrite.rewrite(task)
    too_many = RewriteTask(shard_file="p", stretches=(Stretch(second, 0, 3),), building_dir=str(tmp_path))
    with pytest.raises(BadDataError, match="has 2 records, its manifest says 3"):
        rewrite.rewrite(too_many)


def hands(dealt: tuple[Dealt, ...], index: int) -> tuple[tuple[str, int, int], ...]:
    return tuple((one.path, one.bounds[index], one.bounds[index + 1]) for one in dealt)


def mixed(tmp_path: Path, paths: list[str], seed: int) -> list[list[tuple[str, int]]]:
    dealt = tuple(
        rewrite.deal(DealTask(path=path, num_hands=4, first=i * 25 % 4, seed=seed, index=i, building_dir=str(tmp_path)))
        for i, path in enumerate(paths)
    )
    return [
        origins(
            rewrite.gather(
                GatherTask(shard_file="p", hands=hands(dealt, i), seed=seed, index=i, building_dir=str(tmp_path))
            ).written_file
        )
        for i in range(4)
    ]


def test_mixing_keeps_each_record_once_and_follows_from_the_seed(tmp_path: Path) -> None:
    paths = [write_shard(tmp_path / name, [(name, 0)] * 25) for name in "abc"]
    first = mixed(tmp_path, paths, seed=1)
    assert mixed(tmp_path, paths, seed=1) == first
    assert mixed(tmp_path, paths, seed=2) != first
    assert Counter(itertools.chain.from_iterable(first)) == Counter(
        (name, offset) for name in "abc" for offset in range(25)
    )
    assert [len(hand) for hand in first] == [19, 19, 19, 18]
    assert all({name for name, _ in hand} == set("abc") for hand in first)
    assert all(hand != sorted(hand) for hand in first)


def test_a_dealt_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a", [("a", 0)] * 3)
    task = DealTask(path=path, num_hands=2, first=0, seed=0, index=0, building_dir=str(tmp_path))
    dealt = rewrite.deal(task)
    assert dealt.bounds[-1] == Path(path).stat().st_size
    cut = Dealt(dealt.path, (0, dealt.bounds[1] - 1, dealt.bounds[2]))
    with pytest.raises(BadDataError, match="truncated"):
        rewrite.gather(GatherTask(shard_file="p", hands=hands((cut,), 0), seed=0, index=0, building_dir=str(tmp_path)))
