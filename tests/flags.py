"""Configurations from flags, as a command line has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfos_job.commands import parser
from tfos_job.commands.registry import COMMANDS


def parse_config(name: str, flags: Sequence[str]) -> Any:
    """The configuration of a command from its flags, as its process would read them; raises what that would tell."""
    return parser.configuration(COMMANDS[name], parser.parse(COMMANDS, [name, *flags]).given)
