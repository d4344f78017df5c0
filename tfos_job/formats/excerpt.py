"""Single records of TFRecord files, by position. Files have no index, so all records before one are read."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import NamedTuple

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.formats.tf_example import decode_features
from tfos_job.formats.tfrecord import read_records


class Excerpt(NamedTuple):
    """A record: its Example's bytes, and where in its shard they begin."""

    example: bytes
    offset: int

    def source(self) -> tuple[str, int | None]:
        """The source file that the record came from and its offset there, where the Example names them.

        TF-Slim's records name at most a file, the one that their picture was.

        Raises:
          ValueError: not an Example.
        """
        features = decode_features(self.example, ("source/file", "source/offset", "image/filename"))
        (file, *_), (offset, *_) = (features.get(key) or (None,) for key in ("source/file", "source/offset"))
        if file is None:
            (file, *_) = features.get("image/filename") or (None,)
        name = file.decode("utf-8", "backslashreplace") if isinstance(file, bytes) else ""
        return name, offset if isinstance(offset, int) else None


def read_positions(path: str, positions: Collection[int]) -> dict[int, Excerpt]:
    """The records at these positions of a file, local or remote; it is read up to the last of them.

    Raises:
      BadDataError: a damaged record on the way, or fewer of them.
      MissingInputError: no such file.
    """
    wanted = set(positions)
    found: dict[int, Excerpt] = {}
    num_read = 0
    with contextlib.closing(storage.open_read(path)) as stream:
        for offset, data in read_records(stream, path) if wanted else ():
            if num_read in wanted:
                found[num_read] = Excerpt(data, offset)
                if len(found) == len(wanted):
                    return found
            num_read += 1
    if wanted:
        raise BadDataError(
            f"has {num_read} records, expected {max(wanted) + 1} or more",
            place=path,
            next_step="Run `verify` on the split",
        )
    return found
