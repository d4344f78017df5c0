"""A registry has the old model or the new one, wherever a command is killed; the next command finishes or removes."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit import small_registry
from tests.unit.clockwork import Clockwork
from tests.unit.small_registry import OTHER_CHARSET, SmallModel, digest_of, model, offer, served
from tfos_job import storage
from tfos_job.config import HistoryConfig, PromoteConfig, RollbackConfig
from tfos_job.errors import BadDataError, BusyError, JobError, MissingInputError, SettingsError
from tfos_job.layout import RegistryLayout
from tfos_job.lease import Lease
from tfos_job.local_jobs import history
from tfos_job.local_jobs.promote import promote, raise_if_kept
from tfos_job.local_jobs.rollback import rollback
from tfos_job.run import model_registry, promotion_entry
from tfos_job.run.promotion_entry import PromotionEntry


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


def back(root: str, to: int | None = None) -> dict[str, Any]:
    return rollback(RollbackConfig(registry_dir=root, to=to, reason="it was wrong"))


def current(root: str) -> PromotionEntry:
    return promotion_entry.read(RegistryLayout(root).current, "")[0]


def kinds(root: str) -> list[tuple[int | None, str]]:
    return [(entry.version, entry.kind) for entry in model_registry.history(RegistryLayout(root))]


def names(root: str) -> list[str]:
    """All files of a registry, but for those within versions."""
    return sorted(str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file())


# --- what is promoted ------------------------------------------------------------------------------------------------


def test_the_first_model_and_a_better_one_are_promoted(root: str, tmp_path: Path) -> None:
    first = offer(root, model(tmp_path, "a", 9), min_top_1=0.9)
    assert (first["decision"], first["version"], first["parent"]) == ("promoted", 1, None)
    assert first["reason"] == "top-1 0.9000 (81 of 90 records) reaches 0.9"
    second = offer(root, model(tmp_path, "b", 2), min_top_1=0.9)
    assert (second["version"], second["parent"], second["path"]) == (2, 1, f"{root}/2")
    assert "does not show it to be worse (p = 1)" in second["reason"]
    assert served(root) == digest_of("b")
    found = current(root)
    assert (found.version, found.parent, found.model.digest) == (2, 1, digest_of("b"))
    assert found.training["dataset_digest"] == digest_of("training")
    assert found.source["path"] == str(tmp_path / "b" / "1")
    assert found.flags["train"] == {"epoch": 5}
    assert found.flags["promote"]["min_top_1"] == 0.9
    assert found.metrics["num_examples"] == 90
    assert set(found.who) == {"user", "host"}
    for number in (1, 2):
        of_version = (Path(root) / str(number) / "promotion.json").read_bytes()
        assert (Path(root) / "history" / f"00000{number}.json").read_bytes() == of_version
    assert Path(root, "current").read_bytes() == of_version
    data = (tmp_path / "b.npz").read_bytes()
    assert Path(root, "history", "000002.npz").read_bytes() == data
    assert not [name for name in names(root) if "_" in Path(name).name and "saved_model" not in name]


def test_a_worse_candidate_is_kept_out_and_recorded(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 2))
    before = {name: Path(root, name).read_bytes() for name in names(root)}
    found = offer(root, model(tmp_path, "b", 12))
    assert (found["decision"], found["version"], found["digest"]) == ("kept", 1, digest_of("b"))
    assert "shows it to be worse (p = 0.000977)" in found["reason"]
    assert found["gate"]["tests"]["mcnemar"]["num_lost"] == 10
    assert {name: Path(root, name).read_bytes() for name in before} == before
    assert kinds(root) == [(1, "promoted"), (None, "kept")]
    assert model_registry.history(RegistryLayout(root))[1].parent == 1
    with pytest.raises(BadDataError, match="the candidate was not promoted: of 90 records"):
        raise_if_kept(found)
    raise_if_kept(offer(root, model(tmp_path, "c", 1)))


def test_a_first_candidate_below_the_floor_leaves_a_registry_without_a_model(root: str, tmp_path: Path) -> None:
    found = offer(root, model(tmp_path, "a", 45), min_top_1=0.9)
    assert (found["decision"], found["version"], found["path"]) == ("kept", None, None)
    assert served(root) is None
    assert kinds(root) == [(None, "kept")]
    assert offer(root, model(tmp_path, "b", 3), min_top_1=0.9)["version"] == 1


def test_without_a_threshold_the_first_is_promoted_with_a_warning(
    root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert offer(root, model(tmp_path, "a", 80))["version"] == 1
    assert "no accuracy is asked for, so that any network passes" in caplog.text


def test_a_person_overrules_the_gate_with_a_reason(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 2))
    found = offer(root, model(tmp_path, "b", 40), force=True, reason="new paper")
    assert (found["decision"], found["version"], found["forced"]) == ("promoted", 2, True)
    assert found["reason"].startswith("forced: new paper (the gate: of 90 records")
    assert current(root).forced
    assert current(root).gate is not None
    unneeded = offer(root, model(tmp_path, "c", 0), force=True, reason="to be sure")
    assert (unneeded["version"], unneeded["forced"]) == (3, False)


def test_the_same_candidate_is_not_promoted_twice(root: str, tmp_path: Path) -> None:
    candidate = model(tmp_path, "a", 2)
    offer(root, candidate)
    before = {name: Path(root, name).read_bytes() for name in names(root)}
    again = offer(root, candidate, min_top_1=1.0)
    assert (again["decision"], again["version"], again["already_promoted"]) == ("promoted", 1, True)
    assert {name: Path(root, name).read_bytes() for name in names(root)} == before


def test_the_same_model_in_another_format_is_another_candidate(root: str, tmp_path: Path) -> None:
    first = model(tmp_path, "a", 2)
    offer(root, first)
    other = model(tmp_path / "again", "a", 2, formats={"saved_model": {}, "tflite": {}})
    assert offer(root, other)["version"] == 2
    exported_again = model(tmp_path / "later", "a", 2, formats={"saved_model": {}, "tflite": {}}, created="later")
    assert offer(root, exported_again)["already_promoted"]


def test_what_does_not_answer_is_not_published(root: str, tmp_path: Path) -> None:
    first, second = model(tmp_path, "a", 2), model(tmp_path, "b", 0)
    offer(root, first)
    before = {name: Path(root, name).read_bytes() for name in names(root)}
    seen = []

    def fail(folder: str) -> None:
        seen.append(json.loads(Path(folder, "export.json").read_text("utf-8")))
        raise BadDataError("the network does not answer")

    config = PromoteConfig(registry_dir=root, export_dir=second.export_dir, predictions=second.predictions)
    with pytest.raises(BadDataError, match="does not answer"):
        promote(config, bless=fail)
    assert [(one["version"], one["digest"]) for one in seen] == [(2, second.digest)]
    offer(root, first)  # removes what is left
    assert {name: Path(root, name).read_bytes() for name in names(root)} == before


# --- inputs that do not fit ------------------------------------------------------------------------------------------


def test_predictions_of_another_model_are_refused_with_both_digests(root: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{digest_of('b')}.*{digest_of('a')}"):
        offer(root, model(tmp_path, "a", evaluated="b"))
    assert not Path(root).exists()


def test_predictions_for_what_it_was_trained_on_are_refused(root: str, tmp_path: Path) -> None:
    trained_on = digest_of("frozen" + small_registry.CHARSET.digest)
    with pytest.raises(SettingsError, match="the records that the model was trained on"):
        offer(root, model(tmp_path, "a", dataset_digest=trained_on))


def test_another_frozen_set_is_accepted_by_a_flag_alone_and_then_the_floor_decides(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 2))
    other = model(tmp_path, "b", 20, frozen="newer")
    with pytest.raises(SettingsError, match="the frozen set of the registry is test of /frozen"):
        offer(root, other)
    with pytest.raises(SettingsError, match="the frozen set of the registry"):
        offer(root, other, force=True, reason="it must be")
    assert offer(root, other, accept_frozen_set=True, min_top_1=0.9)["decision"] == "kept"
    found = offer(root, other, accept_frozen_set=True, min_top_1=0.5)
    assert (found["decision"], found["version"], list(found["gate"]["tests"])) == ("promoted", 2, ["floor"])
    assert "the current model was evaluated on another frozen set" in found["gate"]["remarks"][0]
    with pytest.raises(SettingsError, match="the frozen set of the registry"):
        offer(root, model(tmp_path, "c"))
    assert offer(root, model(tmp_path, "d", frozen="newer"))["version"] == 3


def test_the_current_model_on_another_frozen_set_binds_the_registry_to_it(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 2))
    found = offer(root, model(tmp_path / "again", "a", 2, frozen="newer"), accept_frozen_set=True)
    assert (found["version"], found["already_promoted"]) == (2, False)
    assert offer(root, model(tmp_path, "b", frozen="newer"))["version"] == 3


def test_another_charset_is_accepted_by_a_flag_alone(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 2))
    other = model(tmp_path, "b", 2, charset=OTHER_CHARSET)
    for flags in ({}, {"accept_frozen_set": True}):
        with pytest.raises(SettingsError, match=r"charset \w{64}, and that of the current model, version 1, is"):
            offer(root, other, **flags)
    found = offer(root, other, accept_charset=True, min_top_1=0.9)
    assert (found["version"], found["gate"]["remarks"]) == (
        2,
        ["there is nothing to compare with: the current model has another charset"],
    )


def test_a_version_of_the_registry_is_no_candidate(root: str, tmp_path: Path) -> None:
    candidate = model(tmp_path, "a")
    offer(root, candidate)
    for folder in (root, f"{root}/1"):
        with pytest.raises(SettingsError, match="is in the registry already"):
            offer(root, SmallModel(folder, candidate.predictions, candidate.digest))


def test_a_folder_with_versions_of_others_is_no_registry(root: str, tmp_path: Path) -> None:
    candidate = model(tmp_path, "a")
    with pytest.raises(SettingsError, match="no promotion has published this version"):
        offer(candidate.export_dir, model(tmp_path, "b"))
    offer(root, candidate)
    Path(root, "7").mkdir()
    with pytest.raises(SettingsError, match="no promotion has published this version"):
        offer(root, model(tmp_path, "c"))


@pytest.mark.parametrize("name", ["export.json", "saved_model.pb"])
def test_a_damaged_candidate_is_refused(name: str, root: str, tmp_path: Path) -> None:
    candidate = model(tmp_path, "a")
    file = Path(candidate.export_dir, "1", name)
    file.write_bytes(file.read_bytes().replace(b"a", b"b"))
    with pytest.raises(BadDataError, match="not a whole export"):
        offer(root, candidate)
    assert served(root) is None


@pytest.mark.parametrize(
    "changes",
    [{"charset_digest": "x"}, {"top_k": "3"}, {"step": None}, {"formats": 3}, {"classes": ["a", "b"]}],
    ids=str,
)
def test_an_export_that_is_none_is_refused_and_nothing_is_left_behind(
    changes: dict[str, Any], root: str, tmp_path: Path
) -> None:
    """Its document has its own digest, so that only its contents tell."""
    candidate = model(tmp_path, "a", **changes)
    with pytest.raises(JobError) as failed:
        offer(root, candidate)
    assert failed.value.exit_code == 65
    assert served(root) is None
    assert offer(root, model(tmp_path, "b"))["version"] == 1


def test_damaged_predictions_are_refused(root: str, tmp_path: Path) -> None:
    candidate = model(tmp_path, "a")
    path = Path(candidate.predictions)
    whole = path.read_bytes()
    for data in (b"", b"no zip", whole[:-100], whole.replace(b"NUMPY", b"NUMPX", 1), whole[:900] + b"\0" + whole[901:]):
        path.write_bytes(data)
        with pytest.raises(BadDataError, match="no predictions of an evaluation"):
            offer(root, candidate)
    with np.load(io.BytesIO(whole)) as archive:
        arrays = dict(archive)
    for changes in (
        {"labels": arrays["labels"][:-1]},
        {"labels": arrays["labels"].astype(np.int64)},
        {"labels": arrays["labels"] + np.int32(1)},
        {"predicted": arrays["predicted"] - np.int32(1)},
        {"losses": np.full(90, np.nan, np.float32)},
        {"shard_sizes": np.array([91, -1])},
        {"header": np.frombuffer(b"{}", np.uint8)},
        {"header": np.array({}, object)},
    ):
        np.savez(path, **arrays | changes)
        with pytest.raises(BadDataError, match="no predictions of an evaluation"):
            offer(root, candidate)
    np.savez_compressed(path, **arrays)
    with pytest.raises(BadDataError, match="is compressed"):
        offer(root, candidate)
    path.unlink()
    with pytest.raises(MissingInputError):
        offer(root, candidate)
    assert not Path(root).exists()
    np.savez(path, **arrays)
    assert offer(root, candidate)["version"] == 1


def test_a_second_command_waits_outside(root: str, tmp_path: Path) -> None:
    candidate = model(tmp_path, "a")
    with Lease(RegistryLayout(root).lock, "another"), pytest.raises(BusyError, match="held by another"):
        offer(root, candidate)
    offer(root, candidate)
    with Lease(RegistryLayout(root).lock, "another"), pytest.raises(BusyError, match="held by another"):
        back(root, 1)


def test_a_command_that_lost_its_lock_publishes_nothing(root: str, tmp_path: Path) -> None:
    """It was suspended while its candidate answered, and another command took the lock over."""
    registry = RegistryLayout(root)
    offer(root, model(tmp_path, "a", 9))
    candidate = model(tmp_path, "b", 5)
    config = PromoteConfig(registry_dir=root, export_dir=candidate.export_dir, predictions=candidate.predictions)
    with pytest.raises(BusyError):
        promote(config, bless=lambda folder: storage.write_json(registry.lock, {"owner": "another", "token": "x"}))
    assert (served(root), current(root).version) == (digest_of("a"), 1)
    assert not [path for path in Path(root).iterdir() if path.name.startswith("_building-")]
    storage.remove(registry.lock)
    assert offer(root, candidate)["version"] == 2


# --- back ------------------------------------------------------------------------------------------------------------


def test_rollback_publishes_the_model_before_under_a_higher_number(root: str, tmp_path: Path) -> None:
    for name, num_wrong in (("a", 9), ("b", 5), ("c", 2)):
        offer(root, model(tmp_path, name, num_wrong))
    found = back(root)
    assert (found["version"], found["restores"], found["parent"]) == (4, 2, 3)
    assert (found["digest"], found["path"]) == (digest_of("b"), f"{root}/4")
    assert served(root) == digest_of("b")
    entry = current(root)
    assert (entry.kind, entry.reason, entry.gate) == ("rolled_back", "it was wrong", None)
    assert entry.withdrawn == {digest_of("c"): 3}
    again = back(root)
    assert (again["version"], again["restores"], served(root)) == (5, 1, digest_of("a"))
    with pytest.raises(MissingInputError, match="no model was promoted before that of version 5"):
        back(root)
    to = back(root, 3)
    assert (to["version"], served(root)) == (6, digest_of("c"))
    assert current(root).withdrawn == {digest_of("b"): 4, digest_of("a"): 5}
    assert kinds(root) == [(n, "promoted") for n in (1, 2, 3)] + [(n, "rolled_back") for n in (4, 5, 6)]


def test_a_model_that_was_rolled_back_from_is_kept_out_until_a_person_says_otherwise(root: str, tmp_path: Path) -> None:
    """The scheduler's next run has the same data, and would promote the same model again."""
    candidates = {name: model(tmp_path, name, num) for name, num in (("a", 9), ("b", 5), ("c", 4))}
    offer(root, candidates["a"])
    offer(root, candidates["b"])
    back(root)
    found = offer(root, candidates["b"])
    assert (found["decision"], found["reason"]) == ("kept", "this very model was version 2, which was rolled back from")
    assert offer(root, candidates["c"])["version"] == 4
    assert offer(root, candidates["b"])["decision"] == "kept"
    assert offer(root, candidates["b"], force=True, reason="it was right")["version"] == 5
    assert current(root).withdrawn == {}


