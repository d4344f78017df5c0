"""Stages as processes of this host: their ends, their output, and what becomes of them when the pipeline ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import is_alive
from tests.unit.waits import wait_until
from tfos_job.errors import BusyError
from tfos_job.host import process_identity
from tfos_job.pipeline.stage_runner import LocalStages, StageEnd

PYTHON = (sys.executable, "-c")
SLEEPER = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
PIPELINE = """
import sys
from tfos_job.host import signals
from tfos_job.pipeline.stage_runner import LocalStages
with signals.raised():
    try:
        LocalStages((sys.executable, "-c")).run([sys.argv[1], sys.argv[2]], "one", lambda where: None)
    except signals.Stopped as stopped:
        sys.exit(128 + stopped.signum)
"""


def run(program: str, *words: str, begun: Any = lambda where: None) -> StageEnd:
    return LocalStages(PYTHON).run([program, *words], "one", begun)


def test_the_end_of_a_stage_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    program = """
import sys
print('{"a": 1}')
print("not JSON")
print('{"b": "夜"}')
print("tfos-job x: error: so it is", file=sys.stderr)
print(file=sys.stderr)
sys.exit(65)
"""
    assert run(program) == StageEnd(
        exit_code=65, results=({"a": 1}, {"b": "夜"}), last_line="tfos-job x: error: so it is"
    )
    out, log = capfd.readouterr()
    assert (out, "so it is" in log) == ("", True)


def test_the_last_line_of_a_json_log_is_its_message() -> None:
    end = run("""import sys; print('{"level": "ERROR", "message": "so it is"}', file=sys.stderr)""")
    assert (end.exit_code, end.last_line) == (0, "so it is")


def test_much_output_blocks_nothing() -> None:
    end = run("import sys\nfor _ in range(3000): print('{}'); print('x' * 99, file=sys.stderr)")
    assert (end.exit_code, len(end.results)) == (0, 3000)


def test_a_stage_that_is_killed_takes_nothing_with_it() -> None:
    end = run("import os; os.kill(os.getpid(), 9)")
    assert (end.exit_code, end.results, end.last_line) == (137, (), "")


def test_a_process_that_outlives_its_stage_with_the_pipes_open_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tfos_job.pipeline.stage_runner._DRAIN_S", 0.1)
    program = (
        f"import subprocess, sys; print('{{}}', flush=True); subprocess.Popen({[*PYTHON, SLEEPER]} + sys.argv[1:])"
    )
    file = tmp_path / "pid"
    assert run(program, str(file)).exit_code == 0
    wait_until(lambda: file.exists() and file.read_text())
    psutil.Process(int(file.read_text())).kill()


def test_where_it_works_is_told_while_it_does(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def begun(where: dict[str, Any]) -> None:
        told.append({**where, "is_gone": process_identity.is_gone(where)})

    run("import time; time.sleep(0.3)", begun=begun)
    (where,) = told
    assert (where["host"], where["is_gone"]) == (process_identity.this_process()["host"], False)
    assert where["pid"] != os.getpid()
    LocalStages().settle(where)  # it has ended


def test_a_record_that_cannot_be_written_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def begun(where: dict[str, Any]) -> None:
        wait_until(lambda: file.exists() and file.read_text())
        raise BusyError("lost")

    with pytest.raises(BusyError):
        run(SLEEPER, str(file), begun=begun)
    assert not psutil.pid_exists(int(file.read_text()))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_stage_outlives_the_pipeline(tmp_path: Path, signum: signal.Signals) -> None:
    file = tmp_path / "pid"
    pipeline = subprocess.Popen([sys.executable, "-c", PIPELINE, SLEEPER, str(file)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: file.exists() and file.read_text())
        stage = psutil.Process(int(file.read_text()))
        pipeline.send_signal(signum)
        assert pipeline.wait(60) == (-9 if signum == signal.SIGKILL else 128 + signum)
        wait_until(lambda: not is_alive(stage))
    finally:
        pipeline.kill()
        pipeline.wait()


def test_a_stage_that_a_killed_run_has_left_is_waited_for() -> None:
    left = subprocess.Popen([*PYTHON, "import time; time.sleep(600)"])
    try:
        where = {
            **process_identity.this_process(),
            "pid": left.pid,
            "process_started": process_identity.process_started(left.pid),
        }
        with pytest.raises(BusyError) as raised:
            LocalStages(settle_s=0.3).settle(where)
        assert raised.value.exit_code == 75
        LocalStages(settle_s=0.3).settle({**where, "host": "another"})
        LocalStages(settle_s=0.3).settle({})
    finally:
        left.kill()
        left.wait()
    LocalStages(settle_s=0).settle(where)


def test_a_parent_that_has_ended_before_is_noticed() -> None:
    from tfos_job.host import with_parent

    words = [sys.executable, with_parent.__file__, "1" if os.getpid() != 1 else "2", *PYTHON, "print('began')"]
    began = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, began > 0) == (143, "", True)
