"""Which installed packages a job needs on its nodes, and which of their files. Runs on the submitting host.

The answer comes from the metadata that pip leaves beside each package: what `tfos_job` requires, what that requires in
turn, and the file list (RECORD) of each. Development tools that share the environment stay at home.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

from tfos_job.errors import SettingsError

ROOT = "tfos_job"

# Spark brings pyspark and py4j, the job brings tfos_job; libclang, wheel and pip serve those who build; the system's
# time zones come before tzdata's, and nothing of the job asks for one.
NOT_SHIPPED = frozenset({"pyspark", "py4j", "tfos-job", "libclang", "wheel", "pip", "tzdata"})
# Libraries for GPUs, where they are installed: tensorflow finds them beside itself without a requirement that says so.
ALWAYS_SHIPPED = "nvidia-"

# Each file costs YARN some 5 ms a node where Hadoop's native library is missing, so what no node opens stays at home.
_DROPPED_FOLDERS = (
    "tensorflow/include/",  # 11,000 headers
    "tensorflow/xla_aot_runtime_src/",
    "matplotlib/mpl-data/images/",  # of windows' buttons
    "matplotlib/mpl-data/sample_data/",
    "numpy/_core/include/",
)
_DROPPED_PARTS = frozenset({"__pycache__", "tests"})  # not `test`: tensorflow's API has modules of that name
_DROPPED_SUFFIXES = (
    *(".a", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".inc", ".lib", ".pc", ".exe"),
    *(".pxd", ".pxi", ".pyc", ".pyi", ".pyx", ".f", ".f90", ".md", ".rst"),
)
_KEPT_METADATA = frozenset({"METADATA", "entry_points.txt", "top_level.txt"})


def installed() -> dict[str, Distribution]:
    """Every distribution on `sys.path` by its normalised name; the first of a name counts, as for imports."""
    found: dict[str, Distribution] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"]:  # else the remains of an installation that broke off
            found.setdefault(normalised(distribution.metadata["Name"]), distribution)
    return found


def normalised(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def shipped(available: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """The distributions that travel, by normalised name: what `tfos_job` needs, and `nvidia-*` where it is installed.

    Raises:
      SettingsError: one that is needed is not installed.
    """
    requirements = {name: distribution.requires or [] for name, distribution in available.items()}
    names = closure(ROOT, requirements) | {name for name in available if name.startswith(ALWAYS_SHIPPED)}
    return {name: available[name] for name in sorted(names - NOT_SHIPPED)}


def closure(root: str, requirements: Mapping[str, Iterable[str]]) -> set[str]:
    """`root` and all that it requires, directly or by way of others, extras included.

    Args:
      root: the name of a distribution.
      requirements: of each installed distribution, by normalised name, as its metadata has them.

    Raises:
      SettingsError: one is not installed.
    """
    done: set[tuple[str, str]] = set()
    waiting = [(normalised(root), "", "")]
    while waiting:
        name, extra, wanted_by = waiting.pop()
        if (name, extra) in done or (name in NOT_SHIPPED and name != normalised(root)):
            continue
        if name not in requirements:
            raise SettingsError(
                f"{wanted_by + ' requires ' if wanted_by else ''}{name}, which is not installed in this Python",
                next_step="Install the package with all that it needs: pip install -e .",
            )
        done.add((name, extra))
        for requirement in map(Requirement, requirements[name]):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                for wanted in ("", *requirement.extras):
                    waiting.append((normalised(requirement.name), wanted, name))
    return {name for name, _ in done}


def is_needed(path: str) -> bool:
    """Whether a node may open a file of a package.

    Args:
      path: as in RECORD: relative to site-packages, with `/`.
    """
    if path.startswith((*_DROPPED_FOLDERS, "../", "/")) or not _DROPPED_PARTS.isdisjoint(path.split("/")):
        return False
    folder, _, name = path.rpartition("/")
    if folder.partition("/")[0].endswith((".dist-info", ".egg-info")):
        return name in _KEPT_METADATA
    return not name.endswith(_DROPPED_SUFFIXES)


class File(NamedTuple):
    """A file of a package: its place below site-packages, where it lies now, its hash as pip noted it."""

    relative: str
    path: Path
    sha256: str


def files(distribution: Distribution) -> Iterator[File]:
    """The needed files of a distribution.

    Raises:
      SettingsError: the metadata has no list of files, or one of them is gone.
    """
    name = distribution.metadata["Name"]
    listed = distribution.files
    if listed is None:
        raise SettingsError(
            f"the package {name} has no list of its files (RECORD)",
            next_step=f"Install it with pip into a virtual environment: pip install --force-reinstall {name}",
        )
    site = str(distribution.locate_file(""))
    for entry in listed:
        relative = str(entry)
        if is_needed(relative):
            path = Path(site, relative)
            if not path.is_file():
                raise SettingsError(
                    f"a file of the package {name} is not there",
                    place=str(path),
                    next_step=f"Install it again: pip install --force-reinstall {name}=={distribution.version}",
                )
            yield File(relative, path, entry.hash.value if entry.hash else "")


def fingerprint(distribution: Distribution) -> str:
    """What tells the needed files of a distribution from those of another: names, hashes as pip noted them, sizes."""
    lines = [f"{file.relative} {file.sha256} {file.path.stat().st_size}" for file in files(distribution)]
    return "\n".join([f"{distribution.metadata['Name']} {distribution.version}", *sorted(lines)])
