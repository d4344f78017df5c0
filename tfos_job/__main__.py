"""`tfos-job COMMAND` and `python -m tfos_job COMMAND`: a command in this process, or `submit`, which sends it away."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tfos_job.commands import completion, general
from tfos_job.commands.registry import COMMANDS, SUBMIT, SUBMIT_HELP
from tfos_job.host.results import escape_texts


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    escape_texts()
    words = general.with_help_last([*COMMANDS, SUBMIT], sys.argv[1:] if argv is None else argv)
    if words[:1] == [SUBMIT]:
        from tfos_job.submit import main as submit  # with storage, which `--help` need not import

        return submit.main(words[1:])
    if words and words[0].partition("=")[0] == completion.FLAG:
        from tfos_job.submit.own_flags import add_flags

        return completion.answer(words, COMMANDS, completion.Submit(SUBMIT, SUBMIT_HELP, add_flags))
    from tfos_job import cli

    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main())
