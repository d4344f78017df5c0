"""Arrays in the bytes of an .npz, which may be somebody else's: numbers alone, and no more of them than bytes."""

from __future__ import annotations

import io
import zipfile

import numpy as np


def load(data: bytes, leave_out: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz whose members are stored as they are.

    Args:
      data: the bytes of the file.
      leave_out: beginnings of the names of arrays that are not wanted.

    Raises:
      ValueError: it is none; a member is compressed, which could be a thousand times as large; or an array is of
        Python's objects, which are never unpickled, or larger than the file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
                    raise ValueError(f"{info.filename} is compressed")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if not name.startswith(leave_out)}
    except (OSError, EOFError, KeyError, MemoryError, OverflowError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    if raw := next((name for name, array in found.items() if not isinstance(array, np.ndarray)), None):
        raise ValueError(f"{raw} is no array")  # a member of another name is handed out as bytes
    return found
