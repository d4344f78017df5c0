"""The user's own networks: how one is named, and the flag by which a command may import it."""

from __future__ import annotations

import re
from typing import Any

from tfos_job.config.flags import flag
from tfos_job.config.values import TextForm

is_own_network = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII).fullmatch
"""Matches `package.module:function`."""
_OWN_NETWORK = TextForm(
    is_own_network, "{!r} is not the name of a network of your own", "Write it as package.module:function"
)


def own_network(whose: str = "the run's") -> Any:
    """The flag of a command that reads a run, and calls the Python that the run names only if the user names it too."""
    return flag(
        f"{whose} own network, as package.module:function: Python that is imported and called; needed for a run of "
        "such a network, and fails if the run has another one",
        None,
        metavar="MODULE:FUNCTION",
        form=_OWN_NETWORK,
    )
