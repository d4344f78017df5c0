"""The font of pictures and of synthetic characters: Noto Sans CJK, a package of its own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tfos_job.errors import MissingInputError

_PACKAGE = "cvttf_NotoSansCJK_Regular"


def find_font() -> str:
    """Returns the path of the font's file.

    Raises:
      MissingInputError: it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.otf")):
            return str(path)
    raise MissingInputError(
        "the font that characters are drawn from is not installed",
        place=_PACKAGE,
        next_step="Install the package with all that it needs: pip install tfos_job",
    )
