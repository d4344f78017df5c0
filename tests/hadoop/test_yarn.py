"""`tfos-job submit` on a live YARN: whole commands in cluster mode, everything on HDFS, and what goes wrong there."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.command import ENDLESS, SMALL, StartCommand, Submission, Submit
from tests.hadoop.conftest import Hadoop, client_mode, upload
from tests.ports import free_port_range
from tfos_job import storage
from tfos_job.config import SynthConfig
from tfos_job.layout import DatasetLayout, RunLayout, checkpoint_step
from tfos_job.local_jobs.synth import synthesize
from tfos_job.outcome import outcome_path
from tfos_job.submit import environment, run_record
from tfos_job.submit.main import main

pytestmark = pytest.mark.hadoop

# There is no GPU here: Spark's resource API and YARN's accounting are real, what the script finds is not.
DISCOVERY = '#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0"]}\'\n'


# --- convert ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conversions:
    """Two applications that ran side by side: one that nobody waited for, and one whose file is cut.

    Attributes:
      dataset: what the first one made, once `detached_end` is there.
      detached: submitted from a wheel.
      detached_end, outcome: what YARN and the first application itself say of its end.
      victim: the name of the cut file.
      spoilt_dataset: what the second one was to make.
    """

    dataset: str
    detached: Submission
    detached_end: dict[str, Any]
    outcome: dict[str, Any]
    victim: str
    spoilt: Submission
    spoilt_dataset: str


@pytest.fixture(scope="module")
def gnt_dir(hadoop: Hadoop, small_dataset: Path) -> str:
    """GNT files of 8 synthetic writers on HDFS."""
    return upload(small_dataset.parent / "gnt" / "train", f"{hadoop.url}/yarn/gnt")


@pytest.fixture(scope="module")
def conversions(
    hadoop: Hadoop, ship_dir: str, gnt_dir: str, from_wheel: type[Submission], tmp_path_factory: pytest.TempPathFactory
) -> Conversions:
    local = tmp_path_factory.mktemp("spoilt")
    synthesize(SynthConfig(gnt_dir=str(local), charset_size=5, num_writers=2))
    victim = min(local.glob("*.gnt"))
    victim.write_bytes(victim.read_bytes()[:-7])
    spoilt_gnt = upload(local, f"{hadoop.url}/yarn/spoilt-gnt")
    dataset, spoilt_dataset = f"{hadoop.url}/yarn/dataset", f"{hadoop.url}/yarn/spoilt"
    with contextlib.ExitStack() as stack:
        words = ("convert", "--gnt_dir", gnt_dir, "--dataset_dir", dataset, "--charset_size", 10)
        detached = from_wheel(*words, "--detach")
        stack.callback(detached.end)
        assert detached.wait() == 0, detached.stderr
        words = ("convert", "--gnt_dir", spoilt_gnt, "--dataset_dir", spoilt_dataset, "--charset_size", 5)
        spoilt = Submission(*words)
        stack.callback(spoilt.end)
        spoilt.wait()
    return Conversions(
        dataset=dataset,
        detached=detached,
        detached_end=hadoop.wait_for_end(detached.application),
        outcome=storage.read_json(outcome_path(f"{ship_dir}/outcomes", detached.application)),
        victim=victim.name,
        spoilt=spoilt,
        spoilt_dataset=spoilt_dataset,
    )


def test_a_detached_submission_ends_and_its_application_goes_on(conversions: Conversions) -> None:
    assert conversions.detached.stdout == f"{conversions.detached.application}\n"
    assert " RUNNING" not in conversions.detached.stderr  # nobody has followed it
    assert conversions.detached_end["finalStatus"] == "SUCCEEDED"
    assert conversions.outcome["exit_code"] == 0
    (result,) = conversions.outcome["results"]
    assert result["num_records"] == 80
    assert storage.exists(DatasetLayout(conversions.dataset).split("train").manifest)


def test_bad_data_comes_back_with_its_code_and_its_place(hadoop: Hadoop, conversions: Conversions) -> None:
    spoilt = conversions.spoilt
    assert spoilt.wait() == 65, spoilt.stderr
    assert conversions.victim in spoilt.stderr
    assert "byte" in spoilt.stderr
    assert not storage.exists(DatasetLayout(conversions.spoilt_dataset).split("train").manifest)
    assert "65" in hadoop.application(spoilt.application)["diagnostics"]


def test_a_submission_whose_submitter_is_killed_twice(
    hadoop: Hadoop,
    ship_dir: str,
    gnt_dir: str,
    hdfs_dir: str,
    submit: Submit,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While spark-submit is on its way, and while the application is at work: it stays one, and its results come."""
    run_id, dataset = "manual__2026-11-29T00:00:00+00:00", f"{hdfs_dir}/dataset"
    words = ("convert", "--gnt_dir", gnt_dir, "--dataset_dir", dataset, "--charset_size", 10, "--run_id", run_id)
    path = f"{run_record.folder(ship_dir, run_id, 'convert')}/submission.json"

    def record() -> dict[str, Any]:
        return storage.read_json(path) if storage.exists(path) else {}

    first = submit(*words)
    first.wait_until(lambda: record().get("spark_submit"))
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert record()["application"] == ""
    tagged = f"?applicationTags={record()['tag']}"
    second = submit(*words)
    second.wait_for_line(", submitted before: nothing is submitted now")
    (application,) = hadoop.applications(tagged)
    assert f"is at work as {application}, submitted before" in second.stderr
    second.send_signal(signal.SIGKILL)
    assert second.wait() == -signal.SIGKILL
    third = submit(*words)
    assert third.wait() == 0, third.stderr
    assert third.result()["num_records"] == 80
    assert storage.exists(DatasetLayout(dataset).split("train").manifest)
    assert main([*map(str, words)]) == 0
    assert capsys.readouterr().out == third.stdout
    assert main([*map(str, words), "--prune"]) == 78
    assert hadoop.applications(tagged) == [application] == [record()["application"]]


