"""`scripts/submit.sh` on a live YARN: whole commands in cluster mode, everything on HDFS, and what goes wrong there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tfos_job import storage
from tfos_job.config import SynthConfig
from tfos_job.data.synth import synthesize
from tfos_job.layout import DatasetLayout, RunLayout

pytestmark = [pytest.mark.hadoop, pytest.mark.timeout(420)]

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--image_size", "16", "--batch_size", "32")
# There is no GPU here: Spark's resource API and YARN's accounting are real, what the script finds is not.
DISCOVERY = '#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0"]}\'\n'


class Submission:
    """A running scripts/submit.sh."""

    def __init__(self, *args: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tfos_job.submit.main", *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TFOS_JOB_HOME": str(ROOT)},
        )
        self.stdout = ""
        self.stderr = ""
        self._readers = [threading.Thread(target=self._read, args=(n,), daemon=True) for n in ("stdout", "stderr")]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self._process, name):
            setattr(self, name, getattr(self, name) + line)

    def wait_until(self, true: Callable[[], Any], timeout_s: float = 180) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while not (value := true()):
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.stderr}"
            assert time.monotonic() < deadline_s, self.stderr
            time.sleep(0.3)
        return value

    def wait_for(self, text: str, timeout_s: float = 180) -> None:
        self.wait_until(lambda: text in self.stderr, timeout_s)

    @property
    def application(self) -> str:
        words = (word for line in self.stderr.splitlines() for word in line.split())
        return next((word for word in words if word.startswith("application_")), "")

    def send_signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    def wait(self, timeout_s: float = 300) -> int:
        code = self._process.wait(timeout_s)
        for reader in self._readers:
            reader.join(10)
        return code

    def result(self) -> Any:
        return json.loads(self.stdout.splitlines()[-1])

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
            self._process.kill()
        self.wait(30)
        self._process.stdout.close()  # type: ignore[union-attr]
        self._process.stderr.close()  # type: ignore[union-attr]


@pytest.fixture
def submit(hadoop) -> Iterator[Callable[..., Submission]]:
    submissions: list[Submission] = []

    def start(*args: object) -> Submission:
        submissions.append(Submission(*args))
        return submissions[-1]

    yield start
    for submission in submissions:
        submission.end()


@pytest.fixture(scope="module")
def gnt_dir(hadoop, tmp_path_factory: pytest.TempPathFactory) -> str:
    """GNT files of 8 synthetic writers on HDFS."""
    local = tmp_path_factory.mktemp("gnt")
    synthesize(SynthConfig(gnt_dir=str(local), charset_size=10, num_writers=8))
    return upload(local, f"{hadoop.url}/yarn/gnt")


def upload(folder: Path, url: str) -> str:
    storage.make_dirs(url)
    for path in folder.glob("*.gnt"):
        storage.write_bytes(f"{url}/{path.name}", path.read_bytes())
    return url


@pytest.fixture(scope="module")
def dataset(hadoop, gnt_dir: str) -> str:
    """A dataset on HDFS, made by `convert` on YARN."""
    url = f"{hadoop.url}/yarn/dataset"
    submission = Submission("convert", "--gnt_dir", gnt_dir, "--dataset_dir", url, "--charset_size", 10)
    try:
        assert submission.wait() == 0, submission.stderr
    finally:
        submission.end()
    assert submission.result()["num_records"] == 80
    return url


def report_of(train_dir: str) -> dict[str, Any]:
    path = RunLayout(train_dir).report
    return storage.read_json(path) if storage.exists(path) else {}


def allocated(hadoop, application: str) -> dict[str, int]:
    """What YARN counts for an application now."""
    app = hadoop.rest(f"/ws/v1/cluster/apps/{application}")["app"]
    resources = app.get("resourceInfo", {}).get("resourceUsagesByPartition", [{}])[0]
    entries = resources.get("used", {}).get("resourceInformations", {}).get("resourceInformation", [])
    entries = entries if isinstance(entries, list) else [entries]
    return {entry["name"]: entry["value"] for entry in entries} | {"containers": app["runningContainers"]}


def training(dataset: str, train_dir: str, *more: object) -> tuple[object, ...]:
    return ("train", "--dataset_dir", dataset, "--train_dir", train_dir, *SMALL, *more)


def test_the_whole_job_on_the_gpu_queue(hadoop, dataset: str, hdfs_dir: str, submit, tmp_path: Path) -> None:
    """convert (the fixture), train with one GPU a worker and none for the parameter server, evaluate."""
    discovery = tmp_path / "discover.sh"
    discovery.write_text(DISCOVERY)
    discovery.chmod(0o755)
    gpus = ("--num_gpus", 1, "--allow_cpu")
    script = ("--", "--files", discovery, "--conf", "spark.executor.resource.gpu.discoveryScript=./discover.sh")
    run = f"{hdfs_dir}/run"
    trained = submit(*training(dataset, run, "--max_number_of_steps", 400, "--save_steps", 200, *gpus, *script))
    trained.wait_until(lambda: report_of(run).get("step"), 200)
    counted = allocated(hadoop, trained.application)
    assert counted["yarn.io/gpu"] == 1, counted  # one worker × one GPU; driver, coordinator and PS hold none
    assert counted["containers"] == 2
    app = hadoop.rest(f"/ws/v1/cluster/apps/{trained.application}")["app"]
    assert app["queue"].rpartition(".")[2] == "gpu"
    assert "tfos_job-train" in app["applicationTags"].split(",")
    assert app["name"] == f"tfos_job train {run}"
    assert trained.wait() == 0, trained.stderr
    assert trained.result()["step"] == 400
    assert f"checkpoint {run}/checkpoints/step-00000200" in trained.stderr or "step-00000400" in trained.stderr
    assert {entry.name for entry in storage.list_dir(f"{run}/checkpoints")} == {"step-00000200", "step-00000400"}
    assert storage.list_dir(f"{run}/summaries/train")

    evaluated = submit(
        "evaluate", "--dataset_dir", dataset, "--train_dir", run, "--dataset_split_name", "train", "--queue", "gpu"
    )
    assert evaluated.wait() == 0, evaluated.stderr
    assert evaluated.result()["num_examples"] == 80
    assert evaluated.result()["top_1"] > 0.9
    # The font has travelled, too.
    assert "confusions.png" in {entry.name for entry in storage.list_dir(evaluated.result()["pictures"])}

    assert_logs_are_kept(hadoop, trained.application)

    again = submit(*training(dataset, run, "--max_number_of_steps", 400))
    assert again.wait() == 0
    assert "is finished. Nothing to do" in again.stderr
    assert again.application == ""


def assert_logs_are_kept(hadoop, application: str) -> None:
    """What `yarn logs` reads has TensorFlow's own logs beside Spark's. (The program itself is not in Spark's jars.)"""
    deadline_s = time.monotonic() + 60
    while not (entries := [e for e in all_files(f"{hadoop.url}/tmp/logs") if f"/{application}/" in e]):
        assert time.monotonic() < deadline_s, "YARN has not gathered the logs"
        time.sleep(1)
    content = b"".join(map(storage.read_bytes, entries))
    for name in (b"worker-0.log", b"ps-0.log", b"coordinator.log", b"stderr"):
        assert name in content, entries


def all_files(folder: str) -> list[str]:
    if not storage.exists(folder):
        return []
    entries = storage.list_dir(folder)
    return [e.path for e in entries if not e.is_dir and not e.name.endswith(".tmp")] + [
        path for e in entries if e.is_dir for path in all_files(e.path)
    ]


def test_a_submission_that_is_killed_kills_its_application_and_the_next_one_resumes(
    hadoop, dataset: str, hdfs_dir: str, submit
) -> None:
    run = f"{hdfs_dir}/run"
    steps = ("--max_number_of_steps", 3000, "--save_steps", 50)
    first = submit(*training(dataset, run, *steps))
    first.wait_for("checkpoint hdfs://")
    first.send_signal(signal.SIGTERM)
    assert first.wait(90) == 143, first.stderr
    state = wait_for_state(hadoop, first.application, ("KILLED", "FINISHED", "FAILED"))
    assert state == "KILLED"
    step = checkpoint_step(run)
    second = submit(*training(dataset, run, "--max_number_of_steps", step + 20, "--save_steps", 50))
    assert second.wait() == 0, second.stderr
    attempts = report_of(run)["attempts"]
    assert attempts[-1]["start_step"] >= step
    assert attempts[-1]["application"] == second.application != first.application


def checkpoint_step(run: str) -> int:
    steps = [int(e.name[-8:]) for e in storage.list_dir(f"{run}/checkpoints") if e.name.startswith("step-")]
    return max(steps, default=0)


def wait_for_state(hadoop, application: str, states: tuple[str, ...]) -> str:
    deadline_s = time.monotonic() + 60
    while (state := hadoop.rest(f"/ws/v1/cluster/apps/{application}")["app"]["state"]) not in states:
        assert time.monotonic() < deadline_s, state
        time.sleep(0.5)
    return state


def test_a_second_attempt_goes_on_where_the_killed_driver_was(hadoop, dataset: str, hdfs_dir: str, submit) -> None:
    run = f"{hdfs_dir}/run"
    steps = ("--max_number_of_steps", 600, "--save_steps", 50)
    submission = submit(*training(dataset, run, *steps))
    submission.wait_until(lambda: report_of(run).get("checkpoint"), 200)
    kill_driver(submission.application, attempt=1)
    assert submission.wait() == 0, submission.stderr
    attempts = report_of(run)["attempts"]
    assert [a["application_attempt"] for a in attempts] == [1, 2]
    assert attempts[1]["start_step"] >= 50
    assert {a["application"] for a in attempts} == {submission.application}
    assert report_of(run)["step"] == 600
    assert "attempt 2, driver on" in submission.stderr


def kill_driver(application: str, attempt: int) -> None:
    container = f"{application.replace('application', 'container')}_{attempt:02d}_000001"
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            is_driver = any("ApplicationMaster" in word for word in process.info["cmdline"] or [])
            if is_driver and process.environ().get("CONTAINER_ID") == container and process.name() == "java":
                process.kill()
                return
    raise AssertionError(f"no driver of {container}")


def test_bad_data_comes_back_with_its_code_and_its_place(hadoop, hdfs_dir: str, submit, tmp_path: Path) -> None:
    synthesize(SynthConfig(gnt_dir=str(tmp_path), charset_size=5, num_writers=2))
    victim = min(tmp_path.glob("*.gnt"))
    victim.write_bytes(victim.read_bytes()[:-7])
    gnt = upload(tmp_path, f"{hdfs_dir}/gnt")
    dataset = f"{hdfs_dir}/dataset"
    submission = submit("convert", "--gnt_dir", gnt, "--dataset_dir", dataset, "--charset_size", 5)
    assert submission.wait() == 65, submission.stderr
    assert victim.name in submission.stderr
    assert "byte" in submission.stderr
    assert not storage.exists(DatasetLayout(dataset).split("train").manifest)
    app = hadoop.rest(f"/ws/v1/cluster/apps/{submission.application}")["app"]
    assert "65" in app["diagnostics"]


def test_what_is_refused_before_anything_is_submitted(hadoop, gnt_dir: str, hdfs_dir: str, submit) -> None:
    before = [app["id"] for app in (hadoop.rest("/ws/v1/cluster/apps")["apps"] or {}).get("app", [])]
    convert = ("convert", "--gnt_dir", gnt_dir, "--dataset_dir", f"{hdfs_dir}/dataset")
    for code, words, args in (
        (2, "unrecognized arguments: --nonsense", (*convert, "--nonsense", "3")),
        (66, "no such folder", ("convert", "--gnt_dir", f"{hdfs_dir}/no", "--dataset_dir", f"{hdfs_dir}/dataset")),
        (66, "no manifest", training(f"{hdfs_dir}/dataset", f"{hdfs_dir}/run")),
        (78, "path on the disk of whichever host", ("convert", "--gnt_dir", "/gnt", "--dataset_dir", "/dataset")),
        (78, "cannot be given after", (*convert, "--", "--master", "local")),
    ):
        submission = submit(*args)
        assert submission.wait(60) == code, submission.stderr
        assert words in submission.stderr
    after = [app["id"] for app in (hadoop.rest("/ws/v1/cluster/apps")["apps"] or {}).get("app", [])]
    assert after == before


def test_what_yarn_refuses(hadoop, gnt_dir: str, hdfs_dir: str, submit) -> None:
    convert = ("convert", "--gnt_dir", gnt_dir, "--dataset_dir", f"{hdfs_dir}/dataset")
    for code, words, args in (
        (69, "unknown queue: nope", ("--queue", "nope")),
        (78, "above the max threshold", ("--", "--executor-memory", "900g")),
    ):
        submission = submit(*convert, *args)
        assert submission.wait(120) == code, submission.stderr
        assert words in submission.stderr


def test_a_dry_run_prints_the_line_and_changes_nothing(hadoop, dataset: str, hdfs_dir: str, submit) -> None:
    submission = submit(*training(dataset, f"{hdfs_dir}/run"), "--dry-run")
    assert submission.wait(60) == 0, submission.stderr
    assert submission.stdout.startswith("spark-submit --master yarn --deploy-mode cluster")
    assert "environment-" in submission.stdout
    seeds = submit(*training(dataset, f"{hdfs_dir}/run"), "--dry-run", "--", "--archives", "hdfs:///Python.zip#Python")
    assert seeds.wait(60) == 0, seeds.stderr
    assert "--archives 'hdfs:///Python.zip#Python'" in seeds.stdout
    assert "PYSPARK_PYTHON=./Python/bin/python" in seeds.stdout
    assert storage.list_dir(hdfs_dir) == []


def test_a_container_too_small_is_named_with_its_limit(hadoop, dataset: str, hdfs_dir: str, submit) -> None:
    run = f"{hdfs_dir}/run"
    submission = submit(
        *training(dataset, run, "--max_number_of_steps", 5000),
        *("--", "--executor-memory", "512m", "--conf", "spark.executor.memoryOverhead=128m"),
        *("--conf", "spark.yarn.maxAppAttempts=1"),
    )
    assert submission.wait() == 71, submission.stderr
    report = report_of(run)
    assert report["exit_code"] == 71
    cause = report["first_cause"]
    assert "640 MB" in cause["fact"], cause
    assert "spark.executor.memoryOverhead" in cause["next_step"]
    assert "spark.executor.memoryOverhead" in submission.stderr


def test_two_applications_side_by_side(hadoop, dataset: str, hdfs_dir: str, submit) -> None:
    runs = [f"{hdfs_dir}/run-{number}" for number in (1, 2)]
    steps = ("--max_number_of_steps", 600, "--port_range", "23000-23099")
    fit = ("--", "--executor-cores", 2)  # YARN counts 16 on this node, and each has two executors and a driver
    both = [submit(*training(dataset, run, *steps, *fit)) for run in runs]
    for submission, run in zip(both, runs, strict=True):
        assert submission.wait() == 0, submission.stderr
        assert report_of(run)["step"] == 600
    assert both[0].application != both[1].application
    started = [report_of(run)["attempts"][0]["started"] for run in runs]
    ended = [report_of(run)["attempts"][0]["ended"] for run in runs]
    assert max(started) < min(ended), "they did not run at the same time"
