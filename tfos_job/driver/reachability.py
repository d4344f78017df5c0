"""Whether processes on other hosts can be reached, by a connection that says nothing."""

from __future__ import annotations

import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

_CONNECT_S = 3.0  # one lost packet costs a second
_AT_ONCE = 64


def reachable(addresses: Collection[str]) -> frozenset[str]:
    """Those of the addresses `host:port` that take a connection within some seconds, all asked at the same time."""
    asked = sorted(set(addresses))
    if not asked:
        return frozenset()
    with ThreadPoolExecutor(min(len(asked), _AT_ONCE), "reach") as pool:
        answers = list(pool.map(_is_reachable, asked))
    return frozenset(address for address, answer in zip(asked, answers, strict=True) if answer)


def _is_reachable(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, ValueError):
        return False
    return True
