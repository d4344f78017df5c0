"""Exclusion of optional imports of heavy libraries, which cost seconds at the start of every process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Lets the import of these modules fail during a `with` block, as if they were not installed.

    This is for libraries that import others only if they are installed. Modules imported before stay; after the block
    all modules can be imported again.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: Python's mark for "not importable"
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