def test_the_next_candidate_is_compared_with_the_model_that_came_back(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 30))
    offer(root, model(tmp_path, "b", 2))
    back(root)
    found = offer(root, model(tmp_path, "c", 20))
    assert (found["decision"], found["gate"]["tests"]["mcnemar"]["num_won"]) == ("promoted", 10)


def test_rollback_to_a_version_that_is_the_current_one_changes_nothing(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 9))
    offer(root, model(tmp_path, "b", 5))
    assert back(root, 2)["already_rolled_back"]
    assert back(root, 1)["version"] == 3
    again = back(root, 1)
    assert (again["version"], again["already_rolled_back"]) == (3, True)


def test_rollback_needs_a_registry_a_model_and_a_version(root: str, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no registry there"):
        back(root)
    assert not Path(root).exists()
    offer(root, model(tmp_path, "a", 80), min_top_1=0.9)
    with pytest.raises(MissingInputError, match="no model was promoted there"):
        back(root)
    offer(root, model(tmp_path, "b"))
    with pytest.raises(MissingInputError, match="no model was promoted before"):
        back(root)
    with pytest.raises(MissingInputError, match="version 9 is not there"):
        back(root, 9)


def test_a_damaged_version_is_not_rolled_back_to(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 9))
    offer(root, model(tmp_path, "b", 5))
    Path(root, "1", "saved_model.pb").write_bytes(b"another graph")
    with pytest.raises(BadDataError, match="not a whole export"):
        back(root)
    assert served(root) == digest_of("b")
    assert current(root).version == 2


