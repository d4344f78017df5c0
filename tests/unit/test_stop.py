"""Signals to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from tfos_job.cluster.stop import StopSignal
from tfos_job.errors import InterruptedJobError


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_asks_two_hurry_and_three_interrupt(signum: signal.Signals, code: int) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with StopSignal() as stop:
        assert (stop.signum, stop.hurry) == (None, False)
        signal.signal(signum, signal.SIG_IGN)  # as Spark puts a handler of its own in place of ours
        stop.install()
        os.kill(os.getpid(), signum)
        assert (stop.signum, stop.hurry) == (signum, False)
        os.kill(os.getpid(), signum)
        assert (stop.signum, stop.hurry) == (signum, True)
        with pytest.raises(InterruptedJobError) as caught:
            os.kill(os.getpid(), signum)
        assert caught.value.exit_code == code
    assert {each: signal.getsignal(each) for each in before} == before
