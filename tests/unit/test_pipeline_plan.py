"""The plan of a night: which stages run, which are skipped and why, and with which command lines."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.manifests import source
from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.errors import SettingsError
from tfos_job.pipeline import frozen_set, night, plan
from tfos_job.pipeline.names import PipelineLayout, date_of, encoded, is_older
from tfos_job.pipeline.plan import Decision
from tfos_job.pipeline.record import RunRecord, StageRecord
from tfos_job.pipeline.stages import (
    CONVERT,
    EVALUATE,
    EXPORT,
    FREEZE,
    PROMOTE,
    STAGES,
    TRAIN,
    VERIFY,
    Found,
    Promoted,
    Settings,
    inputs_of,
)

CHARSET = "cc"
EMPTY = Found(files={CONVERT: "files", FREEZE: "frozen files"})
CONVERTED = dataclasses.replace(EMPTY, datasets={CONVERT: "data", FREEZE: "frozen"}, charset=CHARSET)
CURRENT = Promoted(
    version=1,
    reason="top-1 0.97 reaches 0.9",
    checkpoint="/work/runs/one/step",
    has_checkpoint=True,
    charset=CHARSET,
    frozen="frozen",
)
PROMOTED = dataclasses.replace(CONVERTED, promoted=CURRENT)
OUTPUTS: Mapping[str, dict[str, str]] = {
    CONVERT: {"digest": "data", "charset": CHARSET},
    FREEZE: {"digest": "frozen", "charset": CHARSET},
    VERIFY: {},
    TRAIN: {"checkpoint": "/work/runs/one/step", "train_dir": "/work/runs/one"},
    EVALUATE: {"checkpoint": "/work/runs/one/step", "predictions": "/work/runs/one/evaluation/p.npz"},
    EXPORT: {"path": "/work/staged/one/1", "digest": "model"},
    PROMOTE: {"decision": "promoted", "version": "1", "reason": "top-1 0.97 reaches 0.9", "before": ""},
}


def settings(run_id: str = "two", **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "layout": PipelineLayout("/work"),
        "gnt_dir": "/gnt",
        "eval_gnt_dir": "/frozen",
        "registry_dir": "/models",
        "flags": {TRAIN: ("--epoch=5",), PROMOTE: ("--min_top_1=0.9",)},
        "learned": ("epoch=5",),
    }
    return Settings(run_id=run_id, **values | changes)


def stages_done(one: Settings, found: Found = CONVERTED, until: str = PROMOTE) -> dict[str, StageRecord]:
    """The stages of a run that came so far."""
    done: dict[str, StageRecord] = {}
    for stage in STAGES[: STAGES.index(until) + 1]:
        inputs = inputs_of(stage, one, found, OUTPUTS)
        assert inputs is not None
        done[stage] = StageRecord(
            state="done", why="", inputs=inputs, outputs=OUTPUTS[stage], of_run=one.run_id, command=[stage], exit_code=0
        )
    return done


def run_of(run_id: str, stages: dict[str, StageRecord] | None = None, began: str = "2026-12-01") -> RunRecord:
    return RunRecord(run_id=run_id, began=began, stages=stages or {})


ONE = run_of("one", stages_done(settings("one")), began="2026-11-30")


def everything(stage: str, before: StageRecord) -> bool:
    return True


def decided(
    one: Settings | None = None,
    found: Found = PROMOTED,
    own: RunRecord | None = None,
    earlier: tuple[RunRecord, ...] = (ONE,),
    is_there: Callable[[str, StageRecord], bool] = everything,
    newer: str | None = None,
) -> dict[str, Decision]:
    one = one or settings()
    decisions = plan.plan(one, found, own or run_of(one.run_id), earlier, is_there, newer)
    assert [decision.stage for decision in decisions] == list(STAGES)
    for decision in decisions:
        assert decision.why
        assert decision.runs == bool(decision.command)
    return {decision.stage: decision for decision in decisions}


def runs(decisions: Mapping[str, Decision]) -> list[str]:
    return [stage for stage, decision in decisions.items() if decision.runs]


# --- which stages run ------------------------------------------------------------------------------------------------


def test_the_first_night_does_everything() -> None:
    found = decided(found=EMPTY, earlier=())
    assert runs(found) == list(STAGES)
    assert found[CONVERT].why == "no run has done it before"
    assert found[TRAIN].why == "its input is made by a stage before it"


def test_a_night_without_news_does_nothing() -> None:
    found = decided()
    assert runs(found) == []
    assert {decision.of_run for decision in found.values()} == {"one"}
    assert found[TRAIN].why == "nothing has changed since run one did it"
    third = run_of("three", began="2026-12-02")
    skipped = {
        stage: StageRecord(state="skipped", why="", inputs=dict(d.inputs or {}), outputs=dict(d.outputs), of_run="one")
        for stage, d in found.items()
    }
    again = decided(settings("three"), own=third, earlier=(run_of("two", skipped),))  # the record of `one` is gone
    assert runs(again) == []
    assert again[TRAIN].of_run == "one"


GATE = {TRAIN: ("--epoch=5",), PROMOTE: ("--min_top_1=0.5",)}


@pytest.mark.parametrize(
    ("one", "found", "first", "others"),
    [
        (settings(), {"files": {CONVERT: "new", FREEZE: "frozen files"}}, CONVERT, list(STAGES[2:])),
        (settings(), {"files": {CONVERT: "files", FREEZE: "new"}}, FREEZE, [VERIFY, EVALUATE, EXPORT, PROMOTE]),
        (settings(learned=("epoch=6",)), {}, TRAIN, [EVALUATE, EXPORT, PROMOTE]),
        (settings(recipe="hanzi"), {}, TRAIN, [EVALUATE, EXPORT, PROMOTE]),
        (settings(flags={TRAIN: ("--epoch=5", "--save_steps=9"), PROMOTE: ("--min_top_1=0.9",)}), {}, "", []),
        (settings(flags={**GATE, EVALUATE: ("--batch_size=2",)}), {}, EVALUATE, [EXPORT, PROMOTE]),
        (settings(flags={**GATE, EXPORT: ("--top_k=2",)}), {}, EXPORT, [PROMOTE]),
        (settings(flags=GATE), {}, PROMOTE, []),
    ],
)
def test_a_change_is_followed_by_what_may_follow_from_it(
    one: Settings, found: dict[str, Any], first: str, others: list[str]
) -> None:
    decisions = decided(one, dataclasses.replace(PROMOTED, **found))
    assert runs(decisions) == ([first] if first else []) + others
    if first:
        assert decisions[first].why.startswith("since run one other ")


@pytest.mark.parametrize("gone", STAGES)
def test_what_is_not_there_any_more_is_made_again(gone: str) -> None:
    decisions = decided(is_there=lambda stage, before: stage != gone)
    assert runs(decisions)[0] == gone
    assert decisions[gone].why == "what run one made is not there any more, or is another one by now"


@pytest.mark.parametrize("at", STAGES)
def test_a_run_that_was_killed_goes_on_where_it_was(at: str) -> None:
    one = settings("two")
    done = stages_done(one)
    begun = dataclasses.replace(CONVERTED, datasets={}, charset=None) if at == CONVERT else CONVERTED
    before = {stage: done[stage] for stage in STAGES[: STAGES.index(at)]}
    at_work = StageRecord(state="begun", why="", inputs=done[at].inputs, command=[at])
    decisions = decided(one, begun, own=run_of("two", {**before, at: at_work}), earlier=())
    assert runs(decisions) == list(STAGES[STAGES.index(at) :])
    assert decisions[at].why == "it was begun, and did not end"
    assert all(decisions[stage].why == "done by this run already" for stage in before if at != TRAIN)


@pytest.mark.parametrize(
    ("code", "goes_on"), [(75, True), (143, True), (71, True), (65, False), (78, False), (1, False)]
)
def test_files_that_come_after_training_has_begun_are_for_the_next_run(code: int, goes_on: bool) -> None:
    one = settings()
    stages = stages_done(one, until=VERIFY)
    stages[TRAIN] = StageRecord(state="failed", why="", exit_code=code, inputs={"dataset": "data", "flags": "x"})
    news = dataclasses.replace(CONVERTED, files={CONVERT: "more", FREEZE: "frozen files"})
    decisions = decided(one, news, own=run_of("two", stages), earlier=())
    assert (CONVERT not in runs(decisions)) == goes_on
    assert TRAIN in runs(decisions)
    if goes_on:
        assert decisions[CONVERT].why == "this run's training has begun: later files are for the next run"
        assert VERIFY not in runs(decisions)


def test_a_run_whose_dataset_has_changed_since_it_was_stopped_goes_on_with_the_new_one() -> None:
    one = settings()
    stages = stages_done(one, until=VERIFY)
    inputs = inputs_of(TRAIN, one, CONVERTED, OUTPUTS)
    stages[TRAIN] = StageRecord(state="begun", why="", inputs=inputs or {}, command=["train", "--checkpoint_path=/old"])
    own = run_of("two", stages)
    assert "--change_settings" not in decided(one, own=own, earlier=())[TRAIN].command
    other = dataclasses.replace(PROMOTED, datasets={CONVERT: "grown", FREEZE: "frozen"})
    command = decided(one, other, own=own, earlier=())[TRAIN].command
    assert "--change_settings" in command
    assert "--checkpoint_path=/old" in command
    changed = settings(learned=("epoch=9",))
    assert "--change_settings" not in decided(changed, other, own=own, earlier=())[TRAIN].command  # `train` refuses it


# --- command lines ---------------------------------------------------------------------------------------------------


def test_the_command_lines_of_a_first_night() -> None:
    one = settings(
        "two:1",
        flags={CONVERT: ("--compact",), FREEZE: ("--compact",), TRAIN: ("--epoch=5",)},
        recipe="hanzi",
        master="local[4]",
        process=("--quiet",),
    )
    lines = {stage: " ".join(decision.command) for stage, decision in decided(one, EMPTY, earlier=()).items()}
    data = "--dataset_dir=/work/dataset"
    tail = "--master=local[4] --quiet"
    assert lines == {
        CONVERT: f"convert --gnt_dir=/gnt {data} --dataset_split_name=train --compact {tail}",
        FREEZE: f"convert --gnt_dir=/frozen {data} --dataset_split_name=frozen --compact {tail}",
        VERIFY: f"verify {data} {tail}",
        TRAIN: f"train {data} --dataset_split_name=train --train_dir=/work/runs/two=3A1 --recipe=hanzi "
        f"--epoch=5 {tail}",
        EVALUATE: f"evaluate {data} --dataset_split_name=frozen --train_dir=/work/runs/two=3A1 --quiet",
        EXPORT: "export --train_dir=/work/runs/two=3A1 --export_dir=/work/staged/two=3A1 "
        "--checkpoint=/work/runs/two=3A1/checkpoints/step-… --quiet",
        PROMOTE: "promote --registry_dir=/models --export_dir=/work/staged/two=3A1/… "
        "--predictions=/work/runs/two=3A1/evaluation/step-…-frozen.npz --quiet",
    }


def test_what_another_run_has_trained_is_evaluated_there_and_staged_here() -> None:
    decisions = decided(settings(flags={**GATE, EVALUATE: ("--top_k=2",)}))
    assert "--train_dir=/work/runs/one" in decisions[EVALUATE].command
    assert "--train_dir=/work/runs/one" in decisions[EXPORT].command
    assert "--export_dir=/work/staged/two" in decisions[EXPORT].command
    gate = decided(settings(flags=GATE))[PROMOTE].command
    assert gate[2:4] == ("--export_dir=/work/staged/one/1", "--predictions=/work/runs/one/evaluation/p.npz")


@pytest.mark.parametrize(
    ("one", "promoted", "begins_with"),
    [
        (settings(), None, None),
        (settings(), CURRENT, CURRENT.checkpoint),
        (settings(from_scratch=True), CURRENT, None),
        (settings(own_start=True), CURRENT, None),
        (settings(), dataclasses.replace(CURRENT, has_checkpoint=False), None),
        (settings(), dataclasses.replace(CURRENT, charset="other"), None),
    ],
)
def test_training_begins_with_the_promoted_model(
    one: Settings, promoted: Promoted | None, begins_with: str | None
) -> None:
    found = dataclasses.replace(PROMOTED, promoted=promoted, files={CONVERT: "new", FREEZE: "frozen files"})
    words = [word for word in decided(one, found)[TRAIN].command if word.startswith("--checkpoint_path=")]
    assert words == ([] if begins_with is None else [f"--checkpoint_path={begins_with}"])


def test_a_frozen_set_that_is_accepted_loses_what_is_gone() -> None:
    found = dataclasses.replace(PROMOTED, files={CONVERT: "files", FREEZE: "other"})
    assert "--prune" in decided(settings(accept_frozen_set=True), found)[FREEZE].command
    assert "--prune" not in decided(found=found)[FREEZE].command


# --- runs of the past ------------------------------------------------------------------------------------------------


def test_an_older_run_does_not_promote_by_itself() -> None:
    found = dataclasses.replace(PROMOTED, files={CONVERT: "new", FREEZE: "frozen files"})
    decisions = decided(found=found, newer="one")
    assert not decisions[PROMOTE].runs
    assert decisions[PROMOTE].why == "run one, which is newer, was promoted; --promote_older lets the gate decide"
    assert decisions[EXPORT].runs


def test_the_run_that_was_promoted_is_the_one_that_made_the_current_version() -> None:
    assert plan.promoted_by([ONE], 1) is ONE
    assert plan.promoted_by([ONE], 2) is None
    assert plan.promoted_by([ONE], None) is None
    already = StageRecord(state="done", why="", outputs={**OUTPUTS[PROMOTE], "before": "1"})  # was the current one
    assert plan.promoted_by([run_of("two", {PROMOTE: already}), ONE], 1) is ONE
    assert night.end_of(already, CURRENT).decision == "kept"


@pytest.mark.parametrize(
    ("run_id", "began", "other", "other_began", "older"),
    [
        ("2026-11-01", "2026-12-02", "2026-11-30", "2026-12-01", True),  # back-filled
        ("2026-11-30", "2026-12-02", "2026-11-01", "2026-12-01", False),
        ("scheduled__2026-11-30T01:30:00+00:00", "x", "scheduled__2026-11-30T02:30:00+00:00", "x", True),
        ("20261130", "1", "2026-12-01", "0", True),
        ("red", "2026-12-01", "blue", "2026-12-02", True),
        ("red", "2026-12-02", "2026-12-31", "2026-12-01", False),
        ("2026-11-30 again", "2026-12-02", "2026-11-30", "2026-12-01", False),
    ],
)
def test_age(run_id: str, began: str, other: str, other_began: str, older: bool) -> None:
    assert is_older(run_id, began, other, other_began) is older


def test_what_looks_like_a_date_and_is_none() -> None:
    assert date_of("run-20269999") is None
    assert date_of("build 123456789") is None


# --- names -----------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1), st.text(min_size=1))
def test_each_run_id_has_a_name_of_its_own_that_every_file_system_takes(one: str, other: str) -> None:
    for name in map(encoded, (one, other)):
        assert re.fullmatch(r"[A-Za-z0-9=-][A-Za-z0-9._=-]{0,119}", name)
    assert (encoded(one) == encoded(other)) == (one == other)


def test_names_of_run_ids() -> None:
    assert encoded("2026-12-01") == "2026-12-01"
    assert encoded("manual__2026-12-01T00:00:00+00:00") == "manual__2026-12-01T00=3A00=3A00=2B00=3A00"
    assert encoded("../x") == "=2E.=2Fx"
    assert encoded("_lock") == "=5Flock"
    assert len(encoded("夜" * 99)) == 120


# --- the frozen set --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gnt_dir", "eval_gnt_dir", "is_refused"),
    [
        ("/gnt", "/gnt", True),
        ("/gnt", "/gnt/", True),
        ("/gnt", "/gnt/test", True),
        ("/a/gnt", "/a", True),
        ("/gnt", "/gnt2", False),
    ],
)
def test_the_frozen_set_is_apart(gnt_dir: str, eval_gnt_dir: str, is_refused: bool) -> None:
    if not is_refused:
        return frozen_set.require_apart(gnt_dir, eval_gnt_dir)
    with pytest.raises(SettingsError) as raised:
        frozen_set.require_apart(gnt_dir, eval_gnt_dir)
    assert raised.value.exit_code == 78
    return None


def files(folder: Path, **contents: bytes) -> list[SourceFile]:
    folder.mkdir()
    found = []
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        found.append(SourceFile(name, str(folder / name), len(data), 1.0))
    return found


def test_a_file_of_the_frozen_set_is_not_trained_on_under_another_name(tmp_path: Path) -> None:
    trained = files(tmp_path / "gnt", a=b"aaaa", b=b"bbb", empty=b"")
    frozen_set.require_unseen(trained, files(tmp_path / "frozen", c=b"cccc", d=b"ddddddd", empty=b""))
    with pytest.raises(SettingsError, match=r"the same bytes as .*gnt/a, which is trained on") as raised:
        frozen_set.require_unseen(trained, files(tmp_path / "other", c=b"cccc", e=b"aaaa"))
    assert (raised.value.exit_code, raised.value.place) == (78, f"--eval_gnt_dir: {tmp_path}/other/e")


def test_a_frozen_set_with_other_files_must_be_accepted() -> None:
    converted = [source(name="a", size_bytes=1), source(name="b", size_bytes=2), source(name="c", size_bytes=3)]
    now = [SourceFile("a", "/a", 1, 9.0), SourceFile("b", "/b", 9, 1.0), SourceFile("d", "/d", 3, 1.0)]
    assert frozen_set.changes(now, converted) == ["d is new", "c is gone", "b has another size"]
    with pytest.raises(SettingsError, match="d is new, c is gone, b has another size"):
        frozen_set.require_same(settings(), now, converted)
    frozen_set.require_same(settings(accept_frozen_set=True), now, converted)
    frozen_set.require_same(settings(), now[:1], converted[:1])


@pytest.mark.parametrize(
    ("change", "accepted"),
    [({"charset": "other"}, {"accept_charset": True}), ({"frozen": "other"}, {"accept_frozen_set": True})],
)
def test_what_the_gate_would_refuse_is_refused_before_training(
    change: dict[str, str], accepted: dict[str, bool]
) -> None:
    found = dataclasses.replace(PROMOTED, promoted=dataclasses.replace(CURRENT, **change))
    with pytest.raises(SettingsError, match="accept"):
        frozen_set.require_comparable(settings(), found)
    frozen_set.require_comparable(settings(**accepted), found)
    frozen_set.require_comparable(settings(), PROMOTED)
    frozen_set.require_comparable(settings(), CONVERTED)
