"""Spark for what must not need it."""

from __future__ import annotations

from pyspark import SparkContext


class NoSpark:
    """A `tfos_job.driver.on_demand.Spark` that nothing may ask for its context."""

    @property
    def sparkContext(self) -> SparkContext:
        raise AssertionError("this needs no Spark")
