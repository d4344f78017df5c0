from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfos_job.conversion import shard_plan
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.formats.archives import Member

MIB = 1 << 20


def files(*sizes: int) -> list[SourceFile]:
    return [SourceFile(f"{index:04d}.gnt", f"/in/{index:04d}.gnt", size, 0.0) for index, size in enumerate(sizes)]


def sizes_of(groups: list[tuple[Piece, ...]]) -> list[int]:
    return [sum(piece.stop - piece.start for piece in group) for group in groups]


def draw(count: int, low: int, high: int) -> list[int]:
    return np.random.default_rng(count).integers(low, high, count).tolist()


@pytest.mark.parametrize(
    ("sizes", "num_groups"),
    [
        ([2048 * MIB], 16),  # one huge file is for many tasks
        (draw(300, MIB, 30 * MIB), 37),
        (draw(240, 10 * MIB, 16 * MIB), 25),
        (draw(1000, 1 << 10, 4 * MIB), 16),
        (draw(90, 150_000, 250_000), 8),
        ([50 * MIB, 3 * MIB, 22 * MIB], 8),
        ([5 * MIB, 4 * MIB], 8),
    ],
)
def test_groups_are_of_one_size_and_hold_every_byte_once_in_order(sizes: list[int], num_groups: int) -> None:
    sources = files(*sizes)
    groups = shard_plan.plan_groups(sources[::-1])
    assert len(groups) == num_groups
    flat = [piece for group in groups for piece in group]
    assert [name for name, _ in itertools.groupby(flat, lambda piece: piece.source.name)] == [s.name for s in sources]
    ends: dict[str, int] = {}
    for piece in flat:
        assert piece.start == ends.get(piece.source.name, 0) < piece.stop
        assert piece.within == (piece.start > 0)
        ends[piece.source.name] = piece.stop
    assert ends == {source.name: source.size_bytes for source in sources}
    average = sum(sizes) / num_groups
    assert all(0.9 <= size / average <= 1.1 for size in sizes_of(groups))


@pytest.mark.parametrize(("count", "num_groups"), [(240, 24), (9, 8), (3, 3), (1, 1)])
def test_members_of_an_archive_are_not_cut_however_large(count: int, num_groups: int) -> None:
    sizes = draw(count, 10 * MIB, 16 * MIB)
    sources = [
        SourceFile(f"a.zip/{name}", "/in/a.zip", size, 0.0, Member(name, size, 0, size, 0, True))
        for name, size in ((f"{index:04d}.gnt", size) for index, size in enumerate(sizes))
    ]
    groups = shard_plan.plan_groups(sources)
    assert abs(len(groups) - num_groups) <= 1
    flat = [piece for group in groups for piece in group]
    assert [(piece.source, piece.start, piece.stop) for piece in flat] == [(s, 0, s.size_bytes) for s in sources]
    assert max(sizes_of(groups)) <= max(shard_plan.TARGET_SHARD_BYTES, max(sizes)) * 1.1


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 30])
def test_small_files_are_not_cut(count: int) -> None:
    groups = shard_plan.plan_groups(files(*[1000 + i for i in range(count)]))
    assert len(groups) == min(count, 8)
    assert all(piece.start == 0 and piece.stop == piece.source.size_bytes for group in groups for piece in group)
    assert all(groups)


def test_the_size_and_the_number_of_groups_are_for_the_caller_to_say() -> None:
    assert len(shard_plan.plan_groups(files(*[10 * MIB] * 10), target_bytes=10 * MIB)) == 10
    assert len(shard_plan.plan_groups(files(*[10 * MIB] * 10), min_groups=1)) == 1
    assert len(shard_plan.plan_groups(files(*[100] * 10), min_groups=1)) == 1


def test_files_without_a_byte_have_a_place_too() -> None:
    groups = shard_plan.plan_groups(files(*[0] * 20))
    assert sorted(piece.source.name for group in groups for piece in group) == [s.name for s in files(*[0] * 20)]
    assert len(shard_plan.plan_groups(files(0, 5 * MIB, 0, 0))) > 1
    assert shard_plan.plan_groups([]) == []
