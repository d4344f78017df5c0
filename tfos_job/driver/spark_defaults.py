"""spark-defaults.conf: its place, its settings, those that a local run takes, and the one behind an error."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import pyspark

log = logging.getLogger(__name__)

CONF_DIR_VARIABLE = "SPARK_CONF_DIR"
# A local run takes only these settings of a cluster's spark-defaults.conf: those about this host. Others are useless
# here, and some (event logs, listeners, Kerberos, task sizes) prevent the start.
_OF_THIS_HOST = ("spark.local.dir", "spark.driver.memory", "spark.driver.maxResultSize")


def defaults_file(environ: Mapping[str, str]) -> Path:
    """Returns the path of spark-defaults.conf."""
    home = environ.get("SPARK_HOME") or str(Path(pyspark.__file__).parent)
    return Path(environ.get(CONF_DIR_VARIABLE) or f"{home}/conf") / "spark-defaults.conf"


def read_defaults(file: Path) -> dict[str, str]:
    """Returns the settings of the file; empty if it cannot be read."""
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    matches = (re.match(r"\s*(spark\.[^\s=:]+)\s*[\s=:]\s*(.*?)\s*$", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def kept_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings of the file that a local run takes."""
    file = defaults_file(environ)
    found = read_defaults(file)
    for key in sorted(set(found) - set(_OF_THIS_HOST)):
        log.debug("%s of %s is the cluster's: a local run goes without", key, file)
    return {key: value for key, value in found.items() if key in _OF_THIS_HOST}


def blamed(words: str, settings: Mapping[str, str]) -> str:
    """Returns the setting whose value is part of Java's message; empty if none is."""
    for key, value in settings.items():
        without_scheme = re.sub(r"^\w+:(?://(?=/))?", "", value)
        host = re.match(r"\w+://([^/:]+)", value)
        names = [value, without_scheme, *([host[1]] if host else [])]
        if any(len(name) > 1 and re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", words) for name in names):
            return key
    return ""
