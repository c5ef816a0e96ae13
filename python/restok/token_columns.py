"""The tokens column of Arrow rows as a NumPy matrix, where it lies: nothing is copied."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from restok.errors import OutputError, SettingsError
from restok.levels import Levels

#: Key of the level offsets in the metadata of files and schemas.
KEY_LEVEL_OFFSETS = b"restok.level_offsets"

_COLUMNS = {"image_id": pa.string(), "view": pa.int8(), "label": pa.int32()}

Codes = npt.NDArray[np.int16]


def codes(rows: pa.RecordBatch | pa.Table | pa.Array | pa.ChunkedArray, level: int | None = None, levels: Levels | None = None) -> Codes:
    """The codes of some rows: an array of [rows, tokens] over the memory of Arrow, which may be read but not written.

    `rows` is a batch or a table with the column `tokens`, or that column. `level` takes one level, coarsest first; which tokens those are
    stands in the schema of what an `Output` gives, else `levels` has to say it.

    A column in several pieces is no matrix: ask for batches, or let `Table.combine_chunks` copy it first.
    """
    column = rows.column("tokens") if isinstance(rows, (pa.RecordBatch, pa.Table)) else rows
    if level is not None and levels is None:
        levels = _levels_of(rows)
    matrix = _matrix(column)
    if level is None:
        return matrix
    assert levels is not None
    if matrix.shape[1] != levels.tokens_per_image:
        raise SettingsError(f"rows of {matrix.shape[1]} tokens, expected {levels.tokens_per_image}, as levels of {list(levels.sizes)} have")
    return matrix[:, levels[level]]


def check_token_schema(schema: pa.Schema, tokens_per_image: int, address: str) -> None:
    """Raises unless the columns of the tokens table are there and of their types."""

    def type_of(name: str) -> Any:
        return schema.field(name).type if name in schema.names else "no such column"

    for name, kind in _COLUMNS.items():
        if type_of(name) != kind:
            raise OutputError(f"{address}: column {name}: {type_of(name)}, expected {kind}")
    found = type_of("tokens")
    if not _is_list_of_codes(found) or found.list_size != tokens_per_image:
        raise OutputError(f"{address}: column tokens: {found}, expected a list of {tokens_per_image} int16")


def _levels_of(rows: pa.RecordBatch | pa.Table | pa.Array | pa.ChunkedArray) -> Levels:
    metadata = rows.schema.metadata if isinstance(rows, (pa.RecordBatch, pa.Table)) else None
    offsets = (metadata or {}).get(KEY_LEVEL_OFFSETS)
    if offsets is None:
        raise SettingsError("these rows do not say what their levels are: expected `levels`, such as those of the output")
    return Levels.from_offsets(json.loads(offsets), "schema of the rows")


def _is_list_of_codes(kind: object) -> bool:
    return isinstance(kind, pa.FixedSizeListType) and kind.value_type == pa.int16()


def _matrix(column: pa.Array | pa.ChunkedArray) -> Codes:
    if not _is_list_of_codes(column.type):
        raise SettingsError(f"column tokens: {column.type}, expected a list of a fixed size of int16")
    size = column.type.list_size
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 0:
            return np.empty((0, size), np.int16)
        if column.num_chunks > 1:
            raise SettingsError(f"tokens in {column.num_chunks} pieces, expected one: take batches, or combine_chunks(), which copies")
        column = column.chunk(0)
    # All values of the list's memory, those of rows before a slice and after it included.
    first, last = column.offset * size, (column.offset + len(column)) * size
    values = column.values.slice(first, last - first)
    if nulls := column.null_count or values.null_count:
        raise OutputError(f"column tokens: {nulls} nulls, expected none")
    matrix: Codes = values.to_numpy(zero_copy_only=True).reshape(len(column), size)
    return matrix
