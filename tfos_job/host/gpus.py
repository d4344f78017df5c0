"""The GPUs that CUDA_VISIBLE_DEVICES allows to a process. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def allowed(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Returns the GPUs of the variable, by number or UUID; None if it is not set.

    The list ends at the first invalid entry, such as -1, as in CUDA.
    """
    if VARIABLE not in environ:
        return None
    entries = (entry.strip() for entry in environ[VARIABLE].split(","))
    return tuple(itertools.takewhile(lambda entry: entry and not entry.startswith("-"), entries))


def within(assigned: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Converts assigned addresses into entries of the variable: address n is its entry number n.

    Addresses stay as they are if the variable contains all of them: they were assigned with regard to it.
    """
    own = allowed(environ)
    if own is None or set(assigned) <= set(own):
        return tuple(assigned)
    return tuple(own[int(number)] for number in assigned if number.isdigit() and int(number) < len(own))