# --- train and evaluate ----------------------------------------------------------------------------------------------


def report_of(train_dir: str) -> dict[str, Any]:
    path = RunLayout(train_dir).report
    return storage.read_json(path) if storage.exists(path) else {}


def allocated(hadoop: Hadoop, application: str) -> dict[str, int]:
    """What YARN counts for an application now."""
    app = hadoop.application(application)
    resources = app.get("resourceInfo", {}).get("resourceUsagesByPartition", [{}])[0]
    entries = resources.get("used", {}).get("resourceInformations", {}).get("resourceInformation", [])
    entries = entries if isinstance(entries, list) else [entries]
    return {entry["name"]: entry["value"] for entry in entries} | {"containers": app["runningContainers"]}


def training(dataset: str, train_dir: str, *more: object) -> tuple[object, ...]:
    return ("train", "--dataset_dir", dataset, "--train_dir", train_dir, *SMALL, *more)


def checkpoint_steps(train_dir: str) -> list[int]:
    names = [entry.name for entry in storage.list_dir(RunLayout(train_dir).checkpoints_dir)]
    return sorted(step for name in names if (step := checkpoint_step(name)) is not None)


def kill_driver(application: str, attempt: int) -> None:
    container = f"{application.replace('application', 'container')}_{attempt:02d}_000001"
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            is_driver = any("ApplicationMaster" in word for word in process.info["cmdline"] or [])
            if is_driver and process.environ().get("CONTAINER_ID") == container and process.name() == "java":
                process.kill()
                return
    raise AssertionError(f"no driver of {container}")


@pytest.fixture
def discovery(tmp_path: Path) -> Path:
    script = tmp_path / "discover.sh"
    script.write_text(DISCOVERY)
    script.chmod(0o755)
    return script


