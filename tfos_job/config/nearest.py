"""The name that was meant by one that does not exist: of a flag, a key of a file, a command, a network. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_LIKENESS = 0.6  # of difflib's ratio: two letters of a short name, a third of a long one


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `word`; None if none is like it.

    Case, leading dashes, and dashes for underscores do not count. First come the first words of one name alone
    (`num_ps` of `num_ps_tasks`), then the likest name, then the initials of one name alone (`lr` of `learning_rate`).
    """
    names = list(dict.fromkeys(known))
    plain = {_plain(name): name for name in reversed(names)}  # of two that are alike, the first one
    sought = _plain(word)
    if sought in plain:
        return plain[sought]
    longer = [name for name in plain if name.startswith(f"{sought}_")]
    if len(longer) == 1:
        return plain[longer[0]]
    close = difflib.get_close_matches(sought, sorted(plain), n=1, cutoff=_LIKENESS)
    if close:
        return plain[close[0]]
    initials = [name for name in plain if _initials(name) == sought]
    return plain[initials[0]] if len(sought) > 1 and len(initials) == 1 else None


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The next step of an error about a name that does not exist: the nearest one, else all of them."""
    names = list(known)
    found = nearest(word, names)
    return f"Did you mean {prefix}{found}?" if found else f"Known: {', '.join(f'{prefix}{name}' for name in names)}"


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_").lower()


def _initials(name: str) -> str:
    return "".join(part[0] for part in re.split(r"[_./]", name) if part)