def test_a_number_that_servers_have_seen_is_not_given_again(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 9))
    offer(root, model(tmp_path, "b", 5))
    storage.remove(f"{root}/2")
    with pytest.raises(BadDataError, match="names version 2 as the current one, but the newest one is 1"):
        offer(root, model(tmp_path, "c", 4))
    storage.remove(f"{root}/current")
    assert offer(root, model(tmp_path, "d", 4))["version"] == 3
    assert (current(root).version, current(root).parent) == (3, 1)


def test_the_history_is_a_table_whatever_a_reason_says(root: str, tmp_path: Path) -> None:
    offer(root, model(tmp_path, "a", 9))
    offer(root, model(tmp_path, "b", 60), force=True, reason="to be\n\tsure \x1b[2J")
    offer(root, model(tmp_path, "c", 80))
    rollback(RollbackConfig(registry_dir=root, reason="no\x07"))
    entries = history.read(HistoryConfig(registry_dir=root))
    lines = history.lines(entries)
    assert [line[:7].strip() for line in lines] == ["version", "1", "2", "", "*3"]
    assert "  promoted, forced  " in lines[2]
    assert "  forced: to be sure \N{REPLACEMENT CHARACTER}[2J (the gate: of 90 records" in lines[2]
    assert "  kept  " in lines[3]
    assert "  rolled back to 1  " in lines[4]
    assert all(line.isprintable() for line in lines)
    assert [one["is_current"] for one in history.to_json(entries)] == [False, False, False, True]


