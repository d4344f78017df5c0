"""The names of networks: those of this package, and the user's own, which a command imports only if it is named."""

from __future__ import annotations

import re
from typing import Any

from tfos_job.config.defaults import NETWORKS
from tfos_job.config.flags import flag
from tfos_job.config.values import TextForm

_OWN_NETWORK = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)
NETWORK = TextForm(
    lambda name: name in NETWORKS or _OWN_NETWORK.fullmatch(name),
    "there is no network {!r}",
    f"Known: {', '.join(NETWORKS)}; your own is package.module:function",
    tuple(NETWORKS),
)
NETWORK_METAVAR = "NAME|MODULE:FUNCTION"


def own_network(whose: str = "the run") -> Any:
    """The flag of a command that reads a run, and calls the Python that the run names only if the user names it too."""
    return flag(
        f"the network of {whose}; fails if it is another. Needed for one of your own, package.module:function, which "
        "is Python that is imported and called",
        None,
        metavar=NETWORK_METAVAR,
        form=NETWORK,
    )
