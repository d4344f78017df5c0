"""The archive of an environment: its members, and writing them as .tar.gz or .zip. Runs on the submitting host.

::

    bin/python
    lib/                          shared libraries
    lib/python3N.zip              the standard library, by Python's own means
    lib/python3.N/                os.py (Python knows its folder by it) · lib-dynload/
    lib/python3.N/site-packages/  the packages, each module with its bytecode; `dist-packages` for a Debian Python
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
import marshal
import os
import stat
import sys
import tarfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath
from types import CodeType
from typing import BinaryIO

from tfos_job.submit import distributions, interpreter

# Level 6 takes twice the time of level 1 and saves a tenth (docs/decisions/0002-shipping-python.md).
GZIP_LEVEL = 1
_BLOCK_BYTES = 8 << 20
_PYC_HEADER_BYTES = 16
_UNCHECKED_PYC = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class PackedFile:
    """A file of the archive: its path there, and its bytes or its path on this host."""

    name: str
    content: bytes | Path
    is_program: bool = False

    @property
    def mode(self) -> int:
        """Permissions: readable by all; executable if it is on this host, as the assembler in nvidia-cuda-nvcc."""
        is_program = self.is_program or (isinstance(self.content, Path) and self.content.stat().st_mode & 0o100)
        return 0o755 if is_program else 0o644

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


# --- members ---------------------------------------------------------------------------------------------------------


def members(packages: Mapping[str, Distribution]) -> list[PackedFile]:
    """Returns all files of an environment with these packages."""
    lib = f"{sys.platlibdir}/python{sys.version_info[0]}.{sys.version_info[1]}"
    site = {file.relative: file.path for package in packages.values() for file in distributions.files(package)}
    stdlib = dict(interpreter.stdlib_files())
    program, extensions = interpreter.program(), interpreter.extension_modules()
    own_libraries, their_libraries = libraries(program, extensions, site)
    relocated = interpreter.relocated(program, extensions, "$ORIGIN/../lib", sorted(their_libraries))
    site_packages = interpreter.site_packages(program)
    found = [
        PackedFile("bin/python", relocated.pop(program), is_program=True),
        PackedFile(f"{sys.platlibdir}/python{sys.version_info[0]}{sys.version_info[1]}.zip", stdlib_zip(stdlib)),
        PackedFile(f"{lib}/os.py", stdlib["os.py"]),
        *(PackedFile(f"{lib}/lib-dynload/{path.name}", content) for path, content in relocated.items()),
        *(PackedFile(f"lib/{name}", path) for name, path in (their_libraries | own_libraries).items()),
        *(PackedFile(f"{site_packages}/{relative}", content) for relative, content in with_bytecode(site)),
    ]
    return sorted(found, key=lambda member: member.name)


def libraries(
    program: Path, extensions: list[Path], site: Mapping[str, Path]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Returns external shared libraries by name: those of the interpreter, and those of packages."""
    shipped = {Path(os.path.normpath(path)) for path in site.values()}
    theirs = interpreter.shared_libraries(sorted(path for path in shipped if ".so" in path.name))
    theirs = {name: path for name, path in theirs.items() if path not in shipped}  # wheels find their own
    return interpreter.shared_libraries([program, *extensions]), theirs


