"""What a command says on stderr: lines of text with time and level, or one JSON object a line."""

from __future__ import annotations

import datetime
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from tfos_job import cli
from tfos_job.host import logs
from tfos_job.host.logs import LogLines
from tfos_job.submit import main as submit

SYNTH = ("synth", "--num_writers", "1", "--charset_size", "1", "--gnt_dir")
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_has_date_time_and_level(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SYNTH, str(tmp_path)]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert re.fullmatch(rf"{STAMP} INFO 1 of 1 writers of 1 characters", line)


def test_quiet_is_silent_but_for_results_and_errors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*SYNTH, str(tmp_path), "-q"]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out)["files"] == 1
    assert said.err == ""
    assert cli.main(["report", "--train_dir", str(tmp_path), "--quiet"]) == 66
    assert capfd.readouterr().err.startswith("tfos-job report: error: ")


def test_verbose_has_the_variables_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert cli.main([*SYNTH, str(tmp_path), "-v"]) == 0
    assert re.search(rf"^{STAMP} DEBUG TF_CONFIG=", capfd.readouterr().err, re.MULTILINE)


def test_json_is_one_object_a_line_also_of_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    began = datetime.datetime.now().astimezone()
    assert cli.main([*SYNTH, str(tmp_path / "字"), "--log_format", "json"]) == 0
    (line,) = objects(capfd.readouterr().err)
    assert line.keys() == {"time", "level", "logger", "command", "message"}
    assert (line["level"], line["logger"], line["command"]) == ("INFO", "tfos_job.local_jobs.synth", "synth")
    at = datetime.datetime.fromisoformat(str(line["time"]))
    assert began - datetime.timedelta(milliseconds=1) <= at <= datetime.datetime.now().astimezone()
    for argv, code, extra in (
        (["report", "--train_dir", str(tmp_path), "--log_format=json"], 66, set()),
        (["report", "--train_dir", str(tmp_path), "--log_format=json", "--debug"], 66, {"traceback"}),
        (["report", "--log_format", "json", "--epoch", "3"], 2, set()),  # before the flags have been read
    ):
        assert cli.main(argv) == code
        (line,) = objects(capfd.readouterr().err)
        assert line.keys() == {"time", "level", "logger", "command", "message", "exit_code"} | extra
        assert (line["level"], line["exit_code"], line["command"]) == ("ERROR", code, "report")


def test_tables_for_people_are_part_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    for flags, said in (([], "a table\n"), (["-q"], ""), (["--log_format", "json"], None)):
        argv = ["doctor", *flags]
        with LogLines("doctor", argv) as lines:
            lines.use(cli.parser.parse(cli.COMMANDS, argv).process)
            lines.say("a table")
        found = capfd.readouterr().err
        assert found == said if said is not None else objects(found)[0]["message"] == "a table"


def test_submit_has_the_same_flags(capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["convert", "--gnt_dir", "/disk", "--dataset_dir", "d", "--hdfs_dir", "/d", "--log_format", "json"]
    assert submit.main(argv) == 78
    (line,) = objects(capfd.readouterr().err)
    assert (line["command"], line["exit_code"]) == ("submit", 78)


def test_it_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    own, root = logging.getLogger("tfos_job"), logging.getLogger()
    before = own.level, root.level, root.handlers[:]
    assert cli.main([*SYNTH, str(tmp_path), "-v"]) == 0
    assert (own.level, root.level, root.handlers) == before


def test_a_bar_is_for_a_person_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        found = {}
        for flags in ((), ("-v",), ("-q",), ("--log_format", "json")):
            argv = ["doctor", *flags]
            with LogLines("doctor", argv) as lines:
                lines.use(cli.parser.parse(cli.COMMANDS, argv).process)
                found[flags] = logs.shows_bars()
    os.close(master)
    assert found == {(): True, ("-v",): True, ("-q",): False, ("--log_format", "json"): False}
    assert not logs.shows_bars()


def test_a_bar_steps_aside_for_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with LogLines("doctor", ["doctor"]), tqdm(total=2, file=screen, desc="work") as bar:
        logging.getLogger("tfos_job.x").info("done with %d", 1)
        bar.update(1)
    lines = [line.rpartition("\r")[2] for line in screen.getvalue().split("\n")]
    assert any(re.fullmatch(rf"{STAMP} INFO done with 1", line) for line in lines), lines


def test_a_log_that_nobody_reads_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", gone)
        with LogLines("doctor", ["doctor"]) as lines:
            logging.getLogger("tfos_job").info("x")
            lines.say("a table")
        patched.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())


@pytest.mark.parametrize("flags", [(), ("--log_format", "json")])
def test_nothing_comes_after_what_a_command_ends_with(flags: tuple[str, ...]) -> None:
    """Neither of threads, nor of Spark's JVM, nor a second line of the error itself."""
    program = (
        "import logging, os, sys, threading\n"
        "from tfos_job.errors import JobError\n"
        "from tfos_job.host import jvm_output\n"
        "from tfos_job.host.logs import LogLines\n"
        "log, words = logging.getLogger('tfos_job.x'), sys.argv[1:]\n"
        "reader, writer = os.pipe()\n"
        "with LogLines('train', words) as lines:\n"
        "    jvm_output.pass_on(os.fdopen(reader, 'rb'))\n"
        "    log.warning('before')\n"
        "    lines.fail('tfos-job train', JobError('killed\\n  by SIGKILL', place='worker:0'), 70)\n"
        "    log.warning('within')\n"
        "log.warning('after')\n"
        "os.write(writer, b'of the JVM\\n')\n"
        "os.close(writer)\n"
        "[thread.join() for thread in threading.enumerate() if thread.name == 'JVM stderr']\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True, check=True)
    first, last = done.stderr.splitlines()
    assert "before" in first
    if flags:
        assert json.loads(last)["exit_code"] == 70
    else:
        assert last == "tfos-job train: error: worker:0: killed by SIGKILL"


def test_the_next_command_of_a_process_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with LogLines("train", ()) as lines:
            logging.getLogger("tfos_job.x").warning("heard")
            lines.fail("tfos-job train", ValueError("x"), 70)
        assert "heard" in capfd.readouterr().err