@pytest.mark.timeout(1800)
def test_the_whole_job(
    hadoop: Hadoop,
    conversions: Conversions,
    ship_dir: str,
    hdfs_dir: str,
    discovery: Path,
    submit: Submit,
    start: StartCommand,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """convert (the fixture), train, evaluate. The training outlives its driver, ends with its submission, and goes on.

    Beside it there is then another one in the same range of ports, whose driver is here.
    """
    dataset, run, beside = conversions.dataset, f"{hdfs_dir}/run", f"{hdfs_dir}/beside"
    ports = ("--port_range", "{}-{}".format(*free_port_range(40)))
    # The cache holds less than all shards: each epoch brings some of them again.
    files = ("--input_mode", "files", "--cache_gb", "0.0002", "--validation_split_name", "train", "--eval_steps", 0)
    options = training(dataset, run, *ports, *files)

    # The worker has a GPU, and the parameter server none: it is beside the driver.
    own_script = ("--", "--files", discovery, "--conf", "spark.executor.resource.gpu.discoveryScript=./discover.sh")
    gpu = ("--num_gpus", 1, "--allow_cpu")
    first = submit(*options, *ENDLESS, "--save_steps", 20, *gpu, *own_script)
    first.wait_for_line(f"checkpoint {run}/checkpoints/step-")
    assert_is_accounted(hadoop, first.application, run)
    kill_driver_and_wait_for_the_next(first, run)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 143, first.stderr
    assert hadoop.wait_for_end(first.application)["state"] == "KILLED"

    # Its ports are free again, and are taken by a training whose driver is here, until another one has come and gone.
    settings = {
        "spark.executor.instances": "1",
        "spark.executor.memory": "512m",
        "spark.executor.memoryOverhead": "2g",
        "spark.executor.resource.gpu.amount": "1",
        "spark.task.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": str(discovery),
    }
    followed = start("report", beside, "--follow")
    followed.wait_for_line("no run there yet")
    with monkeypatch.context() as environ:
        for name, value in client_mode(settings, environment.prepare(ship_dir)).items():
            environ.setenv(name, value)
        outer = start(*training(dataset, beside, *ports), *ENDLESS, *gpu, "--master", "yarn")
    outer.wait_for_step()
    # The run would go on with a GPU; now it does by all-reduce of two workers, without a parameter server.
    reached = max(checkpoint_steps(run))
    together = ("--num_gpus", 0, "--num_ps_tasks", 0, "--change_settings")
    inner = submit(*options, *together, "--max_number_of_steps", reached + 100)
    assert inner.wait() == 0, inner.stderr
    outer.send_signal(signal.SIGTERM)
    assert outer.wait() == 143, outer.stderr
    assert report_of(beside)["step"] == max(checkpoint_steps(beside)) > 0
    assert followed.wait() == 143, followed.stderr
    assert ": loss " in followed.stderr
    assert followed.result()["state"] == "interrupted"
    assert inner.result()["step"] == reached + 100 == max(checkpoint_steps(run))
    assert storage.list_dir(f"{run}/summaries/train")
    latest = report_of(run)["attempts"][-1]
    assert latest["start_step"] >= reached
    assert latest["application"] == inner.application != first.application
    assert report_of(run)["wire"]["engine"] == "all_reduce"

    evaluated = submit("evaluate", *options[1:5], "--dataset_split_name", "train", "--queue", "gpu")
    assert evaluated.wait() == 0, evaluated.stderr
    assert evaluated.result()["num_examples"] == report_of(run)["metrics"]["num_examples"] == 80
    assert evaluated.result()["loss"] == pytest.approx(report_of(run)["metrics"]["loss"], rel=1e-4)
    assert evaluated.result()["top_1"] > 0.5  # 0.1 is chance
    # The font has travelled, too.
    assert "confusions.png" in {entry.name for entry in storage.list_dir(evaluated.result()["pictures"])}
    assert_is_read_on_the_cluster(submit, run, hdfs_dir)

    assert_logs_are_kept(hadoop, inner.application)

    before = hadoop.applications()
    assert main([*map(str, options), "--max_number_of_steps", str(reached + 100)]) == 0
    assert "is finished. Nothing to do" in caplog.text
    assert hadoop.applications() == before


def assert_is_read_on_the_cluster(submit: Submit, run: str, hdfs_dir: str) -> None:
    """Both at once: a page of the run on HDFS, and the class of a picture there, beside one that is missing."""
    page, picture, missing = (f"{hdfs_dir}/{name}" for name in ("pages/night.html", "pictures/box.png", "no.png"))
    png = io.BytesIO()
    Image.fromarray(np.pad(np.zeros((40, 8), np.uint8), 8, constant_values=255)).save(png, "PNG")
    storage.make_dirs(f"{hdfs_dir}/pictures")
    storage.write_bytes(picture, png.getvalue())
    reported = submit("report", run, "--html", page)
    predicted = submit("predict", "--train_dir", run, missing, f"{hdfs_dir}/pictures")
    assert reported.wait() == 0, reported.stderr
    assert reported.result()["missing"] == []
    assert reported.result()["num_pictures"] == 10
    text = storage.read_bytes(page).decode("utf-8")
    assert f"<title>{run}: finished</title>" in text
    assert len(text.encode("utf-8")) == reported.result()["size_bytes"]
    assert predicted.wait() == 66, predicted.stderr
    lines = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert [line["image"] for line in lines] == [missing, picture]
    assert "error" in lines[0]
    assert len(lines[1]["top"]) == 3


def assert_is_accounted(hadoop: Hadoop, application: str, run: str) -> None:
    """As a training with a GPU: one worker × one GPU; driver, coordinator and parameter server hold none."""
    counted = allocated(hadoop, application)
    assert (counted["yarn.io/gpu"], counted["containers"]) == (1, 2), counted
    app = hadoop.application(application)
    assert app["queue"].rpartition(".")[2] == "gpu"
    assert "tfos_job-train" in app["applicationTags"].split(",")
    assert app["name"] == f"tfos_job train {run}"


def kill_driver_and_wait_for_the_next(submission: Submission, run: str) -> None:
    reached = max(checkpoint_steps(run))
    kill_driver(submission.application, attempt=1)

    def attempts_at_work() -> list[dict[str, Any]]:
        report = report_of(run)
        *_, latest = attempts = report["attempts"]
        return attempts if len(attempts) > 1 and report["step"] > latest["start_step"] else []

    attempts = submission.wait_until(attempts_at_work)
    assert [attempt["application_attempt"] for attempt in attempts] == [1, 2]
    assert {attempt["application"] for attempt in attempts} == {submission.application}
    assert attempts[1]["start_step"] >= reached
    assert (attempts[0]["state"], attempts[1]["number"]) == ("abandoned", 2)
    submission.wait_for_line("attempt 2, driver on")


def assert_logs_are_kept(hadoop: Hadoop, application: str) -> None:
    """What `yarn logs` reads has TensorFlow's own logs beside Spark's. (The program itself is not in Spark's jars.)"""
    while not (entries := [path for path in all_files(f"{hadoop.url}/tmp/logs") if f"/{application}/" in path]):
        time.sleep(0.5)  # YARN is gathering them
    content = b"".join(map(storage.read_bytes, entries))
    for name in (b"worker-0.log", b"worker-1.log", b"coordinator.log", b"stderr"):
        assert name in content, entries


def all_files(folder: str) -> list[str]:
    if not storage.exists(folder):
        return []
    entries = storage.list_dir(folder)
    return [e.path for e in entries if not e.is_dir and not e.name.endswith(".tmp")] + [
        path for e in entries if e.is_dir for path in all_files(e.path)
    ]


def test_a_container_too_small_is_named_with_its_limit(dataset_on_hdfs: str, hdfs_dir: str, submit: Submit) -> None:
    run = f"{hdfs_dir}/run"
    submission = submit(
        *training(dataset_on_hdfs, run, *ENDLESS, "--max_restarts", 0),
        *("--", "--executor-memory", "512m", "--conf", "spark.executor.memoryOverhead=128m"),
        *("--conf", "spark.yarn.maxAppAttempts=1"),
    )
    assert submission.wait() == 71, submission.stderr
    report = report_of(run)
    assert report["exit_code"] == 71
    cause = report["first_cause"]
    assert "640 MB" in cause["fact"], cause
    assert [attempt["first_cause"]["reason"] for attempt in report["attempts"]] == ["memory"]
    assert "spark.executor.memoryOverhead" in cause["next_step"]
    last_line = submission.stderr.splitlines()[-1]
    assert last_line.startswith("tfos-job submit train: error: ")
    assert cause["fact"] in last_line
    assert "spark.executor.memoryOverhead" in last_line


# --- nothing runs ----------------------------------------------------------------------------------------------------


def test_what_is_refused_before_anything_is_submitted(
    hadoop: Hadoop, gnt_dir: str, hdfs_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = hadoop.applications()
    convert = ("convert", "--gnt_dir", gnt_dir, "--dataset_dir", f"{hdfs_dir}/dataset")
    for code, words, args in (
        (66, "no such folder", ("convert", "--gnt_dir", f"{hdfs_dir}/no", "--dataset_dir", f"{hdfs_dir}/dataset")),
        (66, "no manifest", training(f"{hdfs_dir}/dataset", f"{hdfs_dir}/run")),
        (78, "path on the disk of whichever host", ("convert", "--gnt_dir", "/gnt", "--dataset_dir", "/dataset")),
        (78, "cannot be given after", (*convert, "--", "--master", "local")),
        (2, "there is no flag --nonsense. `tfos-job convert --help` lists the flags", (*convert, "--nonsense", "3")),
    ):
        assert main([str(word) for word in args]) == code
        assert words in capsys.readouterr().err
    assert hadoop.applications() == before
    assert storage.list_dir(hdfs_dir) == []


def test_what_yarn_refuses(gnt_dir: str, hdfs_dir: str, submit: Submit) -> None:
    convert = ("convert", "--gnt_dir", gnt_dir, "--dataset_dir", f"{hdfs_dir}/dataset")
    elsewhere = submit(*convert, "--queue", "nope")
    too_large = submit(*convert, "--", "--executor-memory", "900g")
    assert elsewhere.wait() == 78, elsewhere.stderr
    assert "unknown queue: nope" in elsewhere.stderr.splitlines()[-1]
    assert too_large.wait() == 78, too_large.stderr
    assert "above the max threshold" in too_large.stderr.splitlines()[-1]


def test_a_dry_run_prints_the_line_and_changes_nothing(
    dataset_on_hdfs: str, hdfs_dir: str, submit: Submit, capsys: pytest.CaptureFixture[str]
) -> None:
    dry_run = (*training(dataset_on_hdfs, f"{hdfs_dir}/run"), "--dry-run")
    submission = submit(*dry_run)
    assert main([*map(str, dry_run), "--", "--archives", "hdfs:///Python.zip#Python"]) == 0
    line = capsys.readouterr().out
    assert "--archives 'hdfs:///Python.zip#Python'" in line
    assert "PYSPARK_PYTHON=./Python/bin/python" in line
    assert submission.wait() == 0, submission.stderr
    assert submission.stdout.startswith("spark-submit --master yarn --deploy-mode cluster")
    assert "environment-" in submission.stdout
    assert storage.list_dir(hdfs_dir) == []
