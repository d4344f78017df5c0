"""Where the secrets of a job can be found: command lines, environments, files."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil


def forms(secret: bytes) -> set[bytes]:
    """How a secret can be written: as it is, in hex, base64 (at any place of a longer text), Python, JSON, numbers."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode()}
    found.add(json.dumps(secret.decode("latin-1"))[1:-1].encode())
    found |= {separator.join(map(str, secret)).encode() for separator in (",", ", ", " ")}
    for shift in range(3):
        # Without the ends, which depend on what stands beside it.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(bytes(shift) + secret)[4:-4])
    return found


def in_processes(secrets: Mapping[str, bytes], processes: Iterable[psutil.Process]) -> Iterator[str]:
    """The places among command lines and environments, in words."""
    for process in processes:
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                data = Path(f"/proc/{process.pid}/{name}").read_bytes()
                for secret in _within(secrets, data):
                    words = Path(f"/proc/{process.pid}/cmdline").read_bytes()[:100]
                    yield f"{secret} in {name} of {words!r}"


def in_files(secrets: Mapping[str, bytes], *folders: Path) -> Iterator[str]:
    """The files below folders, in words; those that vanish meanwhile are left out."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            with contextlib.suppress(OSError):
                if path.is_file():
                    for secret in _within(secrets, path.read_bytes()):
                        yield f"{secret} in {path}"


def in_text(secrets: Mapping[str, bytes], **texts: str) -> Iterator[str]:
    for name, text in texts.items():
        for secret in _within(secrets, text.encode()):
            yield f"{secret} in {name}"


def _within(secrets: Mapping[str, bytes], data: bytes) -> Iterator[str]:
    for name, secret in secrets.items():
        if any(form in data for form in forms(secret)):
            yield name