# --- damage ----------------------------------------------------------------------------------------------------------

HOSTILE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"version": 1}',
    b'{"version": 1e999}',
]


@pytest.fixture
def three(root: str, tmp_path: Path) -> str:
    """A registry of two versions, whose current one is the second."""
    offer(root, model(tmp_path, "a", 9))
    offer(root, model(tmp_path, "b", 5))
    return root


def changed(document: dict[str, Any], **changes: Any) -> bytes:
    """A document that was changed by somebody who knows of its digest."""
    found = document | changes
    found["document_sha256"] = promotion_entry.document_digest(found)
    return json.dumps(found).encode()


@pytest.mark.parametrize("name", ["current", "2/promotion.json", "history/000002.json"])
@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_document_that_is_none_ends_each_command(name: str, data: bytes, three: str, tmp_path: Path) -> None:
    Path(three, name).write_bytes(data)
    before = {name: Path(three, name).read_bytes() for name in names(three)}
    candidate = model(tmp_path, "c", 4)
    attempts: list[Callable[[], Any]] = [lambda: offer(three, candidate), lambda: back(three), lambda: back(three, 1)]
    for attempt in attempts:
        with pytest.raises(BadDataError) as failed:
            attempt()
        assert failed.value.place == f"{three}/{name}"
        assert failed.value.next_step
    assert {name: Path(three, name).read_bytes() for name in names(three)} == before


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"version": 3},
        {"version": 0},
        {"version": True},
        {"version": None},
        {"version": 10**30},
        {"parent": 2},
        {"parent": 3},
        {"restores": 1},
        {"kind": "rolled_back"},
        {"kind": "kept"},
        {"kind": "other"},
        {"predictions": None},
        {"predictions": {"file": "../../secret.npz", "size_bytes": 1, "sha256": "0" * 64}},
        {"predictions": {"file": "000003.npz", "size_bytes": 1, "sha256": "0" * 64}},
        {"model": {}},
        {"withdrawn": {"x": 1}},
        {"reason": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["current", "2/promotion.json"])