def stdlib_zip(files: Mapping[str, Path]) -> bytes:
    """Packs the standard library for Python's import from a zip, with bytecode that is not compared with sources."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for relative, path in sorted(files.items()):
            source = path.read_bytes()
            archive.writestr(zipfile.ZipInfo(relative, _EPOCH), source)
            if relative.endswith(".py") and (code := bytecode(path, source, f"<stdlib>/{relative}")):
                archive.writestr(zipfile.ZipInfo(f"{relative}c", _EPOCH), code)
    return stream.getvalue()


def with_bytecode(files: Mapping[str, Path]) -> Iterator[tuple[str, bytes | Path]]:
    """Yields the files of packages by their place, and the bytecode of each module where Python looks for it.

    Python writes bytecode at the first import, but not into YARN's read-only cache: every process would compile all of
    its imports, which takes three times as long as importing them.
    """
    for relative, path in files.items():
        yield relative, path
        if relative.endswith(".py") and (code := bytecode(path, path.read_bytes(), relative)):
            module = PurePosixPath(relative)
            yield str(module.parent / "__pycache__" / f"{module.stem}.{sys.implementation.cache_tag}.pyc"), code


def bytecode(path: Path, source: bytes, name: str) -> bytes | None:
    """Returns a module's .pyc file, never compared with its source; None if it does not compile, as a template.

    Args:
      path: of the module.
      source: its content.
      name: its file, as the bytecode has it.
    """
    code = _cached_code(path)
    if code is None:
        try:
            code = compile(source, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return None
    return _UNCHECKED_PYC + marshal.dumps(_renamed(code, name))


def _renamed(code: CodeType, name: str) -> CodeType:
    """The same code with `name` as its file: where it was compiled does not show. Python replaces it at the import."""
    constants = tuple(_renamed(c, name) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=name, co_consts=constants)


def _cached_code(path: Path) -> CodeType | None:
    """Returns the bytecode of pip or Python, if it belongs to the current content of the file."""
    try:
        content = Path(importlib.util.cache_from_source(str(path), optimization="")).read_bytes()
        status = path.stat()
    except OSError:
        return None
    stamp = int(status.st_mtime).to_bytes(4, "little") + (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    if content[:_PYC_HEADER_BYTES] != importlib.util.MAGIC_NUMBER + bytes(4) + stamp:
        return None
    return marshal.loads(content[_PYC_HEADER_BYTES:])


# --- writing ---------------------------------------------------------------------------------------------------------


def write_tar_gz(path: Path, contents: Iterable[PackedFile]) -> None:
    """Writes an archive of plain files, which does not depend on the user or the time."""
    with path.open("wb") as file, _Gzip(file) as compressed, tarfile.open(fileobj=compressed, mode="w|") as archive:
        for member in contents:
            info = tarfile.TarInfo(member.name)
            info.size = member.size_bytes
            info.mode = member.mode
            with _opened(member) as stream:
                archive.addfile(info, stream)


def write_zip(path: Path, contents: Iterable[PackedFile]) -> None:
    """Writes a zip, on one core: `--archives Python.zip#Python`, as the seed job ships its Python."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in contents:
            info = zipfile.ZipInfo(member.name, _EPOCH)
            info.external_attr = (stat.S_IFREG | member.mode) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            info.file_size = member.size_bytes  # beyond 2 GiB the header is another one
            with _opened(member) as source, archive.open(info, "w") as target:
                for block in iter(functools.partial(source.read, _BLOCK_BYTES), b""):
                    target.write(block)


def _opened(member: PackedFile) -> BinaryIO:
    return io.BytesIO(member.content) if isinstance(member.content, bytes) else member.content.open("rb")


class _Gzip(io.RawIOBase):
    """A stream that compresses blocks on all cores, each as a gzip member; gzip readers read them as one file."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._block = bytearray()
        self._threads = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads)
        self._waiting: deque[Future[bytes]] = deque()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        self._block += data
        while len(self._block) >= _BLOCK_BYTES:
            self._submit(bytes(self._block[:_BLOCK_BYTES]))
            del self._block[:_BLOCK_BYTES]
        return len(data)

    def _submit(self, block: bytes) -> None:
        self._waiting.append(self._pool.submit(gzip.compress, block, GZIP_LEVEL, mtime=0))
        while len(self._waiting) > 2 * self._threads:
            self._target.write(self._waiting.popleft().result())

    def close(self) -> None:
        if not self.closed:
            with self._pool:
                self._submit(bytes(self._block))
                while self._waiting:
                    self._target.write(self._waiting.popleft().result())
            super().close()


Writer = Callable[[Path, Iterable[PackedFile]], None]
WRITERS: Mapping[str, Writer] = {"tar.gz": write_tar_gz, "zip": write_zip}


def sorted_files(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, without bytecode, in an order that does not depend on the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield path
