"""What a file of Keras's may be before its weights are loaded: numbers that lie in the file itself.

HDF5 can name other files for its numbers: by an external link, external storage or a virtual dataset. The weights of
somebody else's file would be the bytes of any file on this host, and would leave it with the network's next export.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import h5py

from tfos_job.errors import BadDataError

_MEMBER = "model.weights.h5"  # of a `.keras`: the only one that is read for weights; the configuration is not
_MOST_BYTES = 8 << 30


def require_own_numbers(path: str, place: str) -> None:
    """Looks through a local file.

    Args:
      path: a `.h5`, or a `.keras`, which is a ZIP archive of one. The name tells which, as it does to Keras: a file may
        be both, since an archive is found by its end.
      place: what an error calls it.

    Raises:
      BadDataError: it takes numbers from another file.
      Exception: whatever h5py and zipfile raise for what is no such file.
    """
    if not path.endswith(".keras"):
        with h5py.File(path, "r") as file:
            _look(file, place)
        return
    with zipfile.ZipFile(path) as archive:
        size_bytes = archive.getinfo(_MEMBER).file_size
        if size_bytes > _MOST_BYTES:
            raise BadDataError(f"{_MEMBER} would have {size_bytes} bytes", place=place, next_step=_NEXT_STEP)
        with h5py.File(io.BytesIO(archive.read(_MEMBER)), "r") as file:
            _look(file, place)


def _look(root: Any, place: str) -> None:
    waiting, seen = [root], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise _foreign(f"{group.name}/{name} leads to {link.filename}", place)
            item = None if isinstance(link, h5py.SoftLink) else group[name]  # what it leads to is in the file, or not
            if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise _foreign(f"{item.name} lies in another file", place)
            if isinstance(item, h5py.Group) and item.id not in seen:  # groups may hold each other
                seen.add(item.id)
                waiting.append(item)


def _foreign(fact: str, place: str) -> BadDataError:
    return BadDataError(f"takes its weights from another file: {fact}", place=place, next_step=_NEXT_STEP)


_NEXT_STEP = "Give a file that Keras has written"