def test_a_document_that_contradicts_itself_ends_a_command(
    name: str, changes: dict[str, Any], three: str, tmp_path: Path
) -> None:
    path = Path(three, name)
    path.write_bytes(changed(json.loads(path.read_bytes()), **changes))
    with pytest.raises(BadDataError):
        offer(three, model(tmp_path, "c", 4))
    assert served(three) == digest_of("b")


def test_a_document_without_its_digest_and_one_that_is_huge(three: str, tmp_path: Path) -> None:
    path, candidate = Path(three, "current"), model(tmp_path, "c", 4)
    path.write_bytes(path.read_bytes().replace(b'"step": 20', b'"step": 21'))
    with pytest.raises(BadDataError, match="does not have its own digest"):
        offer(three, candidate)
    path.write_bytes(b" " * (17 << 20))
    with pytest.raises(BadDataError, match="more than 16 MiB"):
        offer(three, candidate)
    path.unlink()
    assert offer(three, candidate)["version"] == 3


def test_current_of_a_registry_without_versions(root: str, three: str, tmp_path: Path) -> None:
    storage.remove(f"{three}/1")
    storage.remove(f"{three}/2")
    with pytest.raises(BadDataError, match="names version 2 as the current one, but there is no version"):
        offer(three, model(tmp_path, "c", 4))


