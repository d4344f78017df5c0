"""A night as a whole, with stages that take no time: order, kills, runs of the past, records."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit import small_registry
from tests.unit.small_nights import NUM_WRONG, FakeStages, Killed, SmallNights
from tfos_job import storage
from tfos_job.config import RollbackConfig
from tfos_job.errors import BadDataError, BusyError, JobError, NodeDiedError, SettingsError
from tfos_job.host.signals import Stopped
from tfos_job.layout import RegistryLayout
from tfos_job.lease import Lease
from tfos_job.local_jobs.rollback import rollback
from tfos_job.pipeline import night, record
from tfos_job.pipeline.stages import STAGES
from tfos_job.run import exports, model_registry

ROOT = Path(__file__).resolve().parents[2]
NUM_WRITES = 3 * len(STAGES) + 1
"""Of a first night's record: of each stage that it begins, where it works, and that it has ended; of the end."""


@pytest.fixture
def nights(tmp_path: Path) -> SmallNights:
    return SmallNights(tmp_path)


def versions(nights: SmallNights) -> list[int]:
    return exports.numbers(RegistryLayout(nights.registry)) if Path(nights.registry).exists() else []


# --- nights one after the other --------------------------------------------------------------------------------------


def test_a_night_promotes_and_the_next_one_without_news_does_nothing(nights: SmallNights) -> None:
    stages = nights.stages()
    first = nights.run("2026-12-01", stages)
    assert stages.done == list(STAGES)
    assert (first["decision"], first["version"], first["already_ended"]) == ("promoted", 1, False)
    assert first["reason"] == "top-1 0.9000 (81 of 90 records) reaches 0.5"
    assert set(first["stages"].values()) == {"done"}
    stages = nights.stages()
    second = nights.run("2026-12-02", stages)
    assert stages.done == []
    assert (second["decision"], second["version"]) == ("kept", 1)
    assert second["reason"] == f"nothing is new since run 2026-12-01 ({first['reason']})"
    assert set(second["stages"].values()) == {"skipped"}
    assert versions(nights) == [1]


def test_new_files_make_a_model_that_the_gate_judges(nights: SmallNights) -> None:
    nights.run("2026-12-01")
    nights.add("gnt", "new writer")
    stages = nights.stages()
    found = nights.run("2026-12-02", stages, flags={"promote": ("--min_top_1=0.99",)})
    assert stages.done == [stage for stage in STAGES if stage != "freeze"]
    assert (found["decision"], found["version"]) == ("kept", 1)
    assert "0.99" in found["reason"]
    (train,) = [command for command in stages.commands if command[0] == "train"]
    assert f"--checkpoint_path={nights.layout.root}/run/checkpoints/step-00000020" not in train  # it is not there
    better = nights.run("2026-12-03", nights.stages())  # the floor alone has changed
    assert (better["decision"], better["version"]) == ("promoted", 2)
    assert better["stages"]["train"] == "skipped"


def test_a_run_that_has_ended_is_not_done_again(nights: SmallNights) -> None:
    first = nights.run("2026-12-01")
    nights.add("gnt", "later")
    stages = nights.stages()
    assert nights.run("2026-12-01", stages) == {**first, "already_ended": True}
    assert stages.done == []


def test_a_floor_that_is_not_reached_on_the_first_night_leaves_no_model(nights: SmallNights) -> None:
    found = nights.run("one", flags={"promote": ("--min_top_1=0.99",)})
    assert (found["decision"], found["version"]) == ("kept", None)
    assert versions(nights) == []


def test_the_model_that_is_the_current_one_already_is_kept(nights: SmallNights) -> None:
    nights.run("one")
    found = nights.run("two", flags={"promote": ("--min_top_1=0.6",)})
    assert (found["decision"], found["version"]) == ("kept", 1)
    assert found["reason"] == "it is the current model already, version 1"


# --- kills -----------------------------------------------------------------------------------------------------------


