"""`tfos-job submit --run_id`: what an earlier submission has left; programs stand for spark-submit and YARN."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import is_alive
from tests.unit.waits import wait_until
from tfos_job.errors import StorageError
from tfos_job.host import process_identity
from tfos_job.lease import Lease
from tfos_job.submit import claim, environment, watch
from tfos_job.submit import main as submit_main
from tfos_job.submit.environment import Shipment

# Adds an application to YARN's, and says so as Spark does. What YARN says of it later is in states/, a line each time.
SPARK_SUBMIT = """\
    import pathlib, sys
    yarn = pathlib.Path({yarn!r})
    application = f"application_1_{{len(list(yarn.iterdir())) + 1:04d}}"
    (yarn / application).write_text("RUNNING UNDEFINED\\n")
    print(f"INFO YarnClientImpl: Submitted application {{application}}", file=sys.stderr)
    print(f"INFO Client: Application report for {{application}} (state: ACCEPTED)", file=sys.stderr)
"""
HADOOP = """\
    import pathlib, sys
    yarn = pathlib.Path({yarn!r})
    command, *words = sys.argv[5:]
    def state(path):
        first, *rest = path.read_text().splitlines()
        if rest and command == "-status":
            path.write_text("\\n".join(rest) + "\\n")
        return first.split(" ", 2)
    if command == "-list":
        found = sorted(yarn.iterdir())
        print(f"Total number of applications (states: [] and tags: [{{words[-1]}}]):{{len(found)}}")
        for path in found:
            print("\\t".join([path.name, "name", "SPARK", "me", "default", *state(path)[:2], "0%", "url"]))
    elif command == "-status":
        now, final, *said = state(yarn / words[0])
        print(f"\\tState : {{now}}\\n\\tFinal-State : {{final}}\\n\\tDiagnostics : {{' '.join(said)}}")
    else:
        (yarn / words[0]).write_text("KILLED KILLED killed by user\\n")
"""
FIRST, SECOND = "application_1_0001", "application_1_0002"
DONE = "FINISHED SUCCEEDED"


def failed(code: int) -> str:
    return f"FINISHED FAILED User application exited with status {code}"


class Cluster:
    """A YARN of files, and a folder in the place of HDFS."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.yarn, self.hdfs = folder, folder / "yarn", folder / "hdfs"
        self.yarn.mkdir()
        (self.hdfs / "outcomes").mkdir(parents=True)
        self.hadoop(HADOOP)
        self.spark_submit(SPARK_SUBMIT)

    def _write(self, name: str, program: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable} -SE\n" + textwrap.dedent(program).format(yarn=str(self.yarn)))
        path.chmod(0o755)

    def spark_submit(self, program: str) -> None:
        self._write("spark/bin/spark-submit", program)

    def hadoop(self, program: str) -> None:
        self._write("java/bin/java", program)

    def says(self, application: str, *states: str) -> None:
        (self.yarn / application).write_text("".join(f"{state}\n" for state in states))

    def outcome(self, application: str, code: int | None, **fields: Any) -> None:
        value = {"exit_code": code, "results": [{"of": application}], "started_s": 0.0, **fields}
        (self.hdfs / "outcomes" / f"{application}.json").write_text(json.dumps(value))

    @property
    def applications(self) -> list[str]:
        return sorted(path.name for path in self.yarn.iterdir())

    @property
    def record_path(self) -> Path:
        return self.hdfs / "submissions" / "night=3A1" / "doctor" / "submission.json"

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads(self.record_path.read_text()))

    def change_record(self, **fields: Any) -> None:
        self.record_path.write_text(json.dumps({**self.record, **fields}))

    def submit(self, *words: str) -> int:
        own = ("--hdfs_dir", f"file://{self.hdfs}", "--environment", "none")
        return submit_main.main(["doctor", *own, "--run_id", "night:1", *words])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path)
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    monkeypatch.setattr(environment, "plan", lambda *_, **__: Shipment("", "", ""))
    monkeypatch.setattr(environment, "prepare", lambda *_, **__: None)
    for module, name in ((watch, "_ASK_EVERY_S"), (watch, "_ATTACHED_ASK_EVERY_S"), (claim, "_IN_FLIGHT_S")):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(claim, "_POLL_S", 0.05)
    return made