@pytest.mark.parametrize("damage", ["gone", "changed", "another"])
def test_predictions_of_the_current_model_that_are_not_its_own(damage: str, three: str, tmp_path: Path) -> None:
    path = Path(three, "history", "000002.npz")
    other = Path(three, "history", "000001.npz").read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(other if damage == "another" else path.read_bytes()[:-1])
    with pytest.raises(JobError) as failed:
        offer(three, model(tmp_path, "c", 4))
    assert failed.value.exit_code == (66 if damage == "gone" else 65)
    assert served(three) == digest_of("b")


# --- killed anywhere -------------------------------------------------------------------------------------------------


def require_whole(root: str, allowed: set[str | None]) -> None:
    """What servers and readers of `current` see at any moment: one of these models, and each whole."""
    assert served(root) in allowed
    if storage.exists(RegistryLayout(root).current):
        entry = current(root)
        assert entry.model.digest in allowed
        assert storage.exists(f"{root}/{entry.version}")


def require_finished(root: str) -> None:
    """What the next command leaves: `current`, history and what servers take are one, and nothing else is there."""
    registry = RegistryLayout(root)
    newest = model_registry.newest(registry)
    assert newest is not None
    assert Path(registry.current).read_bytes() == newest[1]
    assert current(root).model.digest == served(root)
    versions = {entry.version for entry in model_registry.history(registry) if entry.version is not None}
    assert {f"{number:06d}.json" for number in versions} <= {path.name for path in Path(registry.history_dir).iterdir()}
    left = {path.name for path in Path(root).iterdir() if path.name.startswith("_")}
    assert {name for name in left if "_lock." not in name} == set()  # those are the lock's own
    left = {path.name for path in Path(registry.history_dir).iterdir() if not path.name.endswith(".json")}
    assert left == {entry.predictions.file for entry in model_registry.history(registry) if entry.predictions}
    model_registry.predictions_of(registry, newest[0])


