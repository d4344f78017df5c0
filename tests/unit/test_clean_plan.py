"""Which things a policy removes, what else stays and why; without a file."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tfos_job.cleaning import names
from tfos_job.cleaning.needed import needed
from tfos_job.cleaning.plan import COUNTED, DAY_S, Decision, Kind, Policy, Thing, decide
from tfos_job.config import CleanConfig
from tfos_job.errors import FlagError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.run.promotion_entry import FrozenSet, Model, PredictionsFile, PromotionEntry

NOW_S = 1_000 * DAY_S


def thing(kind: Kind, name: str, age_days: float = 100.0, **fields: Any) -> Thing:
    values = {"kind": kind, "path": f"/w/{name}", "size_bytes": 10, "time_s": NOW_S - age_days * DAY_S, "group": "/w"}
    return Thing(**values | fields)


def runs(*ages: float, **fields: Any) -> list[Thing]:
    return [thing(Kind.RUN, f"run-{age:g}", age, **fields) for age in ages]


def policy(keep: int = 2, **fields: Any) -> Policy:
    return Policy(keep=dict.fromkeys(COUNTED, keep), **fields)


def removed(decisions: list[Decision]) -> set[str]:
    return {decision.thing.path.rpartition("/")[2] for decision in decisions if decision.is_removed}


def reasons(decisions: list[Decision]) -> dict[str, str]:
    return {decision.thing.path.rpartition("/")[2]: decision.reason for decision in decisions}


# --- counted ---------------------------------------------------------------------------------------------------------


def test_the_newest_runs_stay_whatever_their_order_is() -> None:
    for order in itertools.permutations(runs(1, 2, 3, 4)):
        found = decide(order, policy(2), {}, NOW_S)
        assert [decision.thing for decision in found] == list(order)
        assert removed(found) == {"run-3", "run-4"}
    assert reasons(found)["run-1"] == "among the newest 2"
    assert reasons(found)["run-4"] == "not among the newest 2"


def test_the_newest_finished_run_stays_behind_failed_ones() -> None:
    failed = runs(1, 2, 3, is_finished=False)
    found = decide([*failed, *runs(4, 5)], policy(1), {}, NOW_S)
    assert removed(found) == {"run-2", "run-3", "run-5"}
    assert reasons(found)["run-4"] == "the newest finished one"
    assert removed(decide(failed, policy(1), {}, NOW_S)) == {"run-2", "run-3"}


def test_an_age_keeps_more_and_never_less() -> None:
    for older_than_days, gone in ((0, {"run-2", "run-30"}), (2, {"run-30"}), (1.5, {"run-2", "run-30"}), (30, set())):
        found = decide(runs(1, 2, 30), policy(1, older_than_s=older_than_days * DAY_S), {}, NOW_S)
        assert removed(found) == gone
    assert reasons(found)["run-2"] == "not older than 30 days"


def test_versions_are_as_new_as_their_numbers_are_high() -> None:
    versions = [thing(Kind.VERSION, f"{number}", number, number=number) for number in (9, 10, 11)]
    assert removed(decide(versions, policy(1), {}, NOW_S)) == {"9", "10"}


def test_kinds_and_folders_are_counted_each_by_themselves() -> None:
    of_two = [thing(Kind.EXPORT, f"{folder}-{n}", n, group=folder, number=9 - n) for folder in "ab" for n in (1, 2)]
    found = decide([*of_two, *runs(50, 51), thing(Kind.EXPORTS, "staged", 99)], policy(1), {}, NOW_S)
    assert removed(found) == {"a-2", "b-2", "run-51"}


def test_a_kind_without_a_number_stays() -> None:
    found = decide(runs(1, 2, 3), Policy(keep={Kind.EXPORT: 1}), {}, NOW_S)
    assert removed(found) == set()
    assert set(reasons(found).values()) == {"nothing is said about these"}


def test_what_is_needed_stays_besides_the_newest() -> None:
    found = decide(runs(1, 2, 3), policy(1), {"/w/run-3": "version 4 was made from it"}, NOW_S)
    assert removed(found) == {"run-2"}
    assert reasons(found)["run-3"] == "version 4 was made from it"


@pytest.mark.parametrize("kind", [*Kind])
def test_an_obstacle_keeps_everything_and_a_holder_what_would_go(kind: Kind) -> None:
    newer = [thing(kind, f"newer-{age}", age, number=99 - age) for age in (70, 80)]
    old = thing(kind, "old", 100)
    (free, *_) = decide([old, *newer], policy(1), {}, NOW_S)
    assert free.is_removed == (kind is not Kind.OTHER)
    (blocked, *_) = decide([thing(kind, "old", 100, obstacle="a link"), *newer], policy(1), {}, NOW_S)
    assert (blocked.is_removed, blocked.is_busy, blocked.reason) == (False, False, "a link")
    (held, *_) = decide([thing(kind, "old", 100, holder="train"), *newer], policy(1), {}, NOW_S)
    assert (held.is_removed, held.is_busy) == (False, free.is_removed)
    if free.is_removed:
        assert held.reason == "in use by train"


def test_what_stays_by_itself_takes_no_other_ones_place() -> None:
    found = decide([*runs(1, obstacle="damaged"), *runs(2, 3)], policy(1), {}, NOW_S)
    assert removed(found) == {"run-3"}


def test_a_run_in_use_that_would_stay_is_not_busy() -> None:
    (found,) = decide(runs(1, holder="train"), policy(1), {}, NOW_S)
    assert (found.is_removed, found.is_busy, found.reason) == (False, False, "the newest")


# --- what submit leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.OUTCOME, Kind.EVENT_LOG])
def test_logs_go_by_their_age(kind: Kind) -> None:
    found = decide([thing(kind, "a", 29), thing(kind, "b", 31)], policy(), {}, NOW_S)
    assert removed(found) == {"b"}
    assert reasons(found) == {"a": "not older than 30 days", "b": "older than 30 days"}


def test_an_archive_goes_when_a_newer_one_is_in_its_place_for_long() -> None:
    def archives(*ages: float, group: str = "package") -> list[Thing]:
        return [thing(Kind.ARCHIVE, f"{group}-{age:g}", age, group=group) for age in ages]

    assert removed(decide(archives(400, 1), policy(), {}, NOW_S)) == set()  # it was in use until yesterday
    assert removed(decide(archives(400, 31, 1), policy(), {}, NOW_S)) == {"package-400"}
    assert removed(decide([*archives(400), *archives(31, group="jars")], policy(), {}, NOW_S)) == set()
    at_work = thing(Kind.OUTCOME, "outcome", 3, is_finished=False)
    found = decide([*archives(400, 31), at_work], policy(), {}, NOW_S)
    assert removed(found) == set()
    assert reasons(found)["package-400"] == "may be in use: no end in /w/outcome"
    ended = [thing(Kind.OUTCOME, "outcome", 3), thing(Kind.OUTCOME, "killed", 31, is_finished=False)]
    assert removed(decide([*archives(400, 31), *ended], policy(), {}, NOW_S)) == {"package-400", "killed"}


def test_leftovers_go_and_strangers_stay() -> None:
    found = decide([thing(Kind.LEFTOVER, "a", 0), thing(Kind.OTHER, "b", 999)], policy(), {}, NOW_S)
    assert removed(found) == {"a"}


# --- what a registry needs -------------------------------------------------------------------------------------------


def entry(version: int = 3, **source: Any) -> PromotionEntry:
    values: dict[str, Any] = {
        "kind": "promoted",
        "version": version,
        "parent": None,
        "restores": None,
        "time": "2026-12-01T00:00:00+00:00",
        "who": {},
        "reason": "",
        "forced": False,
        "model": Model(
            digest="a" * 64, step=1, charset_digest="b" * 64, num_classes=2, top_k=1, formats=[], has_ink=False
        ),
        "frozen_set": FrozenSet(digest="c" * 64, dataset_dir="/frozen", split="test", num_records=1),
        "training": {},
        "source": source,
        "code": {},
        "environment": {},
        "flags": {},
        "metrics": {},
        "gate": None,
        "predictions": PredictionsFile(file="000003.npz", size_bytes=1, sha256="d" * 64),
        "withdrawn": {},
    }
    return PromotionEntry(**values)


@pytest.mark.parametrize(
    ("of_entry", "of_thing"),
    [
        ("hdfs:///w/runs/a/checkpoints/step-00000020", "hdfs:///w/runs/a"),
        ("hdfs://host:8020/w/runs/a/checkpoints/step-00000020", "hdfs:///w/runs/a"),
        ("hdfs:///w/runs/a", "viewfs://cluster/w/runs/a/"),
        ("/w/runs/a/checkpoints/step-00000020", "file:///w/runs/a"),
        ("file:/w/runs/a/x", "/w/runs/a"),
    ],
)
def test_a_run_is_needed_by_any_spelling_of_its_path(of_entry: str, of_thing: str) -> None:
    one = Thing(kind=Kind.RUN, path=of_thing, size_bytes=0, time_s=0)
    why = {of_thing: "version 3 of the registry was made from it"}
    assert needed([one], [entry(checkpoint=of_entry)]) == why
    assert needed([one], [entry(path=of_entry)]) == why


def test_others_are_not_needed() -> None:
    others = [Thing(kind=Kind.RUN, path=path, size_bytes=0, time_s=0) for path in ("/w/runs/a", "/w/runs/abc", "/x")]
    assert needed(others, [entry(checkpoint="/w/runs/ab/checkpoints/step-00000020", path=None)]) == {}
    assert needed(others, []) == {}


def test_what_was_moved_is_needed_by_its_digest() -> None:
    def of(digest: str) -> Thing:
        return Thing(kind=Kind.EXPORT, path=f"/{digest[0]}", size_bytes=0, time_s=0, digests=frozenset({digest}))

    found = needed([of("a" * 64), of("e" * 64), of("f" * 64)], [entry(2, checkpoint_digest="e" * 64), entry(7)])
    assert set(found) == {"/a", "/e"}
    assert found["/a"] == "version 7 of the registry was made from it"


# --- names -----------------------------------------------------------------------------------------------------------

TOKEN = "0123456789abcdef" * 2


def test_every_path_of_a_run_is_known() -> None:
    run = RunLayout("run")
    paths = [getattr(run, name) for name, each in vars(RunLayout).items() if isinstance(each, property)]
    paths += [run.attempt(1), run.checkpoint(20), run.checkpoint_building(2, TOKEN), run.summaries("train")]
    paths += [run.checkpoint_damaged("step-00000020", "20261201T000000Z"), run.summaries("validation")]
    paths += [run.evaluation(20, "test"), run.evaluation_predictions(20, "test"), run.evaluation_pictures(20, "a-b.c")]
    paths += [
        run.evaluation_building(20, "test"),
        f"{run.checkpoint(20)}/variables.npz",
        f"run/_report.json.{TOKEN}.tmp",
    ]
    paths += [f"{run.summaries('train')}/events.out.tfevents.1.host.2.0.v2", f"run/_lock.{TOKEN}.stale"]
    paths += [f"{run.evaluation_pictures(20, 'test')}/per_class.csv", f"run/checkpoints/_step-00000020.{TOKEN}.tmp/x"]
    paths.remove(run.fed_dataset)  # it may be one that a person has put there
    assert names.stranger_in_run(path.removeprefix("run/") for path in paths) == ""


@pytest.mark.parametrize(
    "path",
    [
        "notes.txt",
        "dataset",
        "config.json.bak",
        "checkpoints/mine",
        "checkpoints/step-00000020/mine.npz",
        "summaries/other",
        "evaluation/thoughts.md",
        "evaluation/step-00000020-test/page.html",
        "attempts/001.json/x",
        "_mine.tmp",
        "report.json\n",
    ],
)
def test_what_others_have_put_into_a_run_is_not(path: str) -> None:
    assert names.stranger_in_run(["config.json", path, "report.json"]) == path


def test_files_of_a_version_are_those_that_its_document_names() -> None:
    known = ["export.json", "variables/variables.index"]
    assert names.stranger_among(["export.json", "variables", "variables/variables.index"], known) == ""
    assert names.stranger_among(["export.json", "variables/mine"], known) == "variables/mine"


def test_names_of_what_submit_leaves() -> None:
    archives = {
        "environment-0123456789ab.tar.gz": "environment",
        "spark-4.3.0-jars-0123456789ab.zip": "Spark's jars",
        "tfos_job-0123456789ab.zip": "package",
        "environment.tar.gz": "",
        "Python.zip": "",
        "tfos_job-0123456789ab.zip.bak": "",
    }
    assert {name: names.archive_kind(name) for name in archives} == archives
    assert names.is_outcome("application_1_0002.json")
    assert not names.is_outcome("application.json")
    for name, is_dir in (
        ("eventlog_v2_application_1764000000000_0001_1", True),
        ("application_1764000000000_0001_1.zstd", False),
        ("application_1764000000000_0001.inprogress", False),
        (f"eventlog_v2_spark-{TOKEN}", True),
    ):
        assert names.is_event_log(name, is_dir=is_dir)
        assert not names.is_event_log(name, is_dir=not is_dir)
    assert not names.is_event_log("mine", is_dir=True)
    inside = ["appstatus_application_1_0002_1.inprogress", "events_1_application_1_0002_1.zstd"]
    assert names.stranger_in_event_log(inside) == ""
    assert names.stranger_in_event_log([*inside, "mine"]) == "mine"


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "there is nothing to clean"),
        ({"registry_dir": "r"}, "--registry_dir: there is nothing to clean"),
        ({"runs_dir": "r"}, "--runs_dir: given without --keep_runs. Say how many stay"),
        ({"export_dir": "r"}, "given without --keep_exports"),
        ({"keep_runs": 3}, "--keep_runs: given without --runs_dir"),
        ({"dataset_dir": "d", "keep_versions": 3}, "--keep_versions: given without --registry_dir"),
    ],
)
def test_a_policy_says_what_stays(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        CleanConfig(**flags)


@pytest.mark.parametrize("flags", [{"runs_dir": "r", "keep_runs": 0}, {"hdfs_dir": "h", "keep_logs_days": 0}])
def test_no_policy_keeps_nothing(flags: dict[str, Any]) -> None:
    with pytest.raises(FlagError):
        CleanConfig(**flags)
