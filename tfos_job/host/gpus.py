"""Which GPUs a process may use, where whoever started it has said so by CUDA_VISIBLE_DEVICES. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def allowed(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The GPUs that the variable lists, by number or UUID; None where it is not set.

    As CUDA does, this ends at the first entry that is none, such as -1.
    """
    if VARIABLE not in environ:
        return None
    entries = (entry.strip() for entry in environ[VARIABLE].split(","))
    return tuple(itertools.takewhile(lambda entry: entry and not entry.startswith("-"), entries))


def within(assigned: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """GPUs that somebody assigned who knew nothing of the variable: counted among those that it allows.

    Addresses that the variable has stay what they are: who assigned them knew of it.
    """
    own = allowed(environ)
    if own is None or set(assigned) <= set(own):
        return tuple(assigned)
    return tuple(own[int(number)] for number in assigned if number.isdigit() and int(number) < len(own))
