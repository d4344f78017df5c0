from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.small_checkpoints import META, arrays, flip_byte, publish, record_evaluation, step_names
from tfos_job import storage
from tfos_job.errors import BadDataError, BusyError, DivergedError, MissingInputError
from tfos_job.layout import RunLayout
from tfos_job.lease import Lease
from tfos_job.lock_file import require
from tfos_job.run import checkpoint_files, checkpoints
from tfos_job.run.retention import Retention


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return RunLayout(str(tmp_path / "run"))


def rewrite_with_nan(folder: Path) -> None:
    """A checkpoint whose digests are all right, around a number that is not one."""
    path, document_path = folder / checkpoint_files.VARIABLES_FILE, folder / checkpoint_files.DOCUMENT_FILE
    values = arrays(3)
    values["model/fc1/kernel"][1, 2] = np.nan
    np.savez(path, allow_pickle=False, **values)
    document = json.loads(document_path.read_text("utf-8"))
    data = path.read_bytes()
    document["files"] = {path.name: {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    document["document_sha256"] = checkpoint_files.document_digest(document)
    document_path.write_text(json.dumps(document), "utf-8")


def rewrite_document(change: dict[str, Any]) -> Callable[[Path], object]:
    """With its own digest, which anybody can compute."""

    def rewrite(folder: Path) -> None:
        path = folder / checkpoint_files.DOCUMENT_FILE
        document = json.loads(path.read_text("utf-8")) | change
        document["document_sha256"] = checkpoint_files.document_digest(document)
        path.write_text(json.dumps(document), "utf-8")

    return rewrite


TEARS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no variables": (lambda folder: (folder / "variables.npz").unlink(), "variables.npz is missing"),
    "cut off": (lambda folder: (folder / "variables.npz").write_bytes(b"PK"), "variables.npz has 2 bytes, expected"),
    "flipped byte": (lambda folder: flip_byte(folder / "variables.npz"), "does not have the SHA-256"),
    "no document": (lambda folder: (folder / "checkpoint.json").unlink(), "checkpoint.json is missing"),
    "cut document": (lambda folder: (folder / "checkpoint.json").write_text('{"step": 3'), "is not JSON"),
    "edited document": (
        lambda folder: (folder / "checkpoint.json").write_text(
            (folder / "checkpoint.json").read_text("utf-8").replace('"step": 3', '"step": 4'), "utf-8"
        ),
        "does not have its own digest",
    ),
    "no files": (rewrite_document({"files": {}}), "file variables.npz is missing"),
    "other files": (rewrite_document({"files": [1]}), "'files' is list"),
    "odd file": (rewrite_document({"files": {"variables.npz": 1}}), "file variables.npz: is no object"),
    "no step": (rewrite_document({"step": None}), "'step' is NoneType"),
    "endless": (lambda folder: (folder / "checkpoint.json").write_text("[" * 200_000), "nested too deeply"),
    "NaN": (rewrite_with_nan, "model/fc1/kernel is not finite"),
}


def test_what_is_published_comes_back_bit_for_bit(run: RunLayout) -> None:
    path = checkpoints.publish(run, 3, arrays(3), META)
    info = checkpoints.resolve(run, "last")
    assert (info.path, info.step, info.characters, info.model) == (path, 3, "一丁", META["model"])
    loaded = checkpoints.load(info)
    assert loaded.keys() == arrays(3).keys()
    for name, array in arrays(3).items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)
    with np.load(Path(path) / "variables.npz", allow_pickle=False) as archive:  # as anybody else would read it
        np.testing.assert_array_equal(archive["model/fc1/kernel"], arrays(3)["model/fc1/kernel"])
    assert step_names(run) == ["step-00000003"]


def test_the_same_variables_give_the_same_bytes(run: RunLayout) -> None:
    first = Path(checkpoints.publish(run, 3, arrays(3), META))
    second = Path(checkpoints.publish(RunLayout(run.root + "-again"), 3, arrays(3), META))
    assert (first / "variables.npz").read_bytes() == (second / "variables.npz").read_bytes()


def test_variables_that_are_not_finite_are_not_published(run: RunLayout) -> None:
    broken = arrays(3) | {"optimizer/m": np.array([0, np.inf], np.float32)}
    with pytest.raises(DivergedError, match="optimizer/m is not finite at step 3"):
        checkpoints.publish(run, 3, broken, META)
    assert not Path(run.checkpoints_dir).exists()


def test_a_step_that_is_there_is_left_as_it_is_and_a_damaged_one_makes_way(run: RunLayout) -> None:
    folder = Path(checkpoints.publish(run, 3, arrays(3), META))
    before = (folder / "checkpoint.json").stat().st_ino
    publish(run, 3)
    assert (folder / "checkpoint.json").stat().st_ino == before
    flip_byte(folder / "variables.npz")
    publish(run, 3)
    checkpoints.verify(str(folder))
    aside, stands = step_names(run)
    assert (aside.startswith("_damaged-step-00000003-"), stands) == (True, "step-00000003")


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_checkpoint_is_named_and_never_chosen(
    run: RunLayout, tear: str, caplog: pytest.LogCaptureFixture
) -> None:
    publish(run, 1, 3)
    damage, fact = TEARS[tear]
    damage(Path(run.checkpoint(3)))
    with pytest.raises(BadDataError, match=fact) as caught:
        checkpoints.verify(run.checkpoint(3))
    assert run.checkpoint(3) in str(caught.value)
    found = checkpoints.latest(run)
    assert found is not None
    assert found.step == 1
    assert run.checkpoint(3) in caplog.text
    with pytest.raises(BadDataError, match=fact):
        checkpoints.resolve(run, run.checkpoint(3))


