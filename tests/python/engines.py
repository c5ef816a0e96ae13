"""The same questions put to each tool that reads our tables: its rows, its types, and figures of the codes of each level.

Each engine does the counting by its own means, so that a list that one of them reads shifted or truncated shows.
"""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds


def table_files(output, table):
    """Files of a table, in the order of their units."""
    return sorted(map(str, (output / table).glob("split=*/*.parquet")))


class DuckDb:
    """SQL over a glob."""

    def _read(self, output, table):
        return f"read_parquet('{output}/{table}/*/*.parquet', hive_partitioning = true)"

    def count(self, output, table):
        return duckdb.sql(f"SELECT count(*) FROM {self._read(output, table)}").fetchall()[0][0]

    def types(self, output, table):
        rows = duckdb.sql(f"DESCRIBE SELECT * FROM {self._read(output, table)}").fetchall()
        return {name: kind for name, kind, *_ in rows}

    def statuses(self, output):
        return dict(duckdb.sql(f"SELECT status, count(*) FROM {self._read(output, 'images')} GROUP BY 1").fetchall())

    def level_figures(self, output, levels):
        return [
            duckdb.sql(
                f"SELECT count(*), count(DISTINCT code), sum(code)::BIGINT, min(code), max(code) FROM (SELECT "
                f"unnest(tokens[{level.start + 1}:{level.end}]) AS code FROM {self._read(output, 'tokens')})"
            ).fetchall()[0]
            for level in levels
        ]

    def rows(self, output):
        return dict(duckdb.sql(f"SELECT image_id, tokens FROM {self._read(output, 'tokens')}").fetchall())


class Polars:
    """Lazy scans; a list of fixed size arrives as an array."""

    def _scan(self, output, table):
        return pl.scan_parquet(f"{output}/{table}/**/*.parquet", hive_partitioning=True)

    def count(self, output, table):
        return self._scan(output, table).select(pl.len()).collect().item()

    def types(self, output, table):
        return {name: str(kind) for name, kind in self._scan(output, table).collect_schema().items()}

    def statuses(self, output):
        counts = self._scan(output, "images").group_by("status").len().collect()
        return dict(counts.iter_rows())

    def level_figures(self, output, levels):
        code = pl.col("code")
        figures = [pl.len(), code.n_unique(), code.cast(pl.Int64).sum(), code.min(), code.max()]
        frame = self._scan(output, "tokens").collect()
        return [
            frame.select(code=pl.col("tokens").arr.to_list().list.slice(level.start, level.end - level.start).explode())
            .select(*(figure.alias(str(number)) for number, figure in enumerate(figures)))
            .row(0)
            for level in levels
        ]

    def rows(self, output):
        return dict(self._scan(output, "tokens").select("image_id", pl.col("tokens").arr.to_list()).collect().iter_rows())


class Pandas:
    """A frame whose tokens column holds an array a row."""

    def _frame(self, output, table):
        return pd.read_parquet(output / table)

    def count(self, output, table):
        return len(self._frame(output, table))

    def types(self, output, table):
        # By Arrow's types: pandas' own name for a string changed between its versions.
        frame = pd.read_parquet(output / table, dtype_backend="pyarrow")
        return {name: str(kind) for name, kind in frame.dtypes.items()}

    def statuses(self, output):
        return {status: int(count) for status, count in self._frame(output, "images")["status"].value_counts().items()}

    def level_figures(self, output, levels):
        codes = np.stack(self._frame(output, "tokens")["tokens"].to_list())
        return [_figures(codes[:, level.start : level.end].ravel()) for level in levels]

    def rows(self, output):
        frame = self._frame(output, "tokens")
        return {image_id: codes.tolist() for image_id, codes in zip(frame["image_id"], frame["tokens"], strict=True)}


class PyArrow:
    """A dataset; the tokens flatten to a matrix without a copy."""

    def _dataset(self, output, table):
        return ds.dataset(str(output / table), format="parquet", partitioning="hive")

    def count(self, output, table):
        return self._dataset(output, table).count_rows()

    def types(self, output, table):
        return {field.name: str(field.type) for field in self._dataset(output, table).schema}

    def statuses(self, output):
        counts = pc.value_counts(self._dataset(output, "images").to_table()["status"])
        return {entry["values"]: entry["counts"] for entry in counts.to_pylist()}

    def level_figures(self, output, levels):
        table = self._dataset(output, "tokens").to_table()
        tokens = table["tokens"].combine_chunks()
        assert isinstance(tokens.type, pa.FixedSizeListType)
        codes = tokens.flatten().to_numpy().reshape(len(tokens), tokens.type.list_size)
        return [_figures(codes[:, level.start : level.end].ravel()) for level in levels]

    def rows(self, output):
        table = self._dataset(output, "tokens").to_table()
        return dict(zip(table["image_id"].to_pylist(), table["tokens"].to_pylist(), strict=True))


def _figures(codes):
    """Count, distinct codes, sum, least and greatest."""
    return (codes.size, np.unique(codes).size, int(codes.sum(dtype=np.int64)), int(codes.min()), int(codes.max()))


ENGINES = {"duckdb": DuckDb(), "polars": Polars(), "pandas": Pandas(), "pyarrow": PyArrow()}
