"""The folder `spark/`: the programs that spark-submit runs, profiles, logs, GPU discovery, pod templates.

It is at the top of a checkout, and inside the package that a wheel installs; setup.py puts it there.
"""

from __future__ import annotations

import os
from pathlib import Path

from tfos_job.errors import SettingsError
from tfos_job.submit import spark_submit

NAME = "spark"
_PACKAGE = Path(__file__).resolve().parents[1]
_MARK = Path(NAME, "conf", "common.conf")


def home() -> Path:
    """The folder that holds `spark/`: `$TFOS_JOB_HOME`, else the installed package, else the checkout.

    Raises:
      SettingsError: there is none.
    """
    given = os.environ.get("TFOS_JOB_HOME")
    candidates = [Path(given)] if given else [_PACKAGE, _PACKAGE.parent]
    for folder in candidates:
        if (folder / _MARK).is_file():
            return folder
    raise SettingsError(
        f"no {_MARK} in it",
        place=f"TFOS_JOB_HOME={given}" if given else str(_PACKAGE),
        next_step="Unset it, or set it to a checkout of this package" if given else "Install this package again",
    )


def profile(name: str) -> dict[str, str]:
    """The settings of `spark/conf/NAME.conf`."""
    path = home() / NAME / "conf" / f"{name}.conf"
    return spark_submit.parse_profile(path.read_text("utf-8"), str(path))


def pod_template(role: str) -> Path:
    """The pod template of `driver` or `executor`."""
    return home() / NAME / "kubernetes" / f"{role}.yaml"
