"""The SQL views of schemas/sql show each level as its own column."""

import re
from pathlib import Path

import duckdb
import pytest
from conftest import CHECKOUT
from engines import ENGINES

VIEWS = CHECKOUT / "schemas" / "sql"


@pytest.fixture
def connection(output):
    connection = duckdb.connect()
    connection.execute(f"SET VARIABLE restok_output = '{output}'")
    connection.execute((VIEWS / "levels.duckdb.sql").read_text())
    return connection


def test_level_columns_put_together_are_the_tokens(connection, output, levels):
    columns = [f"level_{level.number}" for level in levels]
    rows = connection.sql(f"SELECT image_id, {' || '.join(columns)} FROM token_levels").fetchall()
    assert dict(rows) == ENGINES["pyarrow"].rows(output)


def test_each_level_column_has_its_length(connection, levels):
    lengths = ", ".join(f"min(len(level_{level.number})), max(len(level_{level.number}))" for level in levels)
    found = connection.sql(f"SELECT {lengths} FROM token_levels").fetchall()[0]
    expected = [length for level in levels for length in (level.end - level.start,) * 2]
    assert list(found) == expected


def test_codes_one_by_one_have_the_figures_of_their_level(connection, output, levels):
    rows = connection.sql("""
        SELECT count(*), count(DISTINCT code), sum(code)::BIGINT, min(code), max(code), min(position), max(position)
        FROM token_codes GROUP BY level ORDER BY level""").fetchall()
    assert [row[:5] for row in rows] == ENGINES["pyarrow"].level_figures(output, levels)
    assert [row[5:] for row in rows] == [(level.start, level.end - 1) for level in levels]


def test_books_are_counted_by_status(connection):
    rows = connection.sql("SELECT split, status, images FROM books ORDER BY status").fetchall()
    assert rows == [("sample", "ok", 36), ("sample", "truncated", 1), ("sample", "unsupported", 1)]


def test_spark_slices_where_duckdb_does():
    """Spark is too large for this suite; its slices (start, length) are held to DuckDB's (start, end), which are tested above."""
    duckdb_slices = re.findall(r"tokens\[(\d+):(\d+)\] AS level_(\d)\b,?\n", _text("levels.duckdb.sql"))
    spark_slices = re.findall(r"slice\(tokens, (\d+), (\d+)\) AS level_(\d)\b,?\n", _text("levels.spark.sql"))
    assert len(duckdb_slices) == 8
    as_ends = [(start, str(int(start) + int(length) - 1), level) for start, length, level in spark_slices]
    assert as_ends == duckdb_slices


def _text(name):
    lines = Path(VIEWS / name).read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("--"))
