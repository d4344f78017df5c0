"""Rows as a Parquet file: the only importer of pyarrow, which is of the extra `infer`."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence

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


def to_parquet(rows: Sequence[Row], model_digest: str, step: int | None) -> bytes:
    """The rows as one file; an empty one has the columns, too."""
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
    values = [values_of(row, model_digest, step) for row in rows]
    table = pa.Table.from_pylist(values, schema=schema)
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream, compression="snappy")
    return stream.getvalue()
