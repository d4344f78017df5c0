"""What ends these programs, and what they say meanwhile."""

from __future__ import annotations

import sys

LOG_TAIL_LINES = 25


class HadoopError(Exception):
    """What ends this program with `exit_code` and its text."""

    def __init__(self, text: str, exit_code: int = 69) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def say(text: str) -> None:
    print(f"hadoop: {text}", file=sys.stderr, flush=True)


def tail_of(lines: list[str]) -> str:
    return "\n".join(f"  | {line}" for line in lines[-LOG_TAIL_LINES:])
