"""The thread that writes reports: who puts one never waits, the newest one counts, and a failure is no end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tfos_job import storage
from tfos_job.driver.report_writer import ReportWriter
from tfos_job.errors import StorageError


class Disk:
    """A disk in place of `storage.write_json`, which hangs or fails as a test wants; knows all that was written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[tuple[str, Any]] = []
        self.begun = threading.Semaphore(0)
        self.may_go = threading.Event()
        self.may_go.set()
        self.error: Exception | None = None
        monkeypatch.setattr(storage, "write_json", self._write)

    def _write(self, path: str, value: Any) -> None:
        self.begun.release()
        assert self.may_go.wait(60)
        if self.error is not None:
            raise self.error
        self.written.append((path, value))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def writer() -> Iterator[ReportWriter]:
    made = ReportWriter()
    yield made
    made.close()


def content(value: int) -> Callable[[], dict[str, int]]:
    return lambda: {"value": value}


def test_a_file_is_written_when_it_is_waited_for(tmp_path: Path, writer: ReportWriter) -> None:
    writer.flush()  # nothing yet
    for value in range(3):
        writer.put(str(tmp_path / "a"), content(value))
    writer.put(str(tmp_path / "b"), content(9))
    writer.flush()
    assert [json.loads((tmp_path / name).read_text())["value"] for name in "ab"] == [2, 9]


def test_who_puts_does_not_wait_and_the_newest_is_written_last(disk: Disk, writer: ReportWriter) -> None:
    disk.may_go.clear()
    writer.put("a", content(0))
    assert disk.begun.acquire(timeout=60)
    for value in range(1, 9):
        writer.put("a", content(value))  # returns, though the disk hangs
    with pytest.raises(StorageError, match="a: not written within 0 s"):
        writer.flush(0.01)
    disk.may_go.set()
    writer.flush()
    assert disk.written == [("a", {"value": 0}), ("a", {"value": 8})]


def test_a_failure_is_a_warning_and_tried_again_with_the_next(
    disk: Disk, writer: ReportWriter, caplog: pytest.LogCaptureFixture
) -> None:
    disk.error = StorageError("full")
    for value in range(2):
        writer.put("a", content(value))
        writer.hold()
    with pytest.raises(StorageError, match="full"):
        writer.flush()
    assert disk.written == []
    disk.error = None
    writer.put("b", content(3))
    writer.flush()
    assert sorted(disk.written) == [("a", {"value": 1}), ("b", {"value": 3})]
    assert len(caplog.messages) <= 1  # not again and again


def test_the_first_failure_is_told(disk: Disk, writer: ReportWriter, caplog: pytest.LogCaptureFixture) -> None:
    disk.error = StorageError("full")
    for _ in range(2):
        writer.put("a", content(1))
        assert disk.begun.acquire(timeout=60)
        writer.hold()
    assert caplog.messages == ["Not written now, but with what comes next: full"]


def test_content_that_cannot_be_made_is_a_failure_too(disk: Disk, writer: ReportWriter) -> None:
    def fail() -> dict[str, int]:
        raise KeyError("x")

    writer.put("a", fail)
    with pytest.raises(KeyError):
        writer.flush()
    writer.put("a", content(1))
    writer.flush()
    assert disk.written == [("a", {"value": 1})]


def test_after_the_end_nothing_is_taken_or_said(
    disk: Disk, writer: ReportWriter, caplog: pytest.LogCaptureFixture
) -> None:
    disk.may_go.clear()
    disk.error = StorageError("full")
    writer.put("a", content(0))
    assert disk.begun.acquire(timeout=60)
    writer.put("b", content(0))
    writer.close()
    writer.put("c", content(0))
    disk.may_go.set()
    writer.hold()
    assert disk.written == []
    assert caplog.messages == []
