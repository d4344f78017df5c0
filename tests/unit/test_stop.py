"""Signals to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from tfos_job.cluster.stop import StopSignal
from tfos_job.signals import Stopped


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_two_hurry_and_three_interrupt(signum: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with StopSignal() as stop:
        assert (stop.signum, stop.hurry) == (None, False)
        signal.signal(signum, signal.SIG_IGN)  # as Spark puts a handler of its own in place of ours
        stop.install()
        os.kill(os.getpid(), signum)
        assert (stop.signum, stop.hurry) == (signum, False)
        os.kill(os.getpid(), signum)
        assert (stop.signum, stop.hurry) == (signum, True)
        with pytest.raises(Stopped) as caught:
            os.kill(os.getpid(), signum)
        assert caught.value.signum == signum
    assert {each: signal.getsignal(each) for each in before} == before
