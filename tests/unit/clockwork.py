"""A process that is killed before any change that it makes to the local file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tfos_job import storage
from tfos_job.storage.local import Local


class Killed(BaseException):
    """The end of the process: nothing that it would still do is done."""


class Clockwork:
    """The local file system, whose process is killed before its `fatal`-th change."""

    CHANGES = ("create", "sync", "make_dirs", "remove", "replace", "move_new_file", "move_dir", "discard")
    OTHERS = ("open_read", "stat", "list")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_changes = 0
        self.fatal = 0
        self._is_counting = False
        for name in (*self.CHANGES, *self.OTHERS):
            monkeypatch.setattr(Local, name, self._watched(name, getattr(Local, name)))
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the machine itself lives

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(backend: Local, *arguments: Any) -> Any:
            if self._is_counting:
                self.num_changes += name in self.CHANGES
                if self.fatal and self.num_changes >= self.fatal:
                    raise Killed
            return method(backend, *arguments)

        return watched

    @contextlib.contextmanager
    def counting(self, fatal: int, *locks: str) -> Iterator[None]:
        """Kills what is done within; the locks of a killed process are taken over (test_lease.py), here removed."""
        self.num_changes, self.fatal, self._is_counting = 0, fatal, True
        try:
            yield
        except Killed:
            pass
        finally:
            self._is_counting = False
        for lock in locks if fatal else ():
            storage.remove(lock)
