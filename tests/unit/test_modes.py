"""What is written has the modes of the umask: who may read a folder may read all of it, and nobody else writes."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit import small_runs
from tests.unit.manifests import example
from tests.unit.small_checkpoints import record_evaluation
from tests.unit.test_generation import build
from tests.unit.test_gnt_shard import task, whole, write_gnt
from tfos_job import cli, storage
from tfos_job.config import EvaluateConfig, ExportConfig, SynthConfig
from tfos_job.conversion import gnt_shard
from tfos_job.layout import ExportLayout, RunLayout, SplitLayout
from tfos_job.lease import Lease
from tfos_job.local_jobs import report
from tfos_job.local_jobs.evaluate import evaluate
from tfos_job.local_jobs.export import export
from tfos_job.local_jobs.synth import synthesize
from tfos_job.run import summary
from tfos_job.serve import access_log
from tfos_job.submit import environment
from tfos_job.training.summaries import _Uploader


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def write_all(root: Path) -> None:
    """One of everything that commands leave on a disk."""
    work = task(root, whole(write_gnt(root / "1.gnt", "啊阿!")))
    gnt_shard.convert_group(work)
    build(SplitLayout(str(root / "split")), example())
    synthesize(SynthConfig(gnt_dir=str(root / "gnt"), num_writers=1, charset_size=2))
    run = small_runs.make(root / "made", 20)
    folders = {"train_dir": run.train_dir, "dataset_dir": run.dataset_dir}
    evaluate(EvaluateConfig(**folders, dataset_split_name=small_runs.SPLIT))
    record_evaluation(RunLayout(run.train_dir), small_runs.STEP, "test", 0.5)
    export(ExportConfig(train_dir=run.train_dir, export_dir=str(root / "exports")))
    storage.write_json(RunLayout(run.train_dir).report, {"state": "finished"})
    report.write_page(run.train_dir, summary.read(run.train_dir), str(root / "report.html"), None, "")
    uploader = _Uploader(str(root / "summaries"), "train")
    (uploader.folder / "events").write_bytes(b"events")
    uploader.close()
    log = access_log.opened(str(root / "access.log"), print)
    log.add(began_s=time.monotonic(), method="GET")
    log.close(60)
    storage.create_exclusive(str(root / "created"), b"")
    (root / "cache").mkdir()


def test_everything_has_the_modes_of_the_umask(umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    root.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("TFOS_JOB_CACHE", str(root / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    write_all(root)
    environment.package_zip()
    found = list(root.rglob("*"))
    assert len(found) > 40
    for path in found:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert oct(stat.S_IMODE(path.stat().st_mode)) == oct(expected), path.relative_to(root)
    assert not list(scratch.glob("tfos_job*"))  # TensorFlow has files of its own there


def test_a_lock_and_what_is_under_it_too(umask: int, tmp_path: Path) -> None:
    export = ExportLayout(str(tmp_path / "e"))
    storage.make_dirs(export.root)
    with Lease(export.lock, "somebody"):
        assert stat.S_IMODE(os.stat(export.lock).st_mode) == 0o666 & ~umask


def test_no_command_writes_what_all_others_may_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert cli.main(["synth", "--gnt_dir", str(tmp_path / "gnt"), "--num_writers", "1", "--charset_size", "1"]) == 0
    finally:
        os.umask(before)
    found = [tmp_path / "gnt", *(tmp_path / "gnt").iterdir()]
    assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in found] == ["0o775", *["0o664"] * (len(found) - 1)]


def test_folders_for_a_while_are_for_their_owner_alone_and_cannot_be_guessed(tmp_path: Path) -> None:
    """In /tmp anybody may make a link of a name that he knows before."""
    first, second = _Uploader(str(tmp_path / "s"), "train"), _Uploader(str(tmp_path / "s"), "train")
    assert first.folder != second.folder
    for uploader in (first, second):
        assert stat.S_IMODE(uploader.folder.stat().st_mode) == 0o700
        assert str(os.getpid()) not in uploader.folder.name.removeprefix("tfos_job-summaries-train-")
        uploader.close()


def test_what_is_written_follows_no_link_that_lies_there(tmp_path: Path) -> None:
    """A file replaces the link; what it leads to stays as it is."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"as it was")
    link.symlink_to(target)
    storage.write_bytes(str(link), b"new")
    assert (link.is_symlink(), link.read_bytes(), target.read_bytes()) == (False, b"new", b"as it was")
