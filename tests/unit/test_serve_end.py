"""The end of a server by signals, in this process."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
from typing import Any

import pytest

from tests.unit.serving import Held, Served, png
from tfos_job.config import ServeConfig
from tfos_job.errors import InterruptedJobError
from tfos_job.host import signals
from tfos_job.local_jobs.serve import _serving
from tfos_job.serve import server


def test_a_second_signal_ends_it_at_once() -> None:
    network = Held()
    served = Served(network=network).begin()
    listener = server.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    lost: list[Any] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        with contextlib.closing(connection):
            connection.request("POST", "/predict", png(100), {"Content-Type": "image/png"})
            try:
                lost.append(connection.getresponse().status)
            except (OSError, http.client.HTTPException) as error:
                lost.append(error)

    def interrupt() -> None:
        network.began.acquire()
        os.kill(os.getpid(), signal.SIGTERM)
        while served.lifecycle.is_ready:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threads = [threading.Thread(target=each) for each in (ask, interrupt)]

    def serve_until_interrupted() -> None:
        config = ServeConfig(train_dir="run", stop_timeout=600)
        with signals.raised(), _serving(config, served.service, listener) as wait:
            for thread in threads:
                thread.start()
            wait()

    with pytest.raises(InterruptedJobError, match="SIGTERM: 1 requests had no answer") as error:
        serve_until_interrupted()
    for thread in threads:
        thread.join()
    assert error.value.exit_code == 143
    assert isinstance(lost[0], Exception)
    network.go.set()


def test_a_signal_that_another_thread_gets_ends_it() -> None:
    """As the kernel may choose: the thread that waits is not woken by it."""
    served = Served().begin()
    listener = server.listen("127.0.0.1", 0)

    def interrupt() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)

    def serve_until_interrupted() -> None:
        with signals.raised(), _serving(ServeConfig(train_dir="run"), served.service, listener) as wait:
            threading.Timer(0.2, thread.start).start()
            wait()

    with pytest.raises(InterruptedJobError, match="SIGTERM: no request is left without an answer"):
        serve_until_interrupted()
    thread.join()
