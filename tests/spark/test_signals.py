"""A signal while the main thread waits for Spark's JVM, whose answer py4j would make an error of."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from tfos_job.driver import tasks
from tfos_job.errors import NodeDiedError
from tfos_job.host import signals


def test_a_signal_ends_a_job_and_leaves_its_slots_free(spark: SparkSession) -> None:
    context = spark.sparkContext
    tracker = context.statusTracker()

    def stop() -> None:
        def running() -> int:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            return sum(stage.numActiveTasks for stage in stages if stage)

        while running() < context.defaultParallelism:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    with signals.raised():
        thread = threading.Thread(target=stop)
        thread.start()
        # pyspark may ask the JVM for something more on its way out, and fail: the last word is of the signal.
        with pytest.raises((signals.Stopped, Py4JError, NodeDiedError)) as caught:
            tasks.run(context, "sleeping", time.sleep, [3600.0] * context.defaultParallelism)
        thread.join()
        interruption = signals.interruption(caught.value, "")
    assert interruption is not None
    assert interruption.exit_code == 143
    assert tasks.run(context, "working", abs, [-1, 2]) == [1, 2]
