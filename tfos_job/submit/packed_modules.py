"""Python modules out of one file: becomes `sitecustomize` of the environment that travels, and so runs on every node.

Each file of an archive costs YARN some 5 ms a node, and an environment with TensorFlow has 6,000 Python files, as many
again with their bytecode. So sources and bytecode travel in one file, and modules are imported from there. Nothing else
changes: a module has the `__file__` that it would have, `__path__` leads to the folder with what is no module (shared
objects, data), sources are found for tracebacks and for `inspect`, and `sys.path` decides as ever who comes first.

::

    bin/python
    lib/                      shared libraries
    lib/python3.N.zip         the standard library, by Python's own means
    lib/python3.N/            os.py (Python knows its folder by it) · lib-dynload/ · sitecustomize.py (this file)
    lib/python3.N/modules     the length of the index in 8 bytes, the index (marshal), the bytes that it points to
    lib/python3.N/packages/   what is no module, where site-packages would be

The index is a pair. First, for each source file by its path below `packages`: `(offset of the bytecode, its length,
offset of the source, its length)`, where 0 is the length of bytecode that is not there, since Python cannot compile the
source. Second, the folders of these files, for packages without an `__init__.py`. Standard library only.
"""

from __future__ import annotations

import marshal
import mmap
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

INDEX_LENGTH_BYTES = 8
INIT = "__init__.py"


class Modules:
    """The file with the modules, as it is in memory.

    Args:
      path: of the file.
      folder: where the modules seem to lie.
    """

    def __init__(self, path: str, folder: str) -> None:
        self.folder = folder
        with open(path, "rb") as file:
            # Mapped: processes of a host share it, forked ones too, and nothing is read that nobody imports.
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._begin = INDEX_LENGTH_BYTES + int.from_bytes(self._bytes[:INDEX_LENGTH_BYTES], "little")
        self.index: dict[str, tuple[int, int, int, int]]
        self.folders: frozenset[str]
        self.index, self.folders = marshal.loads(self._bytes[INDEX_LENGTH_BYTES : self._begin])

    def relative(self, path: str) -> str | None:
        """The path below the folder; None where it is elsewhere."""
        if path == self.folder:
            return ""
        return path[len(self.folder) + 1 :] if path.startswith(self.folder + os.sep) else None

    def code(self, relative: str) -> CodeType | None:
        offset, length, _, _ = self.index[relative]
        return marshal.loads(self._cut(offset, length)) if length else None

    def source(self, relative: str) -> bytes:
        _, _, offset, length = self.index[relative]
        return self._cut(offset, length)

    def _cut(self, offset: int, length: int) -> bytes:
        return self._bytes[self._begin + offset : self._begin + offset + length]


class PackedLoader(SourceFileLoader):
    """Loads one module of `Modules`. Resources and the like are found as for any file."""

    def __init__(self, fullname: str, path: str, modules: Modules, relative: str) -> None:
        super().__init__(fullname, path)
        self._modules = modules
        self._relative = relative

    def get_code(self, fullname: str) -> CodeType | None:
        code = self._modules.code(self._relative)
        if code is None:
            return self.source_to_code(self._modules.source(self._relative), self.path)  # raises the SyntaxError
        return relocated(code, self.path)

    def get_data(self, path: str) -> bytes:
        return self._modules.source(self._relative) if path == self.path else super().get_data(path)


class PackedFinder(FileFinder):
    """Finds modules for one folder of a path: those of `Modules`, and beside them what the folder really holds.

    It is a FileFinder for `pkg_resources` too, which looks for a distribution's metadata by the type of the finder.
    """

    def __init__(self, path: str, modules: Modules, relative: str) -> None:
        super().__init__(
            path,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (SourceFileLoader, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )
        self._modules = modules
        self._prefix = f"{relative}/" if relative else ""

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        name = self._prefix + fullname.rpartition(".")[2]
        if f"{name}/{INIT}" in self._modules.index:
            return self._packed(fullname, f"{name}/{INIT}")
        found = super().find_spec(fullname, target)
        if found is not None and found.loader is not None:
            return found  # a shared object, which Python prefers to a source of the same name
        if f"{name}.py" in self._modules.index:
            return self._packed(fullname, f"{name}.py")
        if found is None and name in self._modules.folders:
            found = ModuleSpec(fullname, None, is_package=True)  # a part of a namespace package
            found.submodule_search_locations = [os.path.join(self._modules.folder, name)]
        return found

    def _packed(self, fullname: str, relative: str) -> ModuleSpec | None:
        path = os.path.join(self._modules.folder, relative)
        loader = PackedLoader(fullname, path, self._modules, relative)
        folders = [os.path.dirname(path)] if relative.endswith(f"/{INIT}") else None
        return spec_from_file_location(fullname, path, loader=loader, submodule_search_locations=folders)

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """For `pkgutil`: names, and whether they are packages."""
        found = {}
        for relative in self._modules.index:
            if relative.startswith(self._prefix):
                name, _, rest = relative[len(self._prefix) :].partition("/")
                if rest in ("", INIT) and name != INIT:
                    found[name.removesuffix(".py")] = rest == INIT
        if os.path.isdir(self.path):
            for name in os.listdir(self.path):
                if name.endswith(tuple(EXTENSION_SUFFIXES)):
                    found.setdefault(name.partition(".")[0], False)
        for name, is_package in sorted(found.items()):
            yield prefix + name, is_package


def relocated(code: CodeType, path: str) -> CodeType:
    """The same code, which says that it comes from `path`."""
    constants = tuple(relocated(c, path) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=path, co_consts=constants)


def install(path: str, folder: str) -> None:
    """Has this Python import the modules of the file `path` as if they lay in `folder`."""
    modules = Modules(path, folder)

    def hook(entry: str) -> PackedFinder:
        relative = modules.relative(entry)
        if relative is None:
            raise ImportError(entry)  # for the next hook
        return PackedFinder(entry, modules, relative)

    sys.path_hooks.insert(0, hook)
    pkgutil.iter_importer_modules.register(PackedFinder, PackedFinder.iter_modules)  # type: ignore[attr-defined]


def _main(here: Sequence[str]) -> None:
    import site

    install(os.path.join(*here, "modules"), os.path.join(*here, "packages"))
    site.addsitedir(os.path.join(*here, "packages"))  # with the .pth files there


if __name__ == "sitecustomize":
    _main([os.path.dirname(os.path.abspath(__file__))])
