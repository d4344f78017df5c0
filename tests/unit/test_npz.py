"""Arrays of somebody else's: nothing is unpickled, and no file is more than its bytes."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.small_checkpoints import publish
from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.formats import npz
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoint_files, checkpoints
from tfos_job.run.predictions import JudgedShard
from tfos_job.statistics import pixel_statistics


class Bomb:
    """What runs a command as soon as it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._command = f"touch {marker}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def pickled(marker: Path) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{"model/fc1/kernel": np.array([Bomb(marker)], object)})  # type: ignore[arg-type]
    return stream.getvalue()


def member(data: bytes, name: str = "x.npy", method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def text(value: np.ndarray) -> str:
    """An array as executors send it."""
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return base64.b64encode(stream.getvalue()).decode()


def array(shape: tuple[int, ...]) -> bytes:
    """An .npy that says it were of this shape, with eight bytes of numbers."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(8)


def test_numpy_would_run_it_and_we_do_not(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = pickled(marker)
    with np.load(io.BytesIO(data), allow_pickle=True) as arrays:
        arrays["model/fc1/kernel"]
    marker.unlink()  # so it runs
    run = RunLayout(str(tmp_path / "run"))
    publish(run, 3)
    folder = Path(run.checkpoint(3))
    document = storage.read_json(str(folder / "checkpoint.json"))
    (folder / "variables.npz").write_bytes(data)
    document["files"]["variables.npz"] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    storage.write_json(
        str(folder / "checkpoint.json"), document | {"document_sha256": checkpoint_files.document_digest(document)}
    )
    (tmp_path / "statistics.npz").write_bytes(data)
    with pytest.raises(BadDataError, match="Object arrays cannot be loaded"):
        checkpoints.read(run, run.checkpoint(3))
    with pytest.raises(BadDataError, match="Object arrays cannot be loaded"):
        pixel_statistics.read(str(tmp_path / "statistics.npz"))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        JudgedShard.from_json([text(np.array([Bomb(marker)], object))] * 5)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a zip file"),
        (b"\x93NUMPY", "not a zip file"),
        (member(bytes(1 << 20), method=zipfile.ZIP_DEFLATED), "x.npy is compressed"),
        (member(array((1 << 40,))), None),
        (member(array((1 << 62, 1 << 62))), None),
        (member(array((-1,))), None),
        (member(b"\x80\x04N."), None),
        (member(b"text", "x.txt"), "x.txt is no array"),
        (member(array((2,)))[:-30], "not a zip file"),
    ],
    ids=range(9),
)
def test_what_is_no_npz_of_ours_is_refused(data: bytes, words: str | None) -> None:
    with pytest.raises(ValueError, match=words):
        npz.load(data)


def test_what_is_stored_is_read() -> None:
    (found,) = npz.load(member(array((2,)))).values()
    assert found.tolist() == [0, 0]
    assert npz.load(member(array((2,))), ("x",)) == {}
