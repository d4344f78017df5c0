"""The installed packages, and their files, that a job needs on its nodes. Runs on the submitting host.

They are determined from pip's metadata: the requirements of `tfos_job`, their requirements in turn, and the file list
(RECORD) of each package. Development tools in the environment are not shipped.
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

# Spark ships pyspark and py4j, and the job tfos_job. libclang, wheel and pip are build tools. The job needs no time
# zones, and those of the system have precedence over tzdata's.
NOT_SHIPPED = frozenset({"pyspark", "py4j", "tfos-job", "libclang", "wheel", "pip", "tzdata"})
# What is shipped where it is installed, though no job requires it: GPU libraries, which tensorflow finds in its
# environment, and what `infer` writes Parquet with (74 of 11,000 files: an environment of its own would cost more).
SHIPPED_IF_INSTALLED = re.compile(r"nvidia-.*|pyarrow")

# Each file costs YARN some 5 ms a node without Hadoop's native library, so files that no node opens are not shipped.
_DROPPED_FOLDERS = (
    "tensorflow/include/",  # 11,000 headers
    "tensorflow/xla_aot_runtime_src/",
    "matplotlib/mpl-data/images/",  # buttons of windows
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
    """Returns every distribution on `sys.path` by normalised name; the first of a name, as for imports."""
    found: dict[str, Distribution] = {}
    for distribution in importlib.metadata.distributions():
        if distribution.metadata["Name"]:  # without a name: remains of a failed installation
            found.setdefault(normalised(distribution.metadata["Name"]), distribution)
    return found


def normalised(name: str) -> str:
    """Normalises a distribution's name as the package index does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def shipped(available: Mapping[str, Distribution], extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """Returns the distributions to ship, by normalised name: what `tfos_job` requires, and what else is of use to jobs.

    Args:
      available: installed ones, by normalised name.
      extras: of `tfos_job` whose requirements travel, too.

    Raises:
      SettingsError: a required distribution is not installed.
    """
    requirements = {name: distribution.requires or [] for name, distribution in available.items()}
    names = closure(ROOT, requirements, extras) | {name for name in available if SHIPPED_IF_INSTALLED.fullmatch(name)}
    return {name: available[name] for name in sorted(names - NOT_SHIPPED)}


def closure(root: str, requirements: Mapping[str, Iterable[str]], extras: Iterable[str] = ()) -> set[str]:
    """Returns `root` and all of its requirements, direct and indirect, with the extras that they ask for.

    Args:
      root: the name of a distribution.
      requirements: requirements of each installed distribution, by normalised name, as in its metadata.
      extras: of `root`.

    Raises:
      SettingsError: a requirement is not installed, or `root` has no such extra.
    """
    done: set[tuple[str, str]] = set()
    waiting = [(normalised(root), extra, "") for extra in ("", *extras)]
    for extra in extras:
        _require_extra(root, requirements.get(normalised(root), ()), extra)
    while waiting:
        name, extra, wanted_by = waiting.pop()
        if (name, extra) in done or (name in NOT_SHIPPED and name != normalised(root)):
            continue
        if name not in requirements:
            raise SettingsError(
                f"{wanted_by + ' requires ' if wanted_by else ''}{name}, which is not installed in this Python",
                next_step=f"Install it: pip install {name}",
            )
        done.add((name, extra))
        for requirement in map(Requirement, requirements[name]):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                for wanted in ("", *requirement.extras):
                    waiting.append((normalised(requirement.name), wanted, name))
    return {name for name, _ in done}


def _require_extra(root: str, requirements: Iterable[str], extra: str) -> None:
    """Raises SettingsError for an extra that nothing is required for: the installed metadata may be old."""
    markers = [requirement.marker for requirement in map(Requirement, requirements) if requirement.marker is not None]
    if not any(one.evaluate({"extra": extra}) and not one.evaluate({"extra": ""}) for one in markers):
        raise SettingsError(
            f"the {root} that is installed in this Python has no extra {extra!r}",
            next_step=f"Install it again: pip install '{root}[{extra}]', or scripts/setup.sh in a checkout",
        )


def is_needed(path: str) -> bool:
    """True if a node may open a file of a package.

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
    """A file of a package: its path below site-packages, its path on this host, and its hash by pip's metadata."""

    relative: str
    path: Path
    sha256: str


def files(distribution: Distribution) -> Iterator[File]:
    """Yields the needed files of a distribution.

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
    """Returns a text that identifies the needed files of a distribution: names, hashes by pip's metadata, sizes."""
    lines = [f"{file.relative} {file.sha256} {file.path.stat().st_size}" for file in files(distribution)]
    return "\n".join([f"{distribution.metadata['Name']} {distribution.version}", *sorted(lines)])
