"""Builds the sdist and the wheel of this checkout, and proves both: what is in them, then the commands from the wheel.

    python scripts/wheel.py [FOLDER]     FOLDER gets both files (default: dist)

The sdist is made of what git knows, the wheel of the unpacked sdist. It is installed alone into a new environment that
finds its requirements in this one, so nothing is downloaded; commands run in an empty folder with Java and nothing else
of this checkout. Exit codes: 0, 1 (something is missing or fails), 2.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "tfos_job"
_KEPT_VARIABLES = ("JAVA_HOME", "LANG", "LC_ALL", "PATH", "TFOS_JOB_TEST_RUN", "TMPDIR")
_TYPED = """\
from tfos_job import TrainConfig

config = TrainConfig(dataset_dir="d", train_dir="t", batch_size=64)
size: int = config.batch_size
name: str = config.batch_size  # mypy must refuse this line alone
"""


class WheelError(Exception):
    """The sdist or the wheel is not what it must be."""


# --- build -----------------------------------------------------------------------------------------------------------


def build(folder: Path, work: Path) -> tuple[Path, Path]:
    """Builds both.

    Args:
      folder: gets the files.
      work: an empty folder for what comes between.

    Returns:
      The sdist and the wheel.
    """
    source = work / "checkout"
    _copy(source)
    folder.mkdir(parents=True, exist_ok=True)
    sdist = folder / _hook("build_sdist", source, folder)
    with tarfile.open(sdist) as archive:
        archive.extractall(work, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return sdist, folder / _hook("build_wheel", work / sdist.name.removesuffix(".tar.gz"), folder)


def tracked() -> list[str]:
    """The files of this checkout: those that git knows or would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise WheelError(f"{ROOT} is no git checkout: what belongs to the package is not known")
    return sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).is_file())


def _copy(target: Path) -> None:
    for name in tracked():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def _hook(name: str, source: Path, folder: Path) -> str:
    """Calls a function of the build backend, as pip and build do; returns the name of the file that it makes."""
    code = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
    said = _run([sys.executable, "-P", "-c", code, name, str(folder.resolve())], cwd=source, env=_environment({}))
    return said.splitlines()[-1]


# --- contents --------------------------------------------------------------------------------------------------------


def check_contents(sdist: Path, wheel: Path) -> None:
    """Compares both with the checkout.

    Raises:
      WheelError: a file is missing, or one is too many.
    """
    files = set(tracked())
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    _require_same(sdist, files & packed, files)
    package = {name for name in files if name.startswith(f"{NAME}/")}
    package |= {f"{NAME}/{name}" for name in files if name.startswith("spark/")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    _require_same(wheel, names - metadata, package)
    if not any(name.endswith("/licenses/LICENSE") for name in metadata):
        raise WheelError(f"{wheel}: LICENSE is missing")


def _require_same(archive: Path, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        wrong = [f"missing: {name}" for name in sorted(wanted - found)]
        wrong += [f"too many: {name}" for name in sorted(found - wanted)]
        raise WheelError("\n  ".join([f"{archive}:", *wrong]))


# --- the commands of the installed wheel -----------------------------------------------------------------------------


def install(wheel: Path, folder: Path) -> Path:
    """Installs the wheel into a new environment that finds its requirements in this one; returns its programs' folder.

    A line of a .pth file comes behind the environment's own packages, and the .pth files in that place are not read:
    an editable installation there is not seen.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    _run([*pip, str(wheel.resolve())], cwd=folder, env=_environment({}))
    (site,) = folder.glob("lib/python3.*/site-packages")
    others = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (site / "requirements.pth").write_text("".join(f"{entry}\n" for entry in others), "utf-8")
    (found,) = Distribution.discover(name=NAME, path=[str(site)])
    (script,) = found.entry_points.select(group="console_scripts", name="tfos-job")
    if script.value != f"{NAME}.__main__:main":
        raise WheelError(f"{wheel}: tfos-job is {script.value}")
    return folder / "bin"


def check_commands(programs: Path, work: Path) -> None:
    """Runs the commands of an installed wheel in an empty folder: help of each, a small dataset, a submission."""
    work.mkdir()
    environment = _environment({"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(work)})

    def run(*words: str) -> str:
        print("$", shlex.join(words), file=sys.stderr)
        return _run([str(programs / words[0]), *words[1:]], cwd=work, env=environment)

    place = run("python", "-P", "-c", f"import {NAME}; print({NAME}.__path__[0])").strip()
    if not place.startswith(f"{programs.parent}/"):
        raise WheelError(f"{place} is imported, not the wheel's package")
    listing = f"from {NAME}.commands.registry import COMMANDS, SUBMIT; print(*COMMANDS, SUBMIT)"
    told = {line.split()[0] for line in run("tfos-job", "--help").splitlines() if line.startswith("  ")}
    for name in run("python", "-P", "-c", listing).split():
        if name not in told:
            raise WheelError(f"tfos-job --help does not list {name}")
        run("tfos-job", name, "--help")
    run("tfos-job", "synth", "--gnt_dir", "gnt", "--charset_size", "3", "--num_writers", "2")
    run("tfos-job", "convert", "--gnt_dir", "gnt", "--dataset_dir", "dataset", "--charset_size", "3")
    folders = {name: (work / name).as_uri() for name in ("dataset", "run", "hdfs")}
    flags = ["--dataset_dir", folders["dataset"], "--train_dir", folders["run"], "--hdfs_dir", folders["hdfs"]]
    line = run("tfos-job", "submit", "train", *flags, "--num_gpus", "1", "--dry-run")
    _check_line(line, Path(place))


def _check_line(line: str, package: Path) -> None:
    """Every file of `spark/` that a spark-submit line names is the wheel's own, and there."""
    words = [part for word in shlex.split(line) for part in word.split(",")]
    paths = {Path(word) for word in words if f"/{NAME}/spark/" in word}
    program, script = package / "spark" / "train_job.py", package / "spark" / "conf" / "gpu_discovery.sh"
    if not {program, script} <= paths or not all(path.is_file() for path in paths):
        raise WheelError(f"tfos-job submit names other files than the wheel's: {line}")
    if not os.access(script, os.X_OK):
        raise WheelError(f"{script} is no program")


def check_types(programs: Path, work: Path) -> None:
    """mypy, where it is installed, sees the package's types in a user's project."""
    checker = shutil.which("mypy", path=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}")
    if checker is None:
        print("mypy is not there: types are not checked", file=sys.stderr)
        return
    work.mkdir()
    (work / "user.py").write_text(_TYPED, "utf-8")
    command = [checker, "--python-executable", str(programs / "python"), "--cache-dir", str(work / "cache"), "user.py"]
    done = subprocess.run(command, cwd=work, env=_environment({}), capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    if len(errors) != 1 or not errors[0].startswith("user.py:5: error: Incompatible types in assignment"):
        raise WheelError(f"mypy does not see the types: {done.stdout}{done.stderr}")


# --- processes -------------------------------------------------------------------------------------------------------


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**kept, "PYTHONNOUSERSITE": "1", **more}


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Runs a command to its end; returns its standard output."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WheelError(f"{shlex.join(command)} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the sdist and the wheel, and proves them.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "dist", help="gets both files (default: dist)")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as aside:
            work = Path(aside)
            sdist, wheel = build(args.folder, work)
            check_contents(sdist, wheel)
            programs = install(wheel, work / "environment")
            check_commands(programs, work / "account")
            check_types(programs, work / "project")
    except WheelError as e:
        print(f"wheel.py: {e}", file=sys.stderr)
        return 1
    print(sdist, wheel, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
