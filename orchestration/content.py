"""The logical content of a table: one form to store it in, and a hash that row order does not change."""

from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


def canonical(data: pd.DataFrame | pa.Table) -> pa.Table:
    """The same rows in the types that Delta stores: plain strings, microseconds, no dictionaries."""
    table = pa.Table.from_pandas(data, preserve_index=False) if isinstance(data, pd.DataFrame) else data
    schema = pa.schema([pa.field(field.name, _stored_type(field.type)) for field in table.schema])
    return table.cast(schema)


def content_hash(data: pd.DataFrame | pa.Table) -> str:
    """SHA-256 of column names, types and rows; the order of rows and columns does not count."""
    table = canonical(data)
    table = table.select(sorted(table.column_names))
    if table.num_rows:
        table = table.sort_by([(name, "ascending") for name in table.column_names])
    digest = sha256(f"{table.num_rows}".encode())
    for field in table.schema:
        digest.update(f"|{field.name}:{field.type}|".encode())
        _feed(digest, pa.concat_arrays(table[field.name].chunks or [pa.array([], field.type)]))
    return digest.hexdigest()


def _stored_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _stored_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    return kind


def _feed(digest: Any, column: pa.Array) -> None:
    digest.update(np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    values = column.drop_null()
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        digest.update(pc.binary_length(values).to_numpy(zero_copy_only=False).tobytes())
        digest.update(b"".join(values.cast(pa.binary()).to_pylist()))
    elif pa.types.is_temporal(values.type):
        digest.update(values.cast(pa.int32() if pa.types.is_date32(values.type) else pa.int64()).to_numpy().tobytes())
    elif pa.types.is_floating(values.type):
        digest.update((values.to_numpy() + 0.0).tobytes())  # adding zero makes -0.0 and 0.0 the same
    else:
        digest.update(values.to_numpy(zero_copy_only=False).tobytes())
