"""What a heavy library need not bring along: seconds at the start of every process that imports it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """For the length of a `with`, importing these modules fails as where they are not installed.

    For libraries that import others where they are there, and do without them where they are not. What was imported
    before stays; afterwards all can be imported as ever.
    """
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: Python's own sign for "not there"
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
