"""`clean` on folders: what goes, what stays, and that a kill at any moment leaves nothing half there."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit import manifests as example_manifests
from tests.unit import small_checkpoints, small_registry
from tests.unit.clockwork import Clockwork
from tests.unit.small_registry import offer, served
from tfos_job import cli, lock_file, storage
from tfos_job.cleaning.plan import DAY_S
from tfos_job.config import CleanConfig, RollbackConfig
from tfos_job.config.defaults import EVENTS
from tfos_job.errors import BadDataError, BusyError, JobError, MissingInputError, SettingsError
from tfos_job.formats.charset import Charset
from tfos_job.layout import DatasetLayout, ExportLayout, RegistryLayout, RunLayout
from tfos_job.lease import Lease
from tfos_job.local_jobs import clean as clean_module
from tfos_job.local_jobs.clean import clean, raise_if_busy
from tfos_job.local_jobs.rollback import rollback
from tfos_job.run import checkpoints, exports, model_registry
from tfos_job.storage.local import Local
from tfos_job.submit import environment

NOW_S = time.time()


def aged(folder: Path, age_days: float) -> Path:
    """Gives a file, or all in a folder, the time of that age."""
    time_s = NOW_S - age_days * DAY_S
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time_s, time_s), follow_symlinks=False)
    return folder


def make_run(root: Path, name: str, age_days: float, step: int = 20) -> Path:
    run = RunLayout(str(root / name))
    small_checkpoints.publish(run, step)
    storage.write_json(run.config, {"dataset_dir": "/data", "dataset_split_name": "train"})
    storage.write_json(run.report, {"state": "finished", "step": step})
    storage.make_dirs(run.attempts_dir)
    storage.write_json(run.attempt(1), {"attempt": 1})
    return aged(root / name, age_days)


def contents(root: Path) -> dict[str, bytes | None]:
    """All below a folder, folders as None."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(root.rglob("*"))
    }


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def gone(result: Mapping[str, Any]) -> set[str]:
    return {Path(item["path"]).name for item in result["items"] if item["decision"] in ("remove", "removed")}