def killed_after_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Lets the run end right after it has written its record for the nth time."""
    write, count = record.write, [0]

    def counted(*arguments: Any) -> None:
        write(*arguments)
        count[0] += 1
        if count[0] == number:
            raise Killed

    monkeypatch.setattr(record, "write", counted)


def require_whole(nights: SmallNights, stages: list[FakeStages], run_id: str) -> None:
    """After a kill and a second command: one model, whole; at most one stage was done twice; nothing is left to do."""
    assert versions(nights) == [1]
    assert small_registry.served(nights.registry) == small_registry.digest_of(f"model-{run_id}")
    (entry,) = model_registry.history(RegistryLayout(nights.registry))
    assert entry.kind == "promoted"
    done = [stage for each in stages for stage in each.done]
    assert set(done) == set(STAGES)
    assert len(done) <= len(STAGES) + 1
    assert done == sorted(done, key=STAGES.index)  # none is done before what it needs
    stored = nights.record(run_id)
    assert stored["end"] == {"decision": "promoted", "version": 1, "reason": entry.reason}
    assert {stage["state"] for stage in stored["stages"].values()} == {"done"}
    later = nights.stages()
    assert nights.run("tomorrow", later)["version"] == 1
    assert later.done == []


@pytest.mark.parametrize("number", range(1, NUM_WRITES + 1))
def test_a_kill_after_each_write_of_the_record(
    nights: SmallNights, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first, second = nights.stages(), nights.stages()
    with monkeypatch.context() as patched:
        killed_after_write(patched, number)
        with pytest.raises(Killed):
            nights.run("one", first)
    found = nights.run("one", second)
    assert (found["decision"], found["version"]) == ("promoted", 1)
    require_whole(nights, [first, second], "one")


@pytest.mark.parametrize("at", STAGES)
def test_a_kill_between_a_stages_work_and_its_record(nights: SmallNights, at: str) -> None:
    def kill(stage: str) -> None:
        if stage == at:
            raise Killed

    first, second = nights.stages(kill=kill), nights.stages()
    with pytest.raises(Killed):
        nights.run("one", first)
    assert nights.record("one")["stages"][at]["state"] == "begun"
    assert nights.run("one", second)["decision"] == "promoted"
    assert second.settled == [{"stage": at}]  # what was at work is waited for before anything begins
    assert second.done[0] == at
    assert second.work_ids[0] == first.work_ids[-1]  # a runner can find what it has started
    require_whole(nights, [first, second], "one")


@pytest.mark.parametrize("at", STAGES)
def test_a_stage_that_fails_ends_the_night_with_its_code_and_the_next_command_goes_on(
    nights: SmallNights, at: str
) -> None:
    first, second = nights.stages(ends={at: 76}), nights.stages()
    with pytest.raises(JobError, match=f"run one, {at}: so it is") as raised:
        nights.run("one", first)
    assert raised.value.exit_code == 76
    assert first.done == list(STAGES[: STAGES.index(at)])
    stored = nights.record("one")
    assert (stored["end"], stored["stages"][at]["state"], stored["stages"][at]["exit_code"]) == (None, "failed", 76)
    assert versions(nights) == []
    nights.run("one", second)
    assert second.done == list(STAGES[STAGES.index(at) :])
    require_whole(nights, [first, second], "one")


def test_other_work_of_the_same_words_has_another_name(nights: SmallNights) -> None:
    first, second = nights.stages(ends={"verify": 65}), nights.stages()
    with pytest.raises(JobError):
        nights.run("one", first)
    nights.add("gnt", "later")
    nights.run("one", second)
    assert first.commands[0] == second.commands[0]  # convert
    names = first.work_ids + second.work_ids
    assert len(set(names)) == len(names)
    assert names[0].startswith("one convert ")


def test_what_another_run_has_left_at_work_is_waited_for(nights: SmallNights) -> None:
    def kill(stage: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        nights.run("one", nights.stages(kill=kill))
    stages = nights.stages()
    nights.run("two", stages)
    assert stages.settled == [{"stage": "convert"}]


def test_a_model_that_was_rolled_back_from_stays_out(nights: SmallNights) -> None:
    nights.run("one")
    nights.add("gnt", "new writer")
    assert nights.run("two")["version"] == 2
    rollback(RollbackConfig(registry_dir=nights.registry, reason="it takes all for one"))
    stages = nights.stages()
    found = nights.run("three", stages)
    assert stages.done == ["promote"]
    assert (found["decision"], found["version"]) == ("kept", 3)
    assert "rolled back from" in found["reason"]
    stages = nights.stages()
    assert nights.run("four", stages)["version"] == 3
    assert stages.done == []


def test_codes_of_stages() -> None:
    def error(code: int, line: str = "") -> JobError:
        return night.stage_error("one", "train", night.StageEnd(exit_code=code, results=(), last_line=line))

    assert isinstance(error(137), NodeDiedError)
    assert (error(75).exit_code, error(75).retryable) == (75, True)
    assert (error(143).exit_code, error(1).exit_code) == (143, 1)
    assert str(error(1)) == "run one, train: it ended with exit code 1"


def test_a_signal_is_recorded_and_the_next_command_goes_on(nights: SmallNights) -> None:
    def stop(stage: str) -> None:
        if stage == "train":
            raise Stopped(15)

    first, second = nights.stages(kill=stop), nights.stages()
    with pytest.raises(Stopped):
        nights.run("one", first)
    stage = nights.record("one")["stages"]["train"]
    assert (stage["state"], stage["exit_code"]) == ("failed", 143)
    nights.add("gnt", "later")  # for the next run: this one's training has begun
    nights.run("one", second)
    assert second.done == ["train", "evaluate", "export", "promote"]


def test_two_at_once_exclude_each_other(nights: SmallNights) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold(stage: str) -> None:
        inside.set()
        assert go_on.wait(60)

    one = threading.Thread(target=lambda: nights.run("one", nights.stages(kill=hold)))
    one.start()
    assert inside.wait(60)
    try:
        for run_id in ("one", "two"):
            with pytest.raises(BusyError) as raised:
                nights.run(run_id)
            assert raised.value.exit_code == 75
    finally:
        go_on.set()
        one.join()
    assert nights.run("one")["already_ended"]


def test_a_run_that_has_lost_its_lock_writes_nothing_more(nights: SmallNights) -> None:
    def steal(stage: str) -> None:
        if stage == "verify":
            storage.remove(nights.layout.lock)

    with pytest.raises(BusyError):
        nights.run("one", nights.stages(kill=steal))
    assert nights.record("one")["stages"]["verify"]["state"] == "begun"


# --- runs of the past, and the frozen set ----------------------------------------------------------------------------


def test_a_past_date_is_back_filled_without_replacing_the_newer_model(nights: SmallNights) -> None:
    nights.run("2026-12-02")
    nights.add("gnt", "new")
    stages = nights.stages()
    found = nights.run("2026-12-01", stages)
    assert (found["decision"], found["version"], found["stages"]["promote"]) == ("kept", 1, "withheld")
    assert found["reason"].startswith("run 2026-12-02, which is newer, was promoted")
    assert "export" in stages.done
    told = nights.stages()
    assert nights.run("2026-12-01", told, promote_older=True)["version"] == 2
    assert told.done == ["promote"]
    assert versions(nights) == [2, 1]


def test_a_changed_frozen_set_is_refused_before_anything_begins(nights: SmallNights) -> None:
    nights.run("one")
    nights.add("frozen", "another")
    nights.add("gnt", "new")
    stages = nights.stages()
    with pytest.raises(SettingsError, match=r"the frozen set has changed: another\.gnt is new"):
        nights.run("two", stages)
    assert stages.commands == []
    assert not storage.exists(nights.layout.record("two"))


def test_a_frozen_file_among_those_that_are_trained_on_is_refused_before_anything_begins(nights: SmallNights) -> None:
    (nights.root / "gnt" / "under another name.gnt").write_text("frozen one")
    stages = nights.stages()
    with pytest.raises(SettingsError, match="the same bytes"):
        nights.run("one", stages)
    assert stages.commands == []


# --- the dry run, and the record -------------------------------------------------------------------------------------


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_foretold_is_done_and_nothing_is_changed_by_it(nights: SmallNights) -> None:
    for run_id in ("one", "two"):
        before = everything_below(nights.root)
        decisions = night.Night(nights.settings(run_id), {}).foretell()
        assert everything_below(nights.root) == before
        stages = nights.stages()
        nights.run(run_id, stages)
        assert [decision.stage for decision in decisions if decision.runs] == stages.done
        assert night.Night(nights.settings(run_id), {}).foretell() == []
    assert NUM_WRONG  # the model is not perfect, so the floor of the gate decides


@pytest.mark.parametrize("damage", ["{", "[]", '{"run_id": "one"}', '{"run_id": "two", "began": "x"}'])
def test_a_damaged_record_is_named(nights: SmallNights, damage: str) -> None:
    nights.run("one")
    path = Path(nights.layout.record("one"))
    path.write_text(damage)
    with pytest.raises(BadDataError, match="no record of a pipeline's run") as raised:
        nights.run("two")
    assert raised.value.place == str(path)


def test_another_version_of_the_record_is_refused(nights: SmallNights) -> None:
    nights.run("one")
    path = Path(nights.layout.record("one"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(BadDataError, match="format_version 2, expected 1"):
        nights.run("one")


def test_the_lock_is_free_afterwards(nights: SmallNights) -> None:
    nights.run("one")
    with Lease(nights.layout.lock, "another"):
        pass


def test_docs_formats_has_every_field_of_the_record(nights: SmallNights) -> None:
    nights.run("one")
    text = (ROOT / "docs" / "formats.md").read_text("utf-8")
    section = text.partition("### pipeline/ID.json\n")[2].partition("\n## ")[0]
    rows = {
        name for line in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)
    }
    stored = nights.record("one")
    assert rows == {*stored, *stored["stages"]["train"], *stored["end"]}
    assert f"`format_version` | {record.FORMAT_VERSION}" in section
