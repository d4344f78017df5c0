"""Where a run begins, and what is refused: of the flags, the dataset and what the run's folder holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.unit.dataset import config, data, folder
from tfos_job.config import TrainConfig
from tfos_job.errors import (
    BadDataError,
    BusyError,
    JobError,
    NodeDiedError,
    ResourceError,
    SettingsError,
    StorageError,
)
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.folder import RunFolder
from tfos_job.run.start import Start, decide, start_of

STEP = "/run/checkpoints/step-00000007"
MADE = config()


def checkpoint(
    records_read: list[int], settings: TrainConfig = MADE, path: str = STEP, **changes: Any
) -> CheckpointInfo:
    """Of a run with two workers that read files."""
    made = data(settings)
    document = {
        "step": 7,
        "model": dataclasses.asdict(made.model),
        "charset_digest": made.charset.digest,
        "dataset_digest": made.train.manifest.digest,
        "input_position": {"records_read": records_read, "order": made.order},
    }
    return CheckpointInfo(path, document | changes)


def begun(**changes: Any) -> RunFolder:
    """Of a run with a checkpoint."""
    committed = data().train.manifest.digest
    return folder(**{"settings": MADE, "checkpoints": (STEP,), "committed_digest": committed, **changes})


def start(settings: TrainConfig, found: RunFolder, info: CheckpointInfo | None) -> Start:
    return start_of(settings, data(settings), found, decide(settings, found), info)


# --- which checkpoint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restore", "found", "expected"),
    [
        ("auto", folder(), None),
        ("none", folder(), None),
        ("/elsewhere/step-00000003", folder(), "/elsewhere/step-00000003"),
        ("auto", begun(), None),
        # The same command once more, or YARN's second attempt of it: the run that it began goes on.
        ("/elsewhere", begun(settings=dataclasses.replace(MADE, restore="/elsewhere")), None),
        ("/elsewhere", begun(is_next_attempt=True), None),
        ("none", begun(is_next_attempt=True), None),
    ],
)
def test_the_checkpoint_to_begin_with(restore: str, found: RunFolder, expected: str | None) -> None:
    assert decide(config(restore=restore), found).restore == expected


@pytest.mark.parametrize(
    ("restore", "next_step"), [("none", "or leave out --restore to resume"), ("/elsewhere", "or --overwrite")]
)
def test_a_run_that_has_begun_does_not_begin_with_another_checkpoint(restore: str, next_step: str) -> None:
    with pytest.raises(SettingsError, match="/run has checkpoints already") as caught:
        decide(config(restore=restore), begun(settings=dataclasses.replace(MADE, restore="none")))
    assert caught.value.place == f"--restore {restore}"
    assert caught.value.next_step.endswith(next_step)


def test_fresh_variables_begin_at_step_0() -> None:
    fresh = Start(checkpoint=None, step=0, positions=(0, 0), records={"seen_twice": 0, "skipped": 0})
    assert start(config(), folder(), None) == start(config(overwrite=True), folder(clear=True), None) == fresh


def test_a_run_of_which_no_checkpoint_verifies_does_not_begin_again() -> None:
    with pytest.raises(BadDataError, match="none of the 1 checkpoints verifies"):
        start(config(), begun(), None)


def test_a_checkpoint_from_elsewhere_must_be_of_an_earlier_step_than_the_last() -> None:
    flags: dict[str, Any] = {"restore": "/elsewhere"}
    info = checkpoint([130, 120], path="/elsewhere")
    assert start(config(**flags), folder(), info).step == 7
    with pytest.raises(SettingsError, match="the checkpoint is of step 7, and the run ends at step 7"):
        start(config(**flags, max_number_of_steps=7), folder(), info)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 24}, "image_size 16 → 24"),
        ({"keep_prob": 0.5}, "keep_prob 0.8 → 0.5"),
        ({"learning_rate": 1.0}, "learning_rate 0.0002 → 1"),
        ({"random_zoom": 0.1, "max_number_of_steps": 7}, "random_zoom 0 → 0.1"),
        ({"dataset_split_name": "test"}, "dataset_split_name train → test"),
        ({"normalization": "pca"}, r"normalization none → pca.*give another --train_dir$"),
    ],
)
def test_another_recipe_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        decide(config(**changes), begun())
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 24}, "images 16 × 16 × 1"),
        ({"trainable_scopes": "fc3"}, "made with trainable scopes all"),
        ({"normalization": "pca"}, "made with normalization none, .* normalization pca with epsilon 0.01"),
    ],
)
def test_what_the_variables_do_not_fit_is_refused_though_it_is_asked_for(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        start(config(**changes, change_settings=True), begun(), checkpoint([130, 120]))


def test_whitening_has_its_epsilon() -> None:
    zca = config(normalization="zca", whitening_epsilon=0.05)
    info = checkpoint([130, 120], normalization={"kind": "zca", "epsilon": 0.05, "digest": "s"})
    assert start(zca, begun(settings=zca), info).checkpoint is info
    other = dataclasses.replace(zca, whitening_epsilon=0.1, change_settings=True)
    with pytest.raises(SettingsError, match=r"zca with epsilon 0\.05, .* zca with epsilon 0\.1"):
        start(other, begun(settings=zca), info)


def test_a_run_goes_on_with_what_it_was_committed_to() -> None:
    """Though the checkpoint that it goes on from is of other data, or another dropout."""
    other_data = checkpoint([130, 120], dataset_digest="d" * 64)
    assert start(config(), begun(), other_data).records is None
    other_dropout = checkpoint([130, 120], config(keep_prob=0.5))
    assert start(config(), begun(), other_dropout).step == 7
    # A checkpoint from elsewhere must have both.
    with pytest.raises(SettingsError, match=r"made with network chinese_rec .*, keep_prob 0\.5, asked"):
        start(config(restore="/elsewhere"), folder(), other_dropout)
    with pytest.raises(SettingsError, match="made with dataset dddddddddddd, asked"):
        start(config(), begun(committed_digest="d" * 64), other_data)
    assert start(config(change_settings=True), begun(committed_digest="d" * 64), other_data).step == 7


def test_another_charset_is_refused() -> None:
    with pytest.raises(SettingsError, match="made with charset "):
        start(config(), begun(), checkpoint([130, 120], charset_digest="c" * 64))


def test_a_run_whose_settings_are_gone_does_not_go_on_with_others() -> None:
    with pytest.raises(SettingsError, match="its settings are gone"):
        decide(config(), begun(settings=None))
    wanted = config(change_settings=True)
    assert decide(wanted, begun(settings=None)).changes == []
    assert start(wanted, begun(settings=None), checkpoint([130, 120])).step == 7


def test_changes_are_named(caplog: pytest.LogCaptureFixture) -> None:
    stored = dataclasses.replace(MADE, dataset_dir="/before", checkpoint_path="/weights")
    found = decide(config(num_gpus=1, restore="auto"), begun(settings=stored)).changes
    assert [str(change) for change in found] == ["dataset_dir /before → /data", "num_gpus 0 → 1"]
    assert caplog.text == ""  # --checkpoint_path was not given again
    decide(config(checkpoint_path="/others"), begun(settings=stored))
    assert "--checkpoint_path /others is ignored: the run has begun" in caplog.text


# --- other refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("exit_code", "kind"), [(65, BadDataError), (78, SettingsError)])
def test_what_has_failed_for_good_is_not_run_again_by_yarn(exit_code: int, kind: type[JobError]) -> None:
    cause = {"fact": "torn", "place": "there", "next_step": "Mend it"}
    report = {"state": "failed", "exit_code": exit_code, "first_cause": cause}
    with pytest.raises(kind, match=r"^there: torn"):
        decide(config(), folder(report=report, is_next_attempt=True))
    decide(config(), folder(report=report))  # by the user


def test_what_may_go_well_another_time_is_run_again_by_yarn() -> None:
    cause = {"fact": "killed", "place": "there", "next_step": ""}
    for kind in (NodeDiedError, ResourceError):
        report = {"state": "failed", "exit_code": kind.exit_code, "first_cause": cause}
        decide(config(), begun(report=report, is_next_attempt=True))


@pytest.mark.parametrize("kind", [NodeDiedError, StorageError, BusyError])
def test_a_run_that_has_used_up_its_restarts_is_not_run_again_by_yarn(kind: type[JobError]) -> None:
    cause = {"fact": "killed", "place": "there", "next_step": ""}
    report = {"state": "failed", "exit_code": kind.exit_code, "first_cause": cause}
    given_up = report | {"attempts": [{"gave_up": False}, {"gave_up": True}]}
    with pytest.raises(kind, match=r"^there: killed"):
        decide(config(), begun(report=given_up, is_next_attempt=True))
    decide(config(), begun(report=given_up))  # by the user
    decide(config(), begun(report=report | {"attempts": [{"gave_up": False}]}, is_next_attempt=True))
    decide(config(), begun(report=report, is_next_attempt=True))  # it had no attempt, or has lost Spark's JVM


def test_weights_in_the_folder_that_is_cleared() -> None:
    with pytest.raises(SettingsError, match="is in the folder that --overwrite clears"):
        decide(config(checkpoint_path=STEP, overwrite=True), folder(clear=True))
    decide(config(checkpoint_path="/running/step-00000007", overwrite=True), folder(clear=True))


@pytest.mark.parametrize(
    ("changes", "found", "expected"),
    [
        ({}, folder(), False),
        ({"model_name": "mine:build"}, folder(), True),
        ({"trainable_scopes": "fc3"}, folder(), True),
        ({"checkpoint_path": "/weights"}, folder(), True),
        ({"model_name": "mine:build"}, begun(settings=config(model_name="mine:build")), False),
    ],
)
def test_the_network_is_tried_where_it_is_new_and_not_plain(
    changes: dict[str, Any], found: RunFolder, expected: bool
) -> None:
    assert decide(config(**changes), found).may_not_build is expected


# --- the input's position ---------------------------------------------------------------------------------------------


def go_on(now: dict[str, Any], info: CheckpointInfo) -> Start:
    settings = config(**now)
    return start_of(settings, data(settings), begun(), decide(settings, begun(settings=settings)), info)


@pytest.mark.parametrize(
    ("now", "read", "positions", "seen_twice", "skipped"),
    [
        ({}, [130, 120], (130, 120), 0, 0),
        ({"input_mode": "preloaded"}, [130, 120], (100, 100), 50, 0),
        ({"seed": 1}, [50, 50], (50, 50), 0, 0),  # at an epoch's border another order costs nothing
        ({"num_executors": 2}, [140, 70], (200,), 40, 30),  # the second worker was still in the epoch before
        ({"num_executors": 5}, [60, 50], (40, 30, 20, 10), 10, 0),
        ({"seed": 1}, [], (0, 0), 0, 0),
    ],
)
def test_what_a_resumption_shows_twice_or_skips(
    now: dict[str, Any], read: list[int], positions: tuple[int, ...], seen_twice: int, skipped: int
) -> None:
    found = go_on(now, checkpoint(read))
    assert sorted(found.positions) == sorted(positions)
    assert found.records == ({"seen_twice": seen_twice, "skipped": skipped} if read else None)


def test_a_buffer_of_another_size_matters_to_files_alone() -> None:
    preloaded = {"input_mode": "preloaded"}
    assert go_on({"shuffle_buffer": 5}, checkpoint([130, 120])).positions == (100, 100)
    found = go_on({"shuffle_buffer": 5, **preloaded}, checkpoint([130, 120], config(**preloaded)))
    assert found.positions == (130, 120)


def test_of_other_data_nothing_was_seen_or_skipped() -> None:
    found = go_on({}, checkpoint([130, 120], dataset_digest="d" * 64))
    assert (found.positions, found.records) == ((100, 100), None)
