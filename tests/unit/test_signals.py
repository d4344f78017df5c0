"""A signal to a real child, which is a whole command but for its work: the last word is of the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

# A command of its own, within the real `cli.main`: what it does is what py4j and the jobs do with errors.
PROGRAM = """
import dataclasses, os, signal, sys, time
from tfos_job import cli
from tfos_job.errors import NodeDiedError, ResourceError
from tfos_job.host import signals

signals._LATE_S = {late_s}

def work(config, context):
{work}

cli.COMMANDS["verify"] = dataclasses.replace(cli.COMMANDS["verify"], run=work)
sys.exit(cli.main(["verify", "--dataset_dir", "d"]))
"""
WAIT = """
context.write("ready")
time.sleep(600)
"""
# As py4j around each call of the JVM.
MADE_AN_ERROR_OF_ITS_OWN = """
try:
    context.write("ready")
    time.sleep(600)
except Exception as e:
    raise RuntimeError("Answer from Java side is empty") from e
"""
# The JVM, in the same process group, was quicker.
LOST_FIRST = """
context.write("ready")
sys.stdin.readline()
raise NodeDiedError("Spark's JVM beside this process is gone")
"""
FAILS_WHILE_STOPPING = """
try:
    context.write("ready")
    time.sleep(600)
finally:
    raise ResourceError("Spark does not start")
"""


CLEANS_UP = """
try:
    context.write("ready")
    time.sleep(600)
finally:
    time.sleep(0.1)
    print("cleaned up", file=sys.stderr)
"""


def run(work: str, signum: int, *, repeat: bool = False, before: str = "", late_s: float = 60) -> tuple[int, list[str]]:
    """The exit code and stderr of a command that is sent a signal once it is ready.

    Args:
      work: what it does, as a program.
      signum: what it is sent.
      repeat: twice, as `timeout` does.
      before: is written to its stdin before the signal.
      late_s: how long it waits for a signal once it has lost something.
    """
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=textwrap.indent(work, "    "), late_s=late_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"},
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write(before)
        process.stdin.flush()
        for _ in range(2 if repeat else 1):
            os.killpg(process.pid, signum)
        _, stderr = process.communicate()
    return process.returncode, stderr.splitlines()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_the_last_word_whatever_becomes_of_it(signum: signal.Signals, code: int) -> None:
    words = [f"tfos-job verify: error: stopped by {signum.name}. Nothing was changed; run it again"]
    for work in (WAIT, MADE_AN_ERROR_OF_ITS_OWN, FAILS_WHILE_STOPPING):
        assert run(work, signum) == (code, words), work


def test_a_signal_that_the_jvm_has_heard_first() -> None:
    code, stderr = run(LOST_FIRST, signal.SIGTERM, before="\n")
    assert (code, len(stderr)) == (143, 1)


def test_a_signal_that_is_sent_twice_is_one() -> None:
    code, stderr = run(CLEANS_UP, signal.SIGTERM, repeat=True)
    assert (code, stderr[:-1]) == (143, ["cleaned up"])


def test_what_is_no_signal_keeps_its_code() -> None:
    work = 'context.write("ready")\nsys.stdin.readline()\nraise ResourceError("no room")\n'
    code, stderr = run(work, signal.SIGCONT, before="\n", late_s=0)
    assert (code, stderr) == (69, ["tfos-job verify: error: no room"])
