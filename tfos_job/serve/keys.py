"""The keys that callers must send. They are kept as digests, and stand in no log and no error."""

from __future__ import annotations

import hashlib
import hmac

from flask import Request

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.serve.refusals import Unauthorized

_LEAST_LENGTH = 16
_HOW = "Send Authorization: Bearer KEY, or X-API-Key: KEY, or the key as the password of a browser's question"


class Keys:
    """The keys of a file, one a line; lines that begin with # say whose they are. Several, so that one can be replaced.

    Raises:
      BadDataError: there is none, or one that is easily guessed.
      MissingInputError: there is no such file.
      AccessError: it may not be read.
      StorageError: its file system has failed.
    """

    def __init__(self, path: str) -> None:
        try:
            lines = [line.strip() for line in storage.read_bytes(path).decode("utf-8-sig").splitlines()]
        except UnicodeDecodeError as error:
            raise BadDataError("not a text in UTF-8", place=path, next_step="Write one key a line") from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys or min(map(len, keys)) < _LEAST_LENGTH:
            fact = f"a key of fewer than {_LEAST_LENGTH} characters" if keys else "no key"
            raise BadDataError(fact, place=path, next_step="`openssl rand -hex 32` makes a good one")
        self._digests = [_digest(key) for key in keys]

    def require(self, request: Request) -> None:
        """Raises Unauthorized unless a request has one of the keys. The time that it takes tells nothing of them."""
        given = _digest(_key_of(request))
        if not any([hmac.compare_digest(given, known) for known in self._digests]):  # noqa: C419 - all of them
            raise Unauthorized(f"a key is needed. {_HOW}")


def _key_of(request: Request) -> str:
    authorization = request.authorization
    if authorization is not None and authorization.type == "bearer":
        return authorization.token or ""
    if authorization is not None and authorization.type == "basic":
        return authorization.password or ""
    return request.headers.get("X-API-Key", "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
