"""A program that gets SIGTERM when its parent ends, however that ends: `python with_parent.py PID PROGRAM WORDS…`.

It replaces itself by the program, and so must be a process of its own: another thread than the parent's main one may
not start it, since the kernel takes the end of that thread for the parent's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; it stays over an exec


def main(words: list[str]) -> None:
    """Becomes the program."""
    parent, *program = words
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before the kernel was told
        sys.exit(128 + signal.SIGTERM)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
