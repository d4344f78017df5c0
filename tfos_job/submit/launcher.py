"""spark-submit's process: held at its start until it is let go, with a log that outlives this process."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tfos_job.host.child import end
from tfos_job.submit import yarn_client

_POLL_S = 0.1
# Until it is let go it is a shell with the process id that spark-submit will have. If this process ends before, its
# input ends, and so does it.
_HOLD = 'read -r go || exit 1; exec "$0" "$@" </dev/null'


class SparkSubmit:
    """spark-submit with the arguments of `line`, held until `let_go`.

    It is in a session of its own, so that this process handles a terminal's Ctrl-C. Its log is a file without a name:
    whatever it says after the end of this process does it no harm, as a broken pipe could.
    """

    def __init__(self, line: Sequence[str], environment: Mapping[str, str]) -> None:
        written, path = tempfile.mkstemp(prefix="tfos_job-spark-submit-")
        try:
            self._log = open(path, "rb")  # noqa: SIM115 - closed by `read`
            os.unlink(path)
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _HOLD, *command(line[1:])],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=written,
                env=with_spark_home(environment),
                start_new_session=True,
            )
        finally:
            os.close(written)

    @property
    def pid(self) -> int:
        return self._process.pid

    def let_go(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as held:  # it may have been ended from outside
            held.write(b"go\n")

    def read(self, lines: queue.Queue[str | None]) -> None:
        """Puts each line of the log into the queue, and None after the last one; for a thread of its own."""
        with self._log as log:
            rest = b""
            while True:
                has_ended = self._process.poll() is not None  # before the read, which then has all of it
                if chunk := log.read():
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        lines.put(line.decode("utf-8", "replace") + "\n")
                elif has_ended:
                    break
                else:
                    time.sleep(_POLL_S)
            if rest:
                lines.put(rest.decode("utf-8", "replace"))
        lines.put(None)

    def end(self) -> None:
        """Ends it and what it has started; it is not let go any more."""
        end_all_of(self._process)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()


def end_all_of(process: subprocess.Popen[Any]) -> None:
    """Ends a spark-submit that leads a session of its own, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    end(process, "spark-submit")


def command(words: Sequence[str]) -> list[str]:
    """The command line of spark-submit with these arguments."""
    return [str(yarn_client.spark_home() / "bin" / "spark-submit"), *words]


def with_spark_home(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of spark-submit."""
    return {**environment, "SPARK_HOME": str(yarn_client.spark_home())}
