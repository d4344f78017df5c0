"""Rows as a Parquet file: the only importer of pyarrow, which is of the extra `infer`."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from tfos_job.errors import SettingsError
from tfos_job.scoring.rows import Row, values_of

EXTRA = "infer"


def require() -> None:
    """Raises SettingsError where pyarrow is not installed. Does not import it."""
    if importlib.util.find_spec("pyarrow") is None:
        raise SettingsError(
            "Parquet needs pyarrow, which is not installed in this Python",
            place="--output_format parquet",
            next_step=f"pip install 'tfos_job[{EXTRA}]', or give --output_format jsonl",
        )


def load() -> None:
    """Imports pyarrow, where it is used.

    Raises:
      SettingsError: it cannot be imported; the error names this host.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"Parquet needs pyarrow, which {sys.executable} cannot import: {error}",
            place=f"host {socket.gethostname()}",
            next_step=f"pip install 'tfos_job[{EXTRA}]' on every node, or give --output_format jsonl",
        ) from error


def write_parquet(blocks: Iterable[Sequence[Row]], stream: BinaryIO, model_digest: str, step: int | None) -> None:
    """Writes a file with a row group for each block; without any it has the columns, too."""
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema(
        [
            pa.field("source", pa.string(), nullable=False),
            ("offset", pa.int64()),
            ("label", pa.string()),
            ("label_id", pa.int32()),
            pa.field("classes", pa.list_(pa.string()), nullable=False),
            pa.field("class_ids", pa.list_(pa.int32()), nullable=False),
            pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
            ("doubtful", pa.string()),
            pa.field("model_digest", pa.string(), nullable=False),
            ("step", pa.int64()),
            ("error", pa.string()),
        ]
    )
    with pyarrow.parquet.ParquetWriter(stream, schema, compression="snappy") as writer:
        for block in blocks:
            values = [values_of(row, model_digest, step) for row in block]
            writer.write_table(pa.Table.from_pylist(values, schema=schema))