@pytest.mark.parametrize(
    ("is_first", "then"), [(True, "same"), (False, "same"), (False, "another"), (False, "rollback")]
)
def test_a_promotion_that_is_killed_before_any_change(
    is_first: bool, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clockwork = Clockwork(monkeypatch)
    old, new, other = model(tmp_path, "old", 9), model(tmp_path, "new", 5), model(tmp_path, "other", 3)
    allowed = {None if is_first else old.digest, new.digest}
    fatal, was_promoted = 0, set()
    while True:
        root = str(tmp_path / f"registry-{fatal}")
        if not is_first:
            offer(root, old)
        with clockwork.counting(fatal, RegistryLayout(root).lock):
            offer(root, new)
        if fatal > clockwork.num_changes:  # it lived
            break
        if fatal:
            require_whole(root, allowed)
            was_promoted.add(served(root) == new.digest)
        if then == "same":
            found = offer(root, new)
            assert (found["version"], served(root)) == (1 if is_first else 2, new.digest)
        elif then == "another":
            assert offer(root, other)["decision"] == "promoted"
            assert served(root) == other.digest
        else:
            with contextlib.suppress(MissingInputError):  # the old model is still there, and none was before it
                assert back(root)["digest"] == old.digest
            assert served(root) == old.digest
        require_finished(root)
        fatal += 1
    assert fatal > 20
    assert was_promoted == {True, False}


def test_a_rollback_that_is_killed_before_any_change_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done once: the second run does not go back another step."""
    clockwork = Clockwork(monkeypatch)
    models = [model(tmp_path, name, num_wrong) for name, num_wrong in (("a", 9), ("b", 5), ("c", 3))]
    fatal = 0
    while True:
        root = str(tmp_path / f"registry-{fatal}")
        for one in models:
            offer(root, one)
        with clockwork.counting(fatal, RegistryLayout(root).lock):
            back(root)
        if fatal > clockwork.num_changes:
            break
        if fatal:
            require_whole(root, {digest_of("b"), digest_of("c")})
            was_finished = current(root).version == 4
            if not was_finished:
                found = back(root)
                assert (found["version"], found["restores"]) == (4, 2)
            assert served(root) == digest_of("b")
            offer(root, models[2])  # removes a lock's or history's remains, and keeps it out
        require_finished(root)
        fatal += 1
    assert fatal > 20


def test_the_next_command_that_is_killed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is killed behind its rename, and each way to kill the one that finishes it."""
    clockwork = Clockwork(monkeypatch)
    old, new = model(tmp_path, "old", 9), model(tmp_path, "new", 5)
    begun = str(tmp_path / "begun")
    offer(begun, old)
    fatal = 1
    while served(begun) != new.digest:
        with clockwork.counting(fatal, RegistryLayout(begun).lock):
            offer(begun, new)
        fatal += 1
    assert current(begun).model.digest == old.digest
    fatal = 1
    while True:
        root = str(tmp_path / f"registry-{fatal}")
        shutil.copytree(begun, root)
        with clockwork.counting(fatal, RegistryLayout(root).lock):
            offer(root, new)
        if fatal > clockwork.num_changes:
            break
        require_whole(root, {old.digest, new.digest})
        assert served(root) == new.digest
        assert offer(root, new)["already_promoted"]
        require_finished(root)
        fatal += 1
    assert fatal > 10
