"""What a request is refused with: a status of HTTP, and words for the caller."""

from __future__ import annotations

import math


class Refusal(Exception):
    """An answer that is none; `status` is HTTP's.

    Args:
      fact: what was wrong, without paths or names of this host.
      retry_after_s: when the caller may try again; None if that would not help.
    """

    status = 400

    def __init__(self, fact: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(fact)
        self.fact = fact
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After` in whole seconds, as HTTP has it."""
        return {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


class BadRequest(Refusal):
    """A request that no server could answer."""


class Unauthorized(Refusal):
    """A request without a key, or with a wrong one."""

    status = 401

    @property
    def headers(self) -> dict[str, str]:
        """Asks a browser for a password, which is the key."""
        return {"WWW-Authenticate": 'Basic realm="tfos-job serve: any name, and the key as the password"'}


class TooLarge(Refusal):
    """More bytes, pixels or pictures than are taken."""

    status = 413


class WrongType(Refusal):
    """A body of a type that is not read."""

    status = 415


class Full(Refusal):
    """More requests than the queue holds."""

    status = 429


class Unavailable(Refusal):
    """A server that is starting, draining or too slow."""

    status = 503


def too_late() -> Unavailable:
    return Unavailable("no answer in time: the server has too much to do", retry_after_s=1)


class Failed(Refusal):
    """A fault of the server; its log has more."""

    status = 500
