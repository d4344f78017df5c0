"""Schemes of paths and URLs: a file of the operating system, of HDFS, or of another file system.

As in Hadoop, `hdfs:/x` is `hdfs:///x`, and `file:/x` is `file:///x`. A URL fails if Hadoop rejects it, or if it would
name a local file while the user probably means another file system.
"""

from __future__ import annotations

import re

from tfos_job.errors import SettingsError

FILE = "file"
HDFS_SCHEMES = ("hdfs", "viewfs")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<rest>.*)", re.DOTALL)


def scheme_of(path: str) -> str | None:
    """Returns the scheme of a URL; None for a plain path, which may contain a colon.

    Raises:
      SettingsError: it is neither a URL nor a plain path.
    """
    match = _URL.match(path)
    if match is None:
        return None
    scheme, rest = match["scheme"].lower(), match["rest"]
    if scheme == FILE:
        if not rest.startswith("/") or (rest.startswith("//") and not rest.startswith("///")):
            raise _refusal(path, "a URL of a file names its whole path, and no host", "file:///…, or a plain path")
        return scheme
    if rest.startswith("//"):
        return scheme
    if scheme in HDFS_SCHEMES:
        if not rest.startswith("/"):
            raise _refusal(
                path, f"a URL of {scheme} names its whole path", f"{scheme}://…, or ./{path} for a local file"
            )
        return scheme
    if _is_known(scheme):
        raise _refusal(path, f"not a URL of {scheme}", f"{scheme}://…, or ./{path} for a local file")
    return None


def canonical(path: str) -> str:
    """Writes a URL with `//` after its scheme; a plain path is returned as it is."""
    scheme = scheme_of(path)
    if scheme is None:
        return path
    rest = path[len(scheme) + 1 :]
    return f"{scheme}:{rest}" if rest.startswith("//") else f"{scheme}://{rest}"


def _is_known(scheme: str) -> bool:
    from fsspec.registry import known_implementations  # slow to import, and needed for unusual names alone

    return scheme in known_implementations


def _refusal(path: str, fact: str, next_step: str) -> SettingsError:
    return SettingsError(fact, place=path, next_step=f"Give {next_step}")