def test_a_run_that_is_done_is_told_again(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    cluster.outcome(FIRST, 0)
    cluster.spark_submit(SPARK_SUBMIT + '    (yarn / application).write_text("FINISHED SUCCEEDED\\n")\n')
    assert cluster.submit() == 0
    assert (cluster.record["state"], cluster.record["exit_code"], cluster.record["told"]) == ("ended", 0, True)
    first = capfd.readouterr().out
    assert first == '{"of": "application_1_0001"}\n'
    assert cluster.submit() == 0
    again = capfd.readouterr()
    assert again.out == first
    assert f"run night:1 is done already, by {FIRST}: nothing is submitted" in again.err
    assert cluster.applications == [FIRST]


def test_one_that_is_at_work_is_followed_to_its_end(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("--detach") == 0
    assert cluster.submit("--detach") == 0
    assert capfd.readouterr().out == f"{FIRST}\n{FIRST}\n"
    cluster.says(FIRST, "RUNNING UNDEFINED", "RUNNING UNDEFINED", failed(66))
    cluster.outcome(FIRST, 66, error={"fact": "no such folder", "place": "hdfs://nn/x", "next_step": ""})
    assert cluster.submit() == 66
    said = capfd.readouterr()
    assert said.out == '{"of": "application_1_0001"}\n'
    assert f"run night:1 is at work as {FIRST}, submitted before: nothing is submitted now" in said.err
    assert said.err.splitlines()[-1] == "tfos-job submit doctor: error: hdfs://nn/x: no such folder"
    assert cluster.applications == [FIRST]


def test_a_signal_to_who_follows_it_kills_it(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("--detach") == 0
    stopping = '    elif command == "-status":\n        import os, signal; os.kill(os.getppid(), signal.SIGTERM)\n'
    cluster.hadoop(HADOOP.replace('    elif command == "-status":\n', stopping))
    assert cluster.submit() == 143
    assert f"error: stopped by SIGTERM. {FIRST} was killed" in capfd.readouterr().err
    cluster.hadoop(HADOOP)
    assert cluster.submit("--detach") == 0
    assert cluster.applications == [FIRST, SECOND]
    assert cluster.record["earlier"] == [{"number": 1, "application": FIRST, "exit_code": 143}]


def test_one_that_is_followed_gets_its_container_in_time(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("--detach") == 0
    cluster.says(FIRST, "ACCEPTED UNDEFINED it waits")
    assert cluster.submit("--accept_timeout", "1") == 69
    assert "YARN has not given the driver a container for 1 s; it says: it waits" in capfd.readouterr().err
    assert (cluster.yarn / FIRST).read_text().startswith("KILLED")


def test_other_flags_than_those_at_work_are_refused(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("--detach") == 0
    assert cluster.submit("--num_executors", "7") == 78
    words = "--run_id: run night:1 is at work with other flags: --num_executors: not given before, 7 now. Give the same"
    assert words in capfd.readouterr().err
    cluster.says(FIRST, failed(78))
    cluster.outcome(FIRST, 78)
    assert cluster.submit("--num_executors", "7", "--detach") == 0  # it failed: who has set it right may go on
    assert cluster.applications == [FIRST, SECOND]
    assert cluster.record["asked"]["flags"] == {"num_executors": 7}


def test_a_failure_that_no_retry_helps_is_told_once(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("--detach") == 0
    cluster.says(FIRST, failed(65))
    cluster.outcome(FIRST, 65, error={"fact": "damaged", "place": "shard 3", "next_step": ""})
    assert cluster.submit() == 65
    told = capfd.readouterr()
    assert told.out.splitlines()[-1] == '{"of": "application_1_0001"}'
    assert told.err.splitlines()[-1] == "tfos-job submit doctor: error: shard 3: damaged"
    assert cluster.applications == [FIRST]
    assert cluster.submit("--detach") == 0
    assert cluster.applications == [FIRST, SECOND]
    assert cluster.record["number"] == 2
    assert cluster.record["earlier"] == [{"number": 1, "application": FIRST, "exit_code": 65}]


@pytest.mark.parametrize(("states", "code"), [(failed(71), 71), ("KILLED KILLED killed by user", None), (DONE, None)])
def test_after_a_failure_that_a_retry_helps_there_is_a_second_attempt(
    cluster: Cluster, states: str, code: int | None
) -> None:
    """One of them: YARN says success, and there is no outcome to say of what."""
    assert cluster.submit("--detach") == 0
    cluster.says(FIRST, states)
    if code is not None:
        cluster.outcome(FIRST, code)
    assert cluster.submit("--detach") == 0
    assert cluster.applications == [FIRST, SECOND]
    assert cluster.record["application"] == SECOND


@pytest.mark.parametrize(("code", "number"), [(0, 1), (None, 2)])
def test_what_yarn_has_forgotten_is_what_its_outcome_says(cluster: Cluster, code: int | None, number: int) -> None:
    assert cluster.submit("--detach") == 0
    cluster.outcome(FIRST, code)
    (cluster.yarn / FIRST).unlink()
    cluster.hadoop(HADOOP.replace("now, final,", "print('it doesn\\'t exist in RM'); now, final,"))
    assert cluster.submit("--detach") == 0
    assert (cluster.record["number"], len(cluster.applications)) == (number, number - 1)


def test_two_at_once_exclude_each_other(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    with Lease(str(cluster.record_path.with_name("_lock")), "the other"):
        assert cluster.submit() == 75
    assert "held by the other" in capfd.readouterr().err
    assert cluster.applications == []


def test_an_application_that_comes_late_is_followed_instead_of_a_new_one(cluster: Cluster) -> None:
    assert cluster.submit("--detach") == 0
    cluster.says(FIRST, failed(75))
    cluster.outcome(FIRST, 75)
    cluster.says(SECOND, "RUNNING UNDEFINED", "RUNNING UNDEFINED", DONE)
    cluster.outcome(SECOND, 0)
    assert cluster.submit() == 0
    assert cluster.applications == [FIRST, SECOND]
    assert cluster.record["application"] == SECOND
    assert cluster.record["earlier"] == [{"number": 1, "application": FIRST, "exit_code": 75}]


def test_a_record_that_cannot_be_written_is_not_the_only_way_to_the_application(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(claim.Claim, "_write", _unless_submitted(claim.Claim._write))
        assert cluster.submit("--detach") == 0
    assert "The record of run night:1 is not up to date: hdfs: full" in capfd.readouterr().err
    assert (cluster.record["state"], cluster.record["application"]) == ("submitting", "")
    assert cluster.submit("--detach") == 0
    assert cluster.record["application"] == FIRST
    assert cluster.applications == [FIRST]


def _unless_submitted(write: Callable[..., None]) -> Callable[..., None]:
    def found(self: claim.Claim, record: Any, **changes: Any) -> None:
        if "application" in changes:
            raise StorageError("full", place="hdfs")
        write(self, record, **changes)

    return found


def test_nothing_is_submitted_while_yarn_does_not_say_what_is_at_work(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cluster.submit("--detach") == 0
    cluster.hadoop("    print('Retrying connect to server')\n")
    monkeypatch.setattr(watch, "AWAY_S", 0.0)
    assert cluster.submit() == 69
    assert "whether run night:1 is at work" in capfd.readouterr().err
    assert cluster.applications == [FIRST]


def test_a_record_of_a_later_version_is_refused(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("--detach") == 0
    cluster.change_record(format_version=2)
    assert cluster.submit() == 65
    assert "submission.json: a record of version 2, this package reads 1" in capfd.readouterr().err
    cluster.record_path.write_text("{")
    assert cluster.submit() == 65
    assert "submission.json: no record of a submission" in capfd.readouterr().err
    assert not cluster.record_path.with_name("_lock").exists()


# --- spark-submit of a submitter that was killed ---------------------------------------------------------------------


@pytest.fixture
def working() -> Iterator[psutil.Popen]:
    """A process of this host, for spark-submit."""
    with psutil.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


def leave(cluster: Cluster, process: dict[str, Any] | None) -> None:
    """Leaves the record of a submitter that was killed before it knew of an application."""
    assert cluster.submit("--detach") == 0
    (cluster.yarn / FIRST).unlink()
    cluster.change_record(state="submitting", application="", spark_submit=process)


def test_one_that_was_held_has_submitted_nothing(cluster: Cluster) -> None:
    leave(cluster, None)
    assert cluster.submit("--detach") == 0
    assert (cluster.record["number"], cluster.applications) == (1, [FIRST])


def test_one_that_works_here_is_waited_for(
    cluster: Cluster, working: psutil.Popen, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    leave(cluster, process_identity.of(working.pid))
    pauses = iter([lambda: None, lambda: cluster.says(FIRST, "ACCEPTED UNDEFINED")])
    monkeypatch.setattr(claim, "_pause", lambda: next(pauses)())
    assert cluster.submit("--detach") == 0
    said = capfd.readouterr()
    assert "spark-submit of attempt 1 is at work here: waiting for its application" in said.err
    assert said.out.splitlines()[-1] == FIRST
    assert is_alive(working)
    assert (cluster.record["number"], cluster.applications) == (1, [FIRST])


def test_one_that_works_here_for_too_long_is_ended(cluster: Cluster, working: psutil.Popen) -> None:
    leave(cluster, process_identity.of(working.pid))
    assert cluster.submit("--detach", "--submit_timeout", "1") == 0
    assert not is_alive(working)
    assert (cluster.record["number"], cluster.applications) == (2, [FIRST])


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_one_that_has_ended_or_cannot_be_seen_has_some_time(
    cluster: Cluster, host: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = process_identity.of(os.getpid()) | {"process_started": "before:1"}
    leave(cluster, gone | ({"host": host} if host else {}))
    assert cluster.submit("--detach", "--submit_timeout", "1") == 0
    said = capfd.readouterr().err
    assert ("submitted from elsewhere, and YARN has no application of it: waiting up to 1 s" in said) == bool(host)
    assert (cluster.record["number"], cluster.applications) == (2, [FIRST])


def test_a_signal_while_waiting_says_what_may_go_on(
    cluster: Cluster, working: psutil.Popen, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    leave(cluster, process_identity.of(working.pid))
    monkeypatch.setattr(claim, "_pause", lambda: signal.raise_signal(signal.SIGTERM))
    assert cluster.submit() == 143
    assert "What an earlier submission of run night:1 has submitted may go on. The same command" in (
        capfd.readouterr().err
    )
    assert is_alive(working)


START = """\
import os, sys, time
from tfos_job.submit.launcher import SparkSubmit
spark_submit = SparkSubmit(["spark-submit", "word"], dict(os.environ))
if "--let-go" in sys.argv:
    spark_submit.let_go()
print(spark_submit.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("let_go", [(), ("--let-go",)])
def test_spark_submit_after_sigkill_of_its_submitter(cluster: Cluster, let_go: tuple[str, ...]) -> None:
    """Held, it does nothing; let go, it goes on to its end, whatever it says on the way."""
    up, done = cluster.folder / "up", cluster.folder / "done"
    cluster.spark_submit(
        f"""\
        import pathlib, sys, time
        pathlib.Path({str(up)!r}).touch()
        while pathlib.Path({str(up)!r}).exists():
            time.sleep(0.01)
        print("more", file=sys.stderr, flush=True)
        pathlib.Path({str(done)!r}).write_text(" ".join(sys.argv[1:]))
        """,
    )
    with subprocess.Popen([sys.executable, "-c", START, *let_go], stdout=subprocess.PIPE, text=True) as submitter:
        assert submitter.stdout is not None
        process = psutil.Process(int(submitter.stdout.readline()))
        if let_go:
            wait_until(up.exists)
        submitter.kill()
        submitter.wait()
    if let_go:
        assert is_alive(process)
        up.unlink()
    wait_until(lambda: not is_alive(process))
    assert up.exists() is False
    assert done.exists() == bool(let_go)
    assert not let_go or done.read_text() == "word"


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--master", "k8s://x", "--image", "x"), "--run_id: its application is found again by YARN's tags alone"),
        (("--run_id", ""), "--run_id: empty"),
    ],
)
def test_where_a_run_id_is_of_no_use(
    cluster: Cluster, words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cluster.submit(*words) in (2, 78)
    assert said in capfd.readouterr().err


def test_a_stage_is_one_of_a_run(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert submit_main.main(["doctor", "--stage", "x", "--hdfs_dir", f"file://{cluster.hdfs}"]) == 78
    assert "--stage: given without --run_id" in capfd.readouterr().err
    words = ("doctor", "--environment", "none", "--detach", "--", "--conf", "spark.yarn.tags=mine")
    for stage, application in (("a", FIRST), ("\udce4", SECOND), ("a", FIRST), ("\udce4", SECOND)):
        found = submit_main.submit_stage(words, run_id="-n", stage=stage, hdfs_dir=f"file://{cluster.hdfs}")
        assert (found, capfd.readouterr().out) == (0, f"{application}\n")


def test_a_dry_run_has_the_tag_and_changes_nothing(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    assert cluster.submit("--dry-run", "--", "--conf", "spark.yarn.tags=mine") == 0
    out = capfd.readouterr().out
    assert "spark.yarn.tags=tfos_job,tfos_job-doctor,tfos_job-run-" in out
    assert ",mine " in out
    assert not (cluster.hdfs / "submissions").exists()
