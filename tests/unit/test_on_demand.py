"""When Spark is started for a command, and that it is stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tfos_job.driver import session
from tfos_job.driver.on_demand import SparkOnDemand


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to a session in Spark's place."""
    seen: list[str] = []

    @contextlib.contextmanager
    def open_session(app_name: str, master: str | None) -> Iterator[SimpleNamespace]:
        seen.append(f"start {app_name} {master}")
        try:
            yield SimpleNamespace(sparkContext=app_name)
        finally:
            seen.append("stop")

    monkeypatch.setattr(session, "open_session", open_session)
    return seen


def test_spark_starts_once_when_it_is_asked_for_and_stops_at_the_end(events: list[str]) -> None:
    with SparkOnDemand("a", "local[2]"):
        pass
    assert events == []
    with SparkOnDemand("a", "local[2]") as spark:
        assert spark.sparkContext is spark.sparkContext
        assert events == ["start a local[2]"]
    assert events == ["start a local[2]", "stop"]


def test_in_a_clusters_driver_the_context_is_there_and_is_stopped_whether_it_is_needed_or_not(
    events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "in_cluster_mode", lambda: True)
    with SparkOnDemand("a", None):
        assert events == ["start a None"]
    assert events == ["start a None", "stop"]
