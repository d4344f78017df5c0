"""What spark-submit logs, as Spark 4.3 on Hadoop 3.5 really does, and what is read from it."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import queue
import signal
from pathlib import Path

import pytest

from tfos_job import hadoop_conf
from tfos_job.commands.registry import SUBMISSIONS
from tfos_job.config import TrainConfig, VerifyConfig
from tfos_job.errors import InterruptedJobError, NodeDiedError, ResourceError, SettingsError
from tfos_job.submit import main as submit_main
from tfos_job.submit import watch
from tfos_job.submit.application_state import Watched
from tfos_job.submit.deferred_signals import DeferredSignals
from tfos_job.submit.watch import Patience

FAILED = """\
WARNING: Using incubator modules: jdk.incubator.vector
INFO Client: Application ID is assigned: application_1795610618978_0001
INFO YarnClientImpl: Submitted application application_1795610618978_0001
INFO Client: Application report for application_1795610618978_0001 (state: ACCEPTED)
INFO Client:\x20
\t client token: N/A
\t diagnostics: AM container is launched, waiting for AM container to Register with RM
\t ApplicationMaster host: N/A
\t ApplicationMaster RPC port: -1
\t queue: root.gpu
\t start time: 1795610657317
\t final status: UNDEFINED
\t tracking URL: http://rm:8088/proxy/application_1795610618978_0001/
\t user: root
INFO Client: Application report for application_1795610618978_0001 (state: FAILED)
INFO Client:\x20
\t client token: N/A
\t diagnostics: Application application_1795610618978_0001 failed 1 times due to AM Container with  exitCode: -104
Failing this attempt.Diagnostics: Current usage: 1.2 GB of 1 GB physical memory used; Killing container.
For more detailed output, check the application tracking page.
\t ApplicationMaster host: N/A
\t ApplicationMaster RPC port: -1
\t queue: root.gpu
\t start time: 1795610657317
\t final status: FAILED
\t tracking URL: http://rm:8088/proxy/application_1795610618978_0001/
\t user: root
ERROR Client: Application diagnostics message: Application failed
Exception in thread "main" org.apache.spark.SparkException: Application application_1795610618978_0001 finished
\tat org.apache.spark.deploy.yarn.Client.run(Client.scala:1404)
"""


def watched(text: str) -> Watched:
    result = Watched()
    for second, line in enumerate(text.splitlines(keepends=True)):
        result.hear(line, float(second))
    return result


def test_an_application_from_its_submission_to_its_end() -> None:
    seen = watched(FAILED)
    assert seen.application == "application_1795610618978_0001"
    assert seen.state == "FAILED"
    assert seen.details["tracking URL"] == "http://rm:8088/proxy/application_1795610618978_0001/"
    assert seen.times["submitted"] < seen.times["accepted"] < seen.times["failed"]
    end = seen.end("train")
    assert end.final_status == "FAILED"
    assert "exitCode: -104" in end.diagnostics
    assert "1.2 GB of 1 GB physical memory used" in end.diagnostics
    assert "ApplicationMaster" not in end.diagnostics
    assert "SparkException" not in end.diagnostics


def test_what_spark_submit_says_at_its_end_is_told() -> None:
    """As one does that waits for nothing: all of its lines are there at once, and no other one follows."""
    lines: queue.Queue[str | None] = queue.Queue()
    for line in [*FAILED.splitlines(keepends=True)[:3], None]:
        lines.put(line)
    told: list[str] = []
    with DeferredSignals() as signals_here:
        watch._follow(
            lines,
            Watched(),
            signals_here,
            lambda seen: told.append(seen.application),
            Patience(submit_s=math.inf, accept_s=math.inf),
        )
    assert told == ["application_1795610618978_0001"]


def test_what_was_refused_before_there_was_an_application() -> None:
    seen = watched('Exception in thread "main" java.lang.IllegalArgumentException: no\n\tat a.b(C.scala:1)\n')
    end = seen.end("train")
    assert (end.application, end.final_status) == ("", "")
    assert end.diagnostics == 'Exception in thread "main" java.lang.IllegalArgumentException: no'


STATUS = """\
Application Report :
\tApplication-Id : application_1795940304137_0001
\tApplication-Name : tfos_job convert hdfs://nn/data
\tStart-Time : 1795942344317
\tState : {state}
\tFinal-State : FAILED
\tTracking-URL : http://rm:8088/proxy/application_1795940304137_0001/
\tAM Host : vm
\tDiagnostics : User application exited with status 65
of two lines
\tUnmanaged Application : false
"""


def test_an_application_that_spark_submit_has_lost_sight_of() -> None:
    seen = watched("INFO Client: Application report for application_1795940304137_0001 (state: RUNNING)\n")
    assert seen.hear_status(STATUS.format(state="RUNNING"), 2.0)
    assert not seen.has_ended
    for answer in (
        "",
        "Application with id 'application_1795940304137_0001' doesn't exist in RM or Timeline Server.\n",
    ):
        assert not seen.hear_status(answer, 3.0)
    assert seen.hear_status(STATUS.format(state="FINISHED"), 4.0)
    assert seen.has_ended
    end = seen.end("convert")
    assert end.final_status == "FAILED"
    assert end.diagnostics == "User application exited with status 65\nof two lines"


def test_an_application_has_an_id_before_it_is_submitted() -> None:
    seen = watched("INFO Client: Application ID is assigned: application_1795610618978_0001\n")
    assert (seen.assigned, seen.application) == ("application_1795610618978_0001", "")


# --- processes -------------------------------------------------------------------------------------------------------

ID = "application_1_0001"
ASSIGNED = f"echo 'INFO Client: Application ID is assigned: {ID}' >&2\n"
SUBMITTED = ASSIGNED + f"echo 'INFO YarnClientImpl: Submitted application {ID}' >&2\n"
STOP = "kill -TERM $PPID\nexec sleep 600\n"


class Run:
    """`watch.run` with scripts in the place of spark-submit and of Hadoop's client."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "asked"
        self.home, self.java = folder / "spark", folder / "java"
        self.environment = {"PATH": os.environ["PATH"], "JAVA_HOME": str(self.java)}

    def __call__(
        self,
        spark_submit: str,
        hadoop: str = "",
        *,
        detach: bool = False,
        patience: Patience = Patience(submit_s=600, accept_s=600),  # noqa: B008 - it never changes
    ) -> Watched:
        for path, text in (
            (self.home / "bin" / "spark-submit", spark_submit),
            (self.java / "bin" / "java", f"echo $4 $5 $6 >> {self.log}\n{hadoop}"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/bin/sh\n{text}")
            path.chmod(0o755)
        return watch.run(
            ["spark-submit"],
            self.environment,
            on_change=lambda _: None,
            patience=patience,
            detach=detach,
            when_stopped="Run it again",
        )

    @property
    def asked(self) -> list[str]:
        """What Hadoop's client was asked."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    found = Run(tmp_path)
    monkeypatch.setenv("SPARK_HOME", str(found.home))
    monkeypatch.setattr(watch, "_ASK_EVERY_S", 0.0)
    return found


@pytest.mark.parametrize(
    ("spark_submit", "detach", "words", "asked"),
    [
        (STOP, False, "stopped by SIGTERM. Nothing was submitted. Run it again", []),
        (ASSIGNED + STOP, False, f"stopped by SIGTERM. {ID} was killed. Run it again", [f"application -kill {ID}"]),
        (SUBMITTED + STOP, False, f"stopped by SIGTERM. {ID} was killed. Run it again", [f"application -kill {ID}"]),
        (SUBMITTED + STOP, True, f"stopped by SIGTERM. {ID} goes on. Run it again", []),
    ],
)
def test_a_signal_leaves_nothing_that_it_does_not_name(
    run: Run, spark_submit: str, detach: bool, words: str, asked: list[str]
) -> None:
    with pytest.raises(InterruptedJobError) as caught:
        run(spark_submit, detach=detach)
    assert (caught.value.exit_code, str(caught.value)) == (143, words)
    assert run.asked == asked


def test_an_application_that_cannot_be_killed_may_go_on(run: Run) -> None:
    with pytest.raises(InterruptedJobError, match=f"{ID} may go on"):
        run(SUBMITTED + STOP, "exit 1\n")


WAITING = f"""\
cat >&2 <<'END'
INFO Client: Application report for {ID} (state: ACCEPTED)
INFO Client:
\t diagnostics: Application is added to the scheduler and is not yet activated.
\t queue: root.gpu
\t final status: UNDEFINED
END
exec sleep 600
"""


@pytest.mark.parametrize(
    ("lack", "words"),
    [
        ("queue gpu has 0 of 1 yarn.io/gpu free", "queue gpu has 0 of 1 yarn.io/gpu free"),
        ("", "it waits in queue gpu"),
    ],
)
def test_an_application_without_a_container_in_time_is_killed_and_told(run: Run, lack: str, words: str) -> None:
    asked = []

    def lack_of(application: str) -> str:
        asked.append(application)
        return lack

    with pytest.raises(ResourceError) as caught:
        run(SUBMITTED + WAITING, patience=Patience(submit_s=600, accept_s=1, lack=lack_of))
    assert caught.value.exit_code == 69
    assert caught.value.fact == (
        f"YARN has not given the driver a container for 1 s; {words}; "
        "it says: Application is added to the scheduler and is not yet activated."
    )
    assert caught.value.place == ID
    assert asked == [ID]
    assert run.asked == [f"application -kill {ID}"]


def test_a_resource_manager_that_takes_no_application_in_time(run: Run) -> None:
    with pytest.raises(ResourceError, match="has not taken the application for 1 s; it says: INFO Retrying") as caught:
        run("echo 'INFO Retrying connect to server' >&2\nexec sleep 600\n", patience=Patience(submit_s=1, accept_s=600))
    assert "--submit_timeout" in caught.value.next_step
    assert run.asked == []


def test_the_deadline_of_a_training_is_stronger_than_the_flag_of_submit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    options = argparse.Namespace(submit_timeout=300, accept_timeout=60)
    dirs = {"dataset_dir": "hdfs://nn/data", "train_dir": "hdfs://nn/run"}
    for config, accept_s in (
        (TrainConfig(**dirs, deadlines="application=7,stall=5"), 7),
        (TrainConfig(**dirs, deadlines="stall=5"), 60),
        (VerifyConfig(dataset_dir="hdfs://nn/data"), 60),
    ):
        assert submit_main._patience(options, config).accept_s == accept_s


def test_a_resource_manager_that_was_away_is_asked_again(run: Run, tmp_path: Path) -> None:
    status = STATUS.format(state="FINISHED")
    # It answers nothing the first time, as while it starts.
    answer = f"[ -e {tmp_path}/up ] || {{ touch {tmp_path}/up; exit 1; }}\ncat <<'END'\n{status}END\n"
    watched = run(SUBMITTED + "echo 'ERROR Client: Failed to contact YARN for application' >&2\nexit 1\n", answer)
    assert watched.has_ended
    assert watched.end("convert").final_status == "FAILED"
    assert run.asked == [f"application -status {ID}"] * 2


def test_an_application_that_yarn_has_forgotten_is_said_to_be(run: Run) -> None:
    forgotten = f"""echo "Application with id '{ID}' doesn't exist in RM or Timeline Server."\nexit 255\n"""
    with pytest.raises(NodeDiedError, match="without recovery"):
        run(SUBMITTED + "exit 1\n", forgotten)
    assert run.asked == [f"application -status {ID}"]


def test_a_signal_before_spark_submit_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stopped = dataclasses.replace(SUBMISSIONS["doctor"], check=lambda config: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setitem(SUBMISSIONS, "doctor", stopped)
    assert submit_main.main(["doctor", "--hdfs_dir", "hdfs://nn/me"]) == 143
    assert "error: stopped by SIGTERM. Nothing was submitted" in capsys.readouterr().err


def write_core_site(folder: Path, text: str) -> Path:
    (folder / "core-site.xml").write_text(text)
    return folder


def test_the_default_file_system(tmp_path: Path) -> None:
    name = "<configuration><property><name>fs.defaultFS</name><value>{}</value></property></configuration>"
    assert hadoop_conf.default_fs(write_core_site(tmp_path, name.format("hdfs://nn:8020/"))) == "hdfs://nn:8020"
    with pytest.raises(SettingsError, match="neither hdfs:// nor viewfs://"):
        hadoop_conf.default_fs(write_core_site(tmp_path, name.format("file:///")))
    with pytest.raises(SettingsError, match="cannot be understood"):
        hadoop_conf.default_fs(write_core_site(tmp_path, "<configuration>"))


def test_no_hadoop_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    with pytest.raises(SettingsError, match="HADOOP_CONF_DIR") as caught:
        hadoop_conf.conf_dir()
    assert caught.value.exit_code == 78
    monkeypatch.setenv("YARN_CONF_DIR", str(tmp_path))
    assert hadoop_conf.conf_dir() == tmp_path
