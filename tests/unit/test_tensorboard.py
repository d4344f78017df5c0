"""The mirror of a run's events files, with fsspec's file system in memory as the place where the run is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tfos_job.local_jobs.tensorboard import LocalMirror


@pytest.fixture
def run() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    if files.exists("/run"):
        files.rm("/run", recursive=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_new_is_appended_to_the_files_that_a_reader_has_open(
    run: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    mirror = LocalMirror("memory://run/summaries", tmp_path)
    mirror.update()
    assert contents(tmp_path) == {}
    run.pipe({"/run/summaries/train/events.1": b"abc", "/run/summaries/validation/events.1": b"x"})
    mirror.update()
    assert contents(tmp_path) == {"train/events.1": b"abc", "validation/events.1": b"x"}
    with (tmp_path / "train/events.1").open("rb") as reader:
        assert reader.read() == b"abc"
        run.pipe("/run/summaries/train/events.1", b"abcdef")
        run.pipe("/run/summaries/train/events.2", b"2")
        mirror.update()
        assert reader.read() == b"def"
    assert contents(tmp_path) == {"train/events.1": b"abcdef", "train/events.2": b"2", "validation/events.1": b"x"}


def test_what_is_cleared_or_begun_anew_goes(run: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    mirror = LocalMirror("memory://run/summaries", tmp_path)
    run.pipe({"/run/summaries/train/events.1": b"abc", "/run/summaries/train/events.2": b"abc"})
    mirror.update()
    run.pipe("/run/summaries/train/events.1", b"z")
    run.rm("/run/summaries/train/events.2")
    mirror.update()
    assert contents(tmp_path) == {"train/events.1": b"z"}
    run.rm("/run", recursive=True)
    mirror.update()
    assert contents(tmp_path) == {}
