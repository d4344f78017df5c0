"""The models of a server, by name; each can be replaced by a newer one while it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tfos_job.serve.model import Model
from tfos_job.serve.refusals import Refusal


class Unknown(Refusal):
    """A model that is not there."""

    status = 404


@dataclass(eq=False)
class _Use:
    """A model, and the requests that are with it."""

    model: Model
    num_users: int = 0


class Models:
    """All models; the first one put there is the one of `/predict`. Threads may share it."""

    def __init__(self) -> None:
        self._by_name: dict[str, _Use] = {}
        self._changed = threading.Condition()

    @property
    def names(self) -> list[str]:
        return list(self._by_name)

    @property
    def all(self) -> list[Model]:
        return [use.model for use in list(self._by_name.values())]

    @contextmanager
    def used(self, name: str | None = None) -> Iterator[Model]:
        """A model, which stays what it is during a `with` block.

        Raises:
          Unknown: there is none of that name.
        """
        with self._changed:
            first = next(iter(self._by_name), "")
            use = self._by_name.get(first if name is None else name)
            if use is None:
                raise Unknown(f"no model {name!r}. There is {', '.join(self._by_name) or 'none yet'}")
            use.num_users += 1
        try:
            yield use.model
        finally:
            with self._changed:
                use.num_users -= 1
                self._changed.notify_all()

    def put(self, model: Model, timeout_s: float = 0.0) -> None:
        """Adds a model, or replaces the one of its name: requests get the new one at once.

        The old one ends when the requests that are with it are answered, or after `timeout_s`.
        """
        with self._changed:
            before = self._by_name.get(model.name)
            self._by_name[model.name] = _Use(model)
            if before is not None:
                self._changed.wait_for(lambda: not before.num_users, timeout_s)
        if before is not None:
            before.model.batcher.close(timeout_s)