def why(result: Mapping[str, Any], name: str) -> str:
    (reason,) = {item["reason"] for item in result["items"] if Path(item["path"]).name == name}
    return str(reason)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four runs of 1 to 4 days, and others beside them."""
    root = tmp_path / "work"
    for age_days in (1, 2, 3, 4):
        make_run(root, f"run-{age_days}", age_days)
    (root / "gnt").mkdir()
    (root / "gnt" / "001.gnt").write_bytes(b"glyphs")
    (root / "notes.txt").write_text("mine")
    return root


# --- runs ------------------------------------------------------------------------------------------------------------


def test_without_remove_nothing_is_changed(runs: Path) -> None:
    before = contents(runs)
    found = clean(CleanConfig(runs_dir=str(runs), keep_runs=2))
    assert contents(runs) == before
    assert gone(found) == {"run-3", "run-4"}
    assert (found["dry_run"], found["num_removable"], found["num_removed"], found["bytes_freed"]) == (True, 2, 0, 0)
    *table, end = clean_module.lines(found)
    assert len(table) == 7
    assert end.startswith("2 would be removed, ")


def test_old_runs_go_and_nothing_else(runs: Path) -> None:
    sizes = {
        name: sum(path.stat().st_size for path in (runs / name).rglob("*") if path.is_file()) for name in names(runs)
    }
    before = contents(runs)
    found = clean(CleanConfig(runs_dir=str(runs), keep_runs=2, remove=True))
    assert names(runs) == {"run-1", "run-2", "gnt", "notes.txt"}
    assert contents(runs) == {
        path: data for path, data in before.items() if path.partition("/")[0] not in ("run-3", "run-4")
    }
    assert (found["num_removed"], found["bytes_freed"]) == (2, sizes["run-3"] + sizes["run-4"])
    assert found["bytes_removable"] == found["bytes_freed"]
    assert gone(found) == {"run-3", "run-4"}
    assert why(found, "gnt") == "not known"
    again = clean(CleanConfig(runs_dir=str(runs), keep_runs=2, remove=True))
    assert (again["num_removable"], again["num_busy"]) == (0, 0)
    raise_if_busy(again)


def test_a_run_that_has_changed_lately_is_new_whatever_its_name_is(runs: Path) -> None:
    aged(runs / "run-4", 0.1)
    assert gone(clean(CleanConfig(runs_dir=str(runs), keep_runs=1))) == {"run-1", "run-2", "run-3"}
    assert gone(clean(CleanConfig(runs_dir=str(runs), keep_runs=1, older_than_days=2.5))) == {"run-3"}


def test_links_are_not_followed_and_what_is_not_known_keeps_its_run(runs: Path, tmp_path: Path) -> None:
    outside = make_run(tmp_path / "elsewhere", "run-9", 9)
    (runs / "linked").symlink_to(outside)
    (runs / "broken").symlink_to(tmp_path / "nowhere")
    shutil.rmtree(runs / "run-4" / "checkpoints")
    (runs / "run-4" / "checkpoints").symlink_to(outside / "checkpoints")
    (runs / "run-3" / "evaluation").mkdir()
    (runs / "run-3" / "evaluation" / "thoughts.md").write_text("mine")
    (runs / f"_run-8.{'0' * 32}.tmp").symlink_to(outside)
    os.mkfifo(runs / "fifo")
    before, before_outside = contents(runs), contents(outside)
    found = clean(CleanConfig(runs_dir=str(runs), keep_runs=1, remove=True))
    assert gone(found) == {"run-2"}
    assert why(found, "run-4") == "in it checkpoints is a link"
    assert why(found, "run-3") == "in it is what no command makes: evaluation/thoughts.md"
    assert why(found, "linked") == "a link, which is not followed"
    assert contents(outside) == before_outside
    assert contents(runs) == {path: data for path, data in before.items() if path.partition("/")[0] != "run-2"}


def test_a_folder_of_another_program_is_no_run(runs: Path) -> None:
    (runs / "app").mkdir()
    for text in ("{}", "[]", '{"name": "app"}', "not JSON", ""):
        (runs / "app" / "config.json").write_text(text)
        aged(runs / "app", 99)
        assert "app" not in gone(clean(CleanConfig(runs_dir=str(runs), keep_runs=1)))


def test_a_run_in_use_is_skipped(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CleanConfig(runs_dir=str(runs), keep_runs=3, remove=True)
    with Lease(str(runs / "run-4" / "_lock"), "tfos-job train"):
        for is_seen in (True, False):  # false: it begins behind the look
            if not is_seen:
                monkeypatch.setattr(lock_file, "held_by", lambda path: "")
            before = contents(runs)
            found = clean(config)
            assert "tfos-job train" in why(found, "run-4")
            assert contents(runs) == before
            assert (found["num_removed"], found["num_busy"]) == (0, 1)
            with pytest.raises(BusyError, match="nothing was removed: ") as busy:
                raise_if_busy(found)
            assert busy.value.exit_code == 75
        monkeypatch.undo()
        raise_if_busy(clean(CleanConfig(runs_dir=str(runs), keep_runs=3)))  # a dry run needs no lock
        found = clean(CleanConfig(runs_dir=str(runs), keep_runs=2, remove=True))
        assert gone(found) == {"run-3"}
        raise_if_busy(found)
    assert gone(clean(config)) == set()
    assert gone(clean(CleanConfig(runs_dir=str(runs), keep_runs=2, remove=True))) == {"run-4"}


def test_two_at_once_exclude_each_other(runs: Path) -> None:
    with Lease(str(runs / "_lock"), "tfos-job clean"):
        found = clean(CleanConfig(runs_dir=str(runs), keep_runs=2, remove=True))
    assert (found["num_removed"], found["num_busy"]) == (0, 2)
    assert "run-4" in names(runs)


def test_the_command_writes_a_table_and_json(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["clean", "--runs_dir", str(runs), "--keep_runs", "3"]
    assert cli.main(words) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["num_removable"] == 1
    assert "not among the newest 3" in err
    assert "--remove does it" in err
    with Lease(str(runs / "run-4" / "_lock"), "tfos-job train"):
        assert cli.main([*words, "--remove"]) == 75
    assert cli.main([*words, "--remove"]) == 0
    assert "1 removed" in capfd.readouterr().err
    assert "run-4" not in names(runs)


def test_what_killed_commands_have_left_goes(runs: Path) -> None:
    token = "0123456789abcdef" * 2
    (runs / f"_run-0.{token}.tmp" / "checkpoints").mkdir(parents=True)
    (runs / f"_mine.{token}.tmp").write_text("a file may still be written")
    (runs / "_building-mine").mkdir()
    locks = {f"_lock.{token}.stale", f"__lock.{token}.tmp", f"___lock.{token}.tmp.{token}.tmp"}
    for name in locks:
        (runs / name).write_text("{}")
    config = CleanConfig(runs_dir=str(runs), keep_runs=9, remove=True)
    assert gone(clean(config)) == {f"_run-0.{token}.tmp"}  # somebody may be about to take the lock
    for name in locks:
        aged(runs / name, 1)
    assert gone(clean(config)) == locks
    assert {f"_mine.{token}.tmp", "_building-mine", "run-4"} <= names(runs)


def test_two_flags_may_name_one_folder_or_one_within_the_other(runs: Path, tmp_path: Path) -> None:
    for at, name in enumerate("ab"):
        made = small_registry.model(tmp_path, name)
        aged(shutil.copytree(made.export_dir, runs / name), 9 - at)
    make_dataset(runs / "data")
    found = clean(
        CleanConfig(
            runs_dir=str(runs),
            keep_runs=3,
            export_dir=f"{runs}/",
            keep_exports=1,
            dataset_dir=str(runs / "data"),
            remove=True,
        )
    )
    assert gone(found) == {"run-4", "a"} | DEAD
    assert found["num_busy"] == 0
    assert {"run-1", "run-2", "run-3", "b", "data", "gnt", "notes.txt"} == names(runs)
    assert len(found["items"]) == len({item["path"] for item in found["items"]})


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["runs_dir", "export_dir", "registry_dir", "dataset_dir", "hdfs_dir"])
@pytest.mark.parametrize("what", ["nothing", "strangers", "a run", "a file"])
def test_a_folder_of_another_kind_is_refused(flag: str, what: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    if what == "strangers":
        (root / "photos").mkdir(parents=True)
        (root / "7").mkdir()
        (root / "7" / "export.txt").write_text("mine")
        (root / "letter.txt").write_text("mine")
    elif what == "a run":
        make_run(tmp_path, "root", 99)
    elif what == "a file":
        root.write_text("mine")
    before = contents(tmp_path)
    counts: dict[str, Any] = {
        "runs_dir": {"keep_runs": 1},
        "export_dir": {"keep_exports": 1},
        "registry_dir": {"keep_versions": 1},
    }
    with pytest.raises(JobError, match=f"--{flag} {root}") as refused:
        clean(CleanConfig(**{flag: str(root)}, **counts.get(flag, {}), remove=True))
    assert refused.value.exit_code == (78 if what in ("strangers", "a run") else 66)
    assert isinstance(refused.value, SettingsError | MissingInputError)
    assert contents(tmp_path) == before


def test_nothing_is_removed_anywhere_if_one_folder_is_refused(runs: Path) -> None:
    before = contents(runs)
    with pytest.raises(SettingsError):
        clean(CleanConfig(runs_dir=str(runs), keep_runs=1, hdfs_dir=str(runs / "gnt"), remove=True))
    assert contents(runs) == before


# --- exports and the registry ----------------------------------------------------------------------------------------


def publish_exports(tmp_path: Path, root: Path, count: int) -> None:
    root.mkdir()
    for number in range(1, count + 1):
        made = small_registry.model(tmp_path / "made", f"{number}")
        document = exports.read(exports.resolve(made.export_dir)).document
        exports.publish(ExportLayout(str(root)), f"{tmp_path}/made/{number}-files", document)


def test_old_versions_of_an_export_go(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    publish_exports(tmp_path, root, 4)
    (root / "7").mkdir()
    (root / "7" / "saved_model.pb").write_bytes(b"of another program")
    (root / "2" / "notes.txt").write_text("mine")
    (root / "_building-0123").mkdir()
    (root / "_building-0123" / "saved_model.pb").write_bytes(b"half")
    config = CleanConfig(export_dir=str(root), keep_exports=1, remove=True)
    found = clean(config)
    assert gone(found) == {"1", "3", "_building-0123"}
    assert names(root) == {"2", "4", "7"}
    assert why(found, "2") == "in it is what no command makes: notes.txt"
    with Lease(ExportLayout(str(root)).lock, "tfos-job export"):
        (root / "2" / "notes.txt").unlink()
        found = clean(config)
    assert (found["num_removed"], found["num_busy"]) == (0, 1)
    assert names(root) == {"2", "4", "7"}


def test_a_damaged_version_stays(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    publish_exports(tmp_path, root, 2)
    (root / "1" / "export.json").write_text("{}")
    found = clean(CleanConfig(export_dir=str(root), keep_exports=1, remove=True))
    assert gone(found) == set()
    assert why(found, "1").startswith("damaged: ")


def test_folders_of_exports_go_as_a_whole_but_for_what_the_registry_was_made_from(tmp_path: Path) -> None:
    staged, registry_dir = tmp_path / "staged", str(tmp_path / "models")
    for at, name in enumerate("abcd"):
        made = small_registry.model(staged, name)
        shutil.rmtree(staged / f"{name}-files")
        shutil.move(made.predictions, tmp_path / f"{name}.npz")
        aged(staged / name, 10 - at)
    for name in "ab":
        candidate = small_registry.SmallModel(str(staged / name), str(tmp_path / f"{name}.npz"), "")
        offer(registry_dir, candidate)
    config = CleanConfig(export_dir=str(staged), keep_exports=1, registry_dir=registry_dir, remove=True)
    (staged / "b").rename(staged / "renamed")
    found = clean(config)
    assert names(staged) == {"a", "renamed", "d"}
    assert why(found, "a") == "version 1 of the registry was made from it"
    assert why(found, "renamed") == "version 2 of the registry was made from it"
    assert served(registry_dir) == small_registry.digest_of("b")
    assert gone(clean(CleanConfig(export_dir=str(staged), keep_exports=1))) == {"a", "renamed"}


def test_the_runs_of_current_and_of_what_rollback_needs_stay(tmp_path: Path) -> None:
    registry_dir, root = str(tmp_path / "models"), tmp_path / "runs"
    for at, name in enumerate("abcd"):
        run = make_run(root, f"run-{name}", 10 - at, step=20 + at)
        checkpoint = RunLayout(str(run)).checkpoint(20 + at)
        digest = checkpoints.verify(checkpoint).document["document_sha256"]
        changes = {"checkpoint_digest": digest} if name == "c" else {"checkpoint": checkpoint}  # "c" was moved since
        offer(registry_dir, small_registry.model(tmp_path, name, **changes))
    make_run(root, "run-e", 1)
    config = CleanConfig(runs_dir=str(root), keep_runs=1, registry_dir=registry_dir, keep_versions=1)
    (tmp_path / "link").symlink_to(root)
    found = clean(dataclasses.replace(config, runs_dir=str(tmp_path / "link")))
    assert gone(found) == {"run-a", "run-b", "1", "2"}
    found = clean(config)
    assert gone(found) == {"run-a", "run-b", "1", "2"}
    assert why(found, "run-d") == "version 4 of the registry was made from it"
    assert why(found, "run-c") == "version 3 of the registry was made from it"


def test_current_its_parent_and_what_rollback_goes_back_to_stay(tmp_path: Path) -> None:
    registry_dir = str(tmp_path / "models")
    for name in "abcd":
        offer(registry_dir, small_registry.model(tmp_path, name))
    rollback(RollbackConfig(registry_dir=registry_dir, reason="it was wrong"))
    assert served(registry_dir) == small_registry.digest_of("c")
    history_before = contents(tmp_path / "models" / "history")
    config = CleanConfig(registry_dir=registry_dir, keep_versions=1, remove=True)
    found = clean(config)
    assert gone(found) == {"1", "3"}
    assert {name: why(found, name) for name in "245"} == {
        "5": "the current one",
        "4": "the parent of the current one",
        "2": "`rollback` goes back to it",
    }
    assert contents(tmp_path / "models" / "history") == history_before
    back = rollback(RollbackConfig(registry_dir=registry_dir, reason="worse still"))
    assert (back["version"], back["restores"]) == (6, 2)
    assert served(registry_dir) == small_registry.digest_of("b")
    assert offer(registry_dir, small_registry.model(tmp_path, "e"))["version"] == 7
    assert len(model_registry.history(RegistryLayout(registry_dir))) == 7


@pytest.mark.parametrize("damaged", ["3/promotion.json", "1/promotion.json", "current", "3"])
def test_nothing_is_removed_where_nobody_knows_what_is_needed(damaged: str, runs: Path, tmp_path: Path) -> None:
    registry_dir = tmp_path / "models"
    for name in "abc":
        offer(str(registry_dir), small_registry.model(tmp_path, name))
    if damaged == "3":
        (registry_dir / "3" / "promotion.json").unlink()
    else:
        (registry_dir / damaged).write_text("{}")
    before = contents(tmp_path)
    with pytest.raises((BadDataError, SettingsError)):
        clean(CleanConfig(runs_dir=str(runs), keep_runs=1, registry_dir=str(registry_dir), remove=True))
    assert contents(tmp_path) == before


def test_a_registry_in_use_ends_it(runs: Path, tmp_path: Path) -> None:
    registry_dir = str(tmp_path / "models")
    offer(registry_dir, small_registry.model(tmp_path, "a"))
    with Lease(RegistryLayout(registry_dir).lock, "tfos-job promote"), pytest.raises(BusyError):
        clean(CleanConfig(runs_dir=str(runs), keep_runs=1, registry_dir=registry_dir, remove=True))
    assert "run-4" in names(runs)


# --- a dataset -------------------------------------------------------------------------------------------------------


def make_dataset(root: Path) -> DatasetLayout:
    """A split whose generation 1 is live, an old generation, and what killed conversions have left."""
    dataset = DatasetLayout(str(root))
    manifest = example_manifests.example(1)
    files = {
        **{f"train/{shard.file}": b"shard" for shard in manifest.shards},
        "train/gen-00000/part-0": b"old shard",
        "train/gen-00001/part-9": b"of no manifest",
        "train/_building-0123/part-0": b"half",
        f"train/_manifest.json.{'0' * 32}.tmp": b"half",
        "train/_quarantine/sub/001.gnt.json": b"{}",
        "train/_quarantine/sub/gone.gnt.json": b"{}",
        "train/notes.txt": b"mine",
        "begun/gen-00000/part-0": b"of a conversion that was killed",
        "mine/gen-00000/part-0": b"mine",
        "mine/notes.txt": b"mine",
        "statistics-train-64-pixels-0.npz": b"statistics",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    storage.write_json(dataset.charset, Charset(("一", "丁")).to_json())
    storage.write_json(dataset.split("train").manifest, manifest.to_json())
    return dataset


DEAD = {"gen-00000", "part-9", "_building-0123", f"_manifest.json.{'0' * 32}.tmp", "gone.gnt.json"}


def test_what_is_not_live_in_a_dataset_goes(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    before = contents(tmp_path)
    config = CleanConfig(dataset_dir=str(tmp_path))
    found = clean(config)
    assert gone(found) == DEAD
    assert contents(tmp_path) == before
    found = clean(CleanConfig(dataset_dir=str(tmp_path), remove=True))
    assert found["num_removed"] == 6
    left = {path for path, data in contents(tmp_path).items() if data is not None}
    assert left == {
        "charset.json",
        "mine/gen-00000/part-0",
        "mine/notes.txt",
        "statistics-train-64-pixels-0.npz",
        "train/_quarantine/sub/001.gnt.json",
        "train/gen-00001/part-0",
        "train/gen-00001/part-1",
        "train/manifest.json",
        "train/notes.txt",
    }


def test_an_old_generation_with_something_else_in_it_stays(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    (tmp_path / "train" / "gen-00000" / "notes.txt").write_text("mine")
    (tmp_path / "train" / "gen-00002").symlink_to(tmp_path / "mine")
    found = clean(CleanConfig(dataset_dir=str(tmp_path), remove=True))
    assert {"gen-00000", "gen-00002"} <= names(tmp_path / "train")
    assert why(found, "gen-00002") == "a link, which is not followed"
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_damaged_manifest_ends_it(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    Path(dataset.split("train").manifest).write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(BadDataError):
        clean(CleanConfig(dataset_dir=str(tmp_path), remove=True))
    assert contents(tmp_path) == before


def test_a_dataset_in_use_is_skipped(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    with Lease(dataset.lock, "tfos-job convert"):
        found = clean(CleanConfig(dataset_dir=str(tmp_path), remove=True))
    assert (found["num_removed"], found["num_busy"]) == (0, 6)


# --- the folder of submit --------------------------------------------------------------------------------------------


def test_what_submit_has_left_goes_by_age(tmp_path: Path) -> None:
    def write(name: str, age_days: float, text: str = "") -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        aged(path.parent if path.parent.parent.name == EVENTS else path, age_days)

    write("outcomes/application_1_0001.json", 40, '{"exit_code": 0}')
    write("outcomes/application_1_0002.json", 20, '{"exit_code": 71}')
    write("outcomes/notes.json", 99)
    write("spark-events/eventlog_v2_application_1_0001_1/events_1_application_1_0001_1.zstd", 40)
    write("spark-events/eventlog_v2_application_1_0002_1/events_1_application_1_0002_1.zstd", 20)
    write("spark-events/eventlog_v2_application_1_0003_1/notes.txt", 40)
    shipped = environment.plan(str(tmp_path), python=False)  # the names that this version makes
    write(Path(shipped.package).name, 35)
    write(Path(shipped.spark_archive).name, 99)
    write("tfos_job-000000000000.zip", 99)
    write("environment-000000000000.tar.gz", 99)
    write("Python.zip", 99)
    write("submissions/night/train/submission.json", 99, "{}")
    config = CleanConfig(hdfs_dir=str(tmp_path), remove=True)
    dead = {"application_1_0001.json", "eventlog_v2_application_1_0001_1", "tfos_job-000000000000.zip"}
    write("outcomes/application_1_0004.json", 1, '{"exit_code": null}')
    assert gone(clean(CleanConfig(hdfs_dir=str(tmp_path)))) == dead - {"tfos_job-000000000000.zip"}
    write("outcomes/application_1_0004.json", 1, '{"exit_code": 0}')
    assert gone(clean(config)) == dead
    assert gone(clean(CleanConfig(hdfs_dir=str(tmp_path), keep_logs_days=10))) == {
        "application_1_0002.json",
        "eventlog_v2_application_1_0002_1",
    }
    assert "application_1_0004.json" not in "".join(clean_module.lines(clean(CleanConfig(hdfs_dir=str(tmp_path)))))
    assert {"Python.zip", "outcomes", "spark-events", "submissions", Path(shipped.package).name} <= names(tmp_path)


# --- killed anywhere -------------------------------------------------------------------------------------------------


def make_runs(root: Path) -> CleanConfig:
    for age_days in (1, 2, 3):
        make_run(root, f"run-{age_days}", age_days)
    return CleanConfig(runs_dir=str(root), keep_runs=1, remove=True)


def make_staged(root: Path) -> CleanConfig:
    for at, name in enumerate("ab"):
        made = small_registry.model(root.parent / "made", name)
        shutil.copytree(made.export_dir, root / name)
        aged(root / name, 10 - at)
    return CleanConfig(export_dir=str(root), keep_exports=1, remove=True)


def make_registry(root: Path) -> CleanConfig:
    for name in "abcd":
        offer(str(root), small_registry.model(root.parent / "made", name))
    return CleanConfig(registry_dir=str(root), keep_versions=1, remove=True)


def make_old_generation(root: Path) -> CleanConfig:
    make_dataset(root)
    shutil.rmtree(root / "train" / "_building-0123")
    return CleanConfig(dataset_dir=str(root), remove=True)


def visible(root: Path) -> dict[str, dict[str, bytes | None]]:
    """What readers take for runs, exports, versions and generations: each with its contents, but for locks."""
    folders = [path for path in (*root.iterdir(), *root.glob("*/gen-00000")) if path.is_dir()]
    return {
        str(folder.relative_to(root)): {name: data for name, data in contents(folder).items() if "_lock" not in name}
        for folder in folders
        if not folder.name.startswith("_") and folder.name not in ("train", "begun", "mine")
    }


def remove_piece_by_piece(backend: Local, path: str) -> None:
    """`Local.remove`, in which a process may be killed between any two files of a folder."""
    if os.path.isdir(path) and not os.path.islink(path):
        for name in sorted(os.listdir(path)):
            backend.remove(f"{path}/{name}")
        os.rmdir(path)
    else:
        os.unlink(path)


@pytest.mark.parametrize(
    ("make", "num_visible"),
    [
        (make_runs, {1, 2, 3}),
        (make_staged, {1, 2}),
        (make_registry, {3, 4, 5}),  # with the history
        (make_old_generation, {1, 2, 3}),
    ],
)
def test_a_cleaning_that_is_killed_before_any_change_and_run_again(
    make: Callable[[Path], CleanConfig], num_visible: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Local, "remove", remove_piece_by_piece)
    clockwork = Clockwork(monkeypatch)
    root, template = tmp_path / "root", tmp_path / "template"
    config = make(root)
    whole = visible(root)
    root.rename(template)
    ends, numbers, fatal = [], set(), 0
    while True:
        shutil.copytree(template, root)
        with clockwork.counting(fatal):
            clean(config)
        if fatal > clockwork.num_changes:
            break
        if fatal:
            for lock in [*root.rglob("_lock")]:  # those of the killed process, which this one is
                lock.unlink()
            seen = visible(root)
            assert all(whole[name] == inside for name, inside in seen.items())  # whole or not there
            numbers.add(len(seen))
            clean(config)
        ends.append({name: data for name, data in contents(root).items() if "_lock" not in name})
        shutil.rmtree(root)
        fatal += 1
    assert fatal > 15
    assert all(end == ends[0] for end in ends)
    assert not [name for name in ends[0] if name.endswith(".tmp")]
    assert numbers == num_visible
