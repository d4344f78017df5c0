"""A submission to Kubernetes with a program in the place of spark-submit, which says what Spark would say."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.unit.test_submit_kubernetes import DELETED, FINISHED, WAITING, changed, ended
from tfos_job.config import TrainConfig
from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError, SettingsError
from tfos_job.submit import on_kubernetes
from tfos_job.submit.pod_watch import Patience
from tfos_job.submit.spark_submit import Request

LINE = [
    *("spark-submit", "--master", "k8s://https://api", "--deploy-mode", "cluster"),
    *("--conf", "spark.kubernetes.authenticate.submission.oauthTokenFile=/token", "--conf", "spark.executor.cores=4"),
]
# It notes its arguments, says the next text of its answers, and waits where there is a file `wait`.
PROGRAM = """\
#!/usr/bin/env python3
import pathlib, sys, time
folder = pathlib.Path({folder!r})
what = sys.argv[1] if sys.argv[1] in ("--status", "--kill") else "submit"
with open(folder / "asked", "a") as asked:
    asked.write(" ".join(sys.argv[1:]) + "\\n")
number = sum(1 for each in folder.glob(f"{{what}}-*.said"))
answers = sorted(folder.glob(f"{{what}}-*.txt"))
(folder / f"{{what}}-{{number}}.said").touch()
print(answers[min(number, len(answers) - 1)].read_text() if answers else "", flush=True)
while what == "submit" and (folder / "wait").exists():
    time.sleep(0.05)
sys.exit(int((folder / "code").read_text()) if (folder / "code").exists() else 0)
"""


class FakeSpark:
    """A folder that serves as SPARK_HOME."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        program = folder / "bin" / "spark-submit"
        program.write_text(PROGRAM.format(folder=str(folder)))
        program.chmod(0o755)

    def says(self, *texts: str, to: str = "submit", code: int = 0, waits: bool = False) -> None:
        for number, text in enumerate(texts):
            (self.folder / f"{to}-{number}.txt").write_text(text)
        (self.folder / "code").write_text(str(code))
        if waits:
            (self.folder / "wait").touch()

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSpark:
    (tmp_path / "spark").mkdir()
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    return FakeSpark(tmp_path / "spark")


def run(hdfs_dir: Path | None = None, *, submit_s: float = 300, accept_s: float = 3600, wait: bool = True) -> int:
    config = TrainConfig(dataset_dir="file:///d", train_dir="file:///none/run")
    request = Request(
        command="train",
        app_args=(),
        config=config,
        master="k8s://https://api",
        queue="",
        home="",
        hdfs_dir=str(hdfs_dir or ""),
        wait=wait,
    )
    limits = Patience(submit_s=submit_s, accept_s=accept_s, ask_every_s=0.01, away_s=0.0)
    return on_kubernetes.run(request, LINE, dict(os.environ), patience=limits)


def test_results_and_error_of_the_outcome(
    spark: FakeSpark, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "outcomes").mkdir()
    told = {"exit_code": 0, "error": None, "attempt": 1, "host": "h", "log_url": "", "results": [{"top_1": 0.5}]}
    path = tmp_path / "outcomes" / "spark-b5428cec.json"
    path.write_text(json.dumps(told))
    spark.says(changed("Running") + changed("Succeeded", ended(0, "Completed")) + FINISHED)
    assert run(tmp_path) == 0
    assert capsys.readouterr().out == '{"top_1": 0.5}\n'
    assert "ml:tfos-job-train-7bd242-driver Succeeded on node7 (Completed)" in caplog.text
    error = {"fact": "damaged", "place": "shard 3", "next_step": "Convert again"}
    path.write_text(json.dumps({**told, "exit_code": 65, "error": error, "results": []}))
    with pytest.raises(JobError, match="shard 3: damaged") as caught:
        run(tmp_path)
    assert caught.value.exit_code == 65


def test_a_pod_of_which_spark_lost_sight_is_asked_for(spark: FakeSpark) -> None:
    spark.says(changed("Running"))
    running = "Application status (driver):\n" + changed("Running")
    failed = "Application status (driver):\n" + changed("Failed", ended(78))
    spark.says("", running, failed, to="--status")
    with pytest.raises(ResourceError, match="has not answered for 0 s"):
        run()
    (spark.folder / "--status-0.txt").write_text(running)
    with pytest.raises(SettingsError, match="exited with 78"):
        run()
    token = "--conf spark.kubernetes.authenticate.submission.oauthTokenFile=/token"
    assert spark.asked[-1] == f"--status ml:tfos-job-train-7bd242-driver --master k8s://https://api {token}"


def test_a_pod_that_is_gone_when_it_is_asked_for(spark: FakeSpark) -> None:
    spark.says(changed("Running"))
    spark.says("Application not found.\n", to="--status")
    with pytest.raises(NodeDiedError, match="deleted while it was at work"):
        run()
    spark.says(changed("Running") + DELETED + FINISHED)
    with pytest.raises(NodeDiedError, match="deleted while it was at work"):
        run()


@pytest.mark.parametrize(
    ("text", "kind", "fact"),
    [
        (changed("Pending", node="N/A"), ResourceError, "no node has taken the driver's pod in 0 s"),
        (changed("Pending", WAITING.format(reason="ImagePullBackOff")), ResourceError, "ImagePullBackOff"),
        (changed("Pending", WAITING.format(reason="InvalidImageName")), SettingsError, "InvalidImageName"),
    ],
)
def test_a_pod_that_waits_too_long_is_deleted(spark: FakeSpark, text: str, kind: type[JobError], fact: str) -> None:
    spark.says(text, waits=True)
    spark.says("Submitting a request to kill submission ml:x", to="--kill")
    limit = "submit_s" if "reason" in text else "accept_s"
    with pytest.raises(kind, match=fact):
        run(**{limit: 0.2})
    assert spark.asked[-1].startswith("--kill ml:tfos-job-train-7bd242-driver --master k8s://https://api")


def test_a_silent_api_server(spark: FakeSpark) -> None:
    spark.says("WARN: trying", waits=True)
    with pytest.raises(ResourceError, match=r"has not made the driver's pod within 0 s: WARN: trying"):
        run(submit_s=0.2)


def test_a_refused_pod(spark: FakeSpark) -> None:
    spark.says("Caused by: java.net.UnknownHostException: api: Name or service not known", code=1)
    with pytest.raises(ResourceError, match="api: Name or service not known"):
        run()


@pytest.mark.parametrize("wait", [True, False])
def test_a_signal_deletes_the_pod_that_it_waits_for(
    spark: FakeSpark, wait: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    spark.says(changed("Running"), waits=True)
    spark.says("Submitting a request to kill submission ml:x", to="--kill")

    def stop() -> None:
        while "Running" not in caplog.text:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(InterruptedJobError) as caught:
        run(wait=wait)
    thread.join()
    assert caught.value.exit_code == 143
    assert ("was deleted" if wait else "goes on") in caught.value.fact
    assert any(words.startswith("--kill") for words in spark.asked) is wait


def test_detached_its_name_is_printed(spark: FakeSpark, capsys: pytest.CaptureFixture[str]) -> None:
    spark.says(FINISHED.replace("finished", "into Kubernetes"))
    assert run(wait=False) == 0
    assert capsys.readouterr().out == "ml:tfos-job-train-7bd242-driver\n"