def test_best_is_by_validation_top_1_and_the_later_of_equals(run: RunLayout) -> None:
    publish(run, 1, 2, 3, 4)
    storage.write_json(run.config, {"validation_split_name": "val"})
    with pytest.raises(MissingInputError, match=r"no checkpoint that .* step-00000004, step-00000003"):
        checkpoints.resolve(run, "best")
    for step, top_1 in ((1, 0.5), (2, 0.7), (3, 0.7), (4, 0.6), (9, 0.9)):
        record_evaluation(run, step, "val", top_1)
    record_evaluation(run, 4, "test", 1.0)  # another split has no say
    assert checkpoints.resolve(run, "best").step == 3
    # Version 0.1's `evaluate --top_k 3,5` wrote none; and what is damaged keeps nobody from saving.
    for step, text in ((1, '{"top_3": 0.9}'), (4, "{")):
        Path(run.evaluation(step, "val")).write_text(text)
    assert checkpoints.resolve(run, "best").step == 3
    flip_byte(Path(run.checkpoint(3)) / "variables.npz")
    assert checkpoints.resolve(run, "best").step == 2


def test_what_is_asked_for_and_not_there_is_said_with_what_is(run: RunLayout) -> None:
    assert checkpoints.latest(run) is None
    with pytest.raises(MissingInputError, match="no such folder"):
        checkpoints.resolve(run, "last")
    Path(run.root).mkdir()
    with pytest.raises(MissingInputError, match="there is nothing"):
        checkpoints.resolve(run, "last")
    with pytest.raises(MissingInputError, match="elsewhere"):
        checkpoints.resolve(run, "/elsewhere/step-00000001")


def test_nothing_is_published_by_one_who_has_lost_the_lock(run: RunLayout) -> None:
    with Lease(run.lock, "train") as first:
        publish(run, 1)
        storage.write_json(run.lock, {"owner": "another", "token": "another"})
        guard = functools.partial(require, run.lock, first.token, "train")
        with pytest.raises(BusyError, match=r"train lost its lock: another .* has taken it over"):
            checkpoints.publish(run, 2, arrays(2), META, guard)
    assert step_names(run) == ["step-00000001"]


# --- beside a training -----------------------------------------------------------------------------------------------


@pytest.fixture
def goes_on(run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A training that has published three more checkpoints whenever somebody has read the document of one."""
    read, documents = storage.read_json, []

    def read_and_go_on(path: str) -> Any:
        value = read(path)
        if path.endswith(checkpoint_files.DOCUMENT_FILE) and len(documents) < 3:
            documents.append(path)
            with monkeypatch.context() as patch:
                patch.setattr(storage, "read_json", read)
                publish(run, *(100 * len(documents) + step for step in (1, 2, 3)))
                Retention(run, keep_last=2).apply()
        return value

    monkeypatch.setattr(storage, "read_json", read_and_go_on)
    return documents


def test_what_answers_reads_the_network_alone_and_proves_all_of_it(run: RunLayout) -> None:
    moments = {"optimizer/adam/fc1/kernel_momentum": np.ones((3, 4), np.float32)}
    path = checkpoints.publish(run, 1, {**arrays(1), **moments}, META)
    info, values = checkpoints.read_network(run, "last")
    assert (info.step, set(values)) == (1, set(arrays(1)))
    file = Path(path) / checkpoint_files.VARIABLES_FILE
    data = bytearray(file.read_bytes())
    at = data.index(np.ones(3, np.float32).tobytes())  # of the optimizer
    data[at] ^= 1
    file.write_bytes(data)
    with pytest.raises(BadDataError, match="does not have the SHA-256"):
        checkpoints.read_network(run, path)


def test_the_last_one_is_the_one_that_is_there_when_it_is_read(run: RunLayout, goes_on: list[str]) -> None:
    publish(run, 1)
    info, values = checkpoints.read(run, "last")
    assert len(goes_on) == 3
    assert (info.step, int(values["global_step"])) == (303, 303)
    assert checkpoints.latest(run) == info


def test_the_best_one_is_the_one_that_is_there_when_it_is_read(run: RunLayout, goes_on: list[str]) -> None:
    storage.make_dirs(run.root)
    storage.write_json(run.config, {"validation_split_name": "test"})
    publish(run, 1)
    for step, top_1 in ((1, 0.1), (101, 0.2), (201, 0.3), (301, 0.4)):
        record_evaluation(run, step, "test", top_1)
    info, values = checkpoints.read(run, "best")
    assert (info.step, int(values["global_step"])) == (301, 301)


def test_one_that_is_asked_for_by_its_path_and_gone_by_then_is_missing(run: RunLayout, goes_on: list[str]) -> None:
    publish(run, 1)
    with pytest.raises(MissingInputError, match="step-00000001: the checkpoint is gone: a training removes") as caught:
        checkpoints.resolve(run, run.checkpoint(1))
    assert caught.value.exit_code == 66


def test_one_that_is_gone_after_it_was_verified_is_missing(run: RunLayout) -> None:
    publish(run, 1, 2)
    info = checkpoints.verify(run.checkpoint(1))
    Retention(run, keep_last=1).apply()
    with pytest.raises(MissingInputError, match="the checkpoint is gone"):
        checkpoints.load(info)
