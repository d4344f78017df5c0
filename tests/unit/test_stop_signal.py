"""Signals to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from tfos_job.driver.stop_signal import StopSignal
from tfos_job.host import signals
from tfos_job.host.signals import Stopped


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_asks_two_hurry_and_three_interrupt(signum: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_SAME_S", 0.0)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with StopSignal() as stop:
        assert (stop.signum, stop.hurry) == (None, False)
        os.kill(os.getpid(), signum)
        assert (stop.signum, stop.hurry) == (signum, False)
        os.kill(os.getpid(), signum)
        assert (stop.signum, stop.hurry) == (signum, True)
        with pytest.raises(Stopped) as caught:
            os.kill(os.getpid(), signum)
        assert caught.value.signum == signum
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_signal_that_comes_again_and_again_is_news_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    received = signals.Received()
    times = iter((10.0, 10.5, 11.0, 11.5, 12.0))
    monkeypatch.setattr(signals.time, "monotonic", lambda: next(times))
    assert [received.is_news(signal.SIGINT) for _ in range(5)] == [True, False, True, False, True]


def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` sends it to the process, and then to the process's group."""
    monkeypatch.setattr(signals, "_SAME_S", 1e9)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signum, stop.hurry) == (signal.SIGTERM, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.hurry
