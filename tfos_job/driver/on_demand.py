"""Spark that starts when a command first needs it: what can be decided without is decided, or refused, at once."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Protocol, Self

from pyspark import SparkContext

from tfos_job.driver import session


class Spark(Protocol):
    """What has a SparkContext: a SparkSession, or `SparkOnDemand`. Ask for the context only to use it."""

    @property
    def sparkContext(self) -> SparkContext:  # noqa: N802 - Spark's name
        ...


class SparkOnDemand:
    """A SparkSession for a `with` block, which its `sparkContext` opens (`session.open_session`)."""

    def __init__(self, app_name: str, master: str | None) -> None:
        """Starts nothing yet.

        Args:
          app_name: for the UIs of Spark and YARN.
          master: of Spark; None if spark-submit has set it.
        """
        self._app_name = app_name
        self._master = master
        self._stack = contextlib.ExitStack()
        self._context: SparkContext | None = None

    def __enter__(self) -> Self:
        if session.in_cluster_mode():  # its context runs already, and is stopped with the session
            _ = self.sparkContext
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def sparkContext(self) -> SparkContext:  # noqa: N802 - Spark's name
        """The context, after its start.

        Raises:
          SettingsError, ResourceError: Spark does not start.
        """
        if self._context is None:
            self._context = self._stack.enter_context(session.open_session(self._app_name, self._master)).sparkContext
        return self._context
