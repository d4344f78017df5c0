from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfos_job.errors import BadDataError
from tfos_job.host import container
from tfos_job.outcome import OUTCOME_DIR_VARIABLE, Outcome


@pytest.fixture
def in_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CONTAINER_ID", "container_e17_1795610618978_0042_02_000001")
    monkeypatch.setenv("NM_HOST", "node7")
    monkeypatch.setenv("NM_HTTP_PORT", "8042")
    monkeypatch.setenv("SPARK_USER", "ann")
    monkeypatch.setenv(OUTCOME_DIR_VARIABLE, str(tmp_path))
    return tmp_path / "application_1795610618978_0042.json"


def test_what_a_container_knows_of_itself(in_a_container: Path) -> None:
    assert container.application_id() == "application_1795610618978_0042"
    assert container.attempt_number() == 2
    url = "http://node7:8042/node/containerlogs/container_e17_1795610618978_0042_02_000001/ann"
    assert container.log_url() == url


def test_the_account_of_an_attempt(in_a_container: Path) -> None:
    account = Outcome("convert")
    account.begin()
    begun = json.loads(in_a_container.read_text())
    assert (begun["exit_code"], begun["attempt"], begun["command"]) == (None, 2, "convert")
    account.add({"num_records": 3})
    account.end(0, None)
    assert json.loads(in_a_container.read_text())["results"] == [{"num_records": 3}]
    account.end(65, BadDataError("torn", place="a.gnt", next_step="Repair it"))
    ended = json.loads(in_a_container.read_text())
    assert ended["exit_code"] == 65
    assert ended["error"] == {"fact": "torn", "place": "a.gnt", "next_step": "Repair it"}


def test_elsewhere_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTAINER_ID", raising=False)
    monkeypatch.setenv(OUTCOME_DIR_VARIABLE, str(tmp_path))
    account = Outcome("convert")
    account.begin()
    account.end(0, None)
    assert list(tmp_path.iterdir()) == []
    assert (container.application_id(), container.attempt_number(), container.log_url()) == ("", 0, "")


def test_where_it_cannot_be_written_the_job_goes_on(in_a_container: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_a_container.mkdir()
    Outcome("convert").begin()
    assert "will not learn the outcome" in caplog.text


def test_in_a_pod_it_is_named_by_sparks_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTAINER_ID", raising=False)
    monkeypatch.setenv("SPARK_APPLICATION_ID", "spark-7")
    monkeypatch.setenv(OUTCOME_DIR_VARIABLE, str(tmp_path))
    account = Outcome("convert")
    account.end(65, BadDataError("torn", place="a.gnt", next_step="Repair it"))
    ended = json.loads((tmp_path / "spark-7.json").read_text())
    assert (ended["application"], ended["attempt"], ended["exit_code"]) == ("spark-7", 1, 65)
    assert container.container_id() == ""
