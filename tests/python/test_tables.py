"""DuckDB, Polars, pandas and pyarrow open the tables that restok writes, and agree on what is in them."""

import hashlib
import json

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import LAYOUTS, SAMPLES
from engines import ENGINES, table_files

LISTED, WRITTEN = 38, 36
STATUSES = {"ok": 36, "truncated": 1, "unsupported": 1}
LEVEL_OFFSETS = [0, 1, 2, 4, 8, 16, 32, 64, 128]

# Types of the two tables as each engine names them, `split` from the partition included.
TOKEN_TYPES = {
    "duckdb": {"image_id": "VARCHAR", "view": "TINYINT", "label": "INTEGER", "tokens": "SMALLINT[]", "split": "VARCHAR"},
    "polars": {
        "image_id": "String",
        "view": "Int8",
        "label": "Int32",
        "tokens": "Array(Int16, shape=(128,))",
        "split": "String",
    },
    "pandas": {
        "image_id": "string[pyarrow]",
        "view": "int8[pyarrow]",
        "label": "int32[pyarrow]",
        "tokens": "fixed_size_list<element: int16 not null>[128][pyarrow]",
        "split": "dictionary<values=string, indices=int32, ordered=0>[pyarrow]",
    },
    "pyarrow": {
        "image_id": "string",
        "view": "int8",
        "label": "int32",
        "tokens": "fixed_size_list<element: int16 not null>[128]",
        "split": "string",
    },
}
IMAGE_TYPES_DUCKDB = {
    "image_id": "VARCHAR",
    "source": "VARCHAR",
    "label": "INTEGER",
    "class_name": "VARCHAR",
    "width": "INTEGER",
    "height": "INTEGER",
    "bytes": "BIGINT",
    "sha256": "VARCHAR",
    "status": "VARCHAR",
    "error": "VARCHAR",
    "split": "VARCHAR",
}


@pytest.fixture(params=ENGINES, ids=str)
def engine(request):
    return request.param, ENGINES[request.param]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_engine_counts_what_the_manifest_says(engine, outputs, layout):
    _, reader = engine
    row_counts = json.loads((outputs[layout] / "_manifest.json").read_text())["books"]
    assert (row_counts["listed"], row_counts["written"], row_counts["token_rows"]) == (LISTED, WRITTEN, WRITTEN)
    assert reader.count(outputs[layout], "tokens") == WRITTEN
    assert reader.count(outputs[layout], "images") == LISTED
    assert reader.statuses(outputs[layout]) == STATUSES


def test_every_engine_sees_the_types_of_the_schema(engine, output):
    name, reader = engine
    assert reader.types(output, "tokens") == TOKEN_TYPES[name]


def test_the_images_table_has_its_columns(output):
    assert ENGINES["duckdb"].types(output, "images") == IMAGE_TYPES_DUCKDB


def test_every_engine_finds_the_same_codes_in_each_level(engine, output, levels, inspection):
    """Also the same as the program's own count, which shares no code with any of them."""
    _, reader = engine
    figures = reader.level_figures(output, levels)
    assert figures == ENGINES["pyarrow"].level_figures(output, levels)
    counted = [(level["codes"], level["distinct"]) for level in inspection["levels"]]
    assert [figure[:2] for figure in figures] == counted
    assert [figure[0] for figure in figures] == [WRITTEN * (level.end - level.start) for level in levels]
    # One picture's tokens are not another's: the coarsest level alone tells several apart.
    assert figures[0][1] > 1


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_an_image_has_the_same_tokens_from_every_layout(engine, outputs, layout):
    _, reader = engine
    rows = reader.rows(outputs[layout])
    assert len(rows) == WRITTEN and all(len(codes) == 128 for codes in rows.values())
    assert rows == reader.rows(outputs["folder"])


def test_tokens_and_images_join_on_the_key(outputs):
    for layout in LAYOUTS:
        unmatched = duckdb.sql(f"""
            SELECT count(*) FROM read_parquet('{outputs[layout]}/tokens/*/*.parquet') AS tokens
            FULL JOIN (FROM read_parquet('{outputs[layout]}/images/*/*.parquet') WHERE status = 'ok') AS images
            ON tokens.image_id = images.image_id AND tokens.label = images.label
            WHERE tokens.image_id IS NULL OR images.image_id IS NULL""").fetchall()[0][0]
        assert unmatched == 0, layout


def test_images_are_described_as_their_files_are(output):
    files = {path.stem: path for path in (SAMPLES / "folder").rglob("*") if path.is_file()}
    classes = sorted({path.parent.name for path in files.values()})
    rows = duckdb.sql(f"SELECT image_id, label, class_name, bytes, sha256, width, status, error "
                      f"FROM read_parquet('{output}/images/*/*.parquet')").fetchall()
    assert {row[0] for row in rows} == set(files)
    for image_id, label, class_name, size, digest, width, status, error in rows:
        path = files[image_id]
        content = path.read_bytes()
        assert (class_name, label) == (path.parent.name, classes.index(path.parent.name))
        assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
        if status == "ok":
            assert 200 <= width <= 500 and error is None
        else:
            assert error


def test_every_file_says_how_it_was_made(outputs):
    for layout in LAYOUTS:
        manifest = json.loads((outputs[layout] / "_manifest.json").read_text())
        for table in ("tokens", "images"):
            for unit, path in enumerate(table_files(outputs[layout], table)):
                pairs = {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()}
                assert pairs["restok.plan"] == manifest["plan"]
                assert int(pairs["restok.unit"]) == unit
                assert json.loads(pairs["restok.level_offsets"]) == LEVEL_OFFSETS
                assert int(pairs["restok.codebook_size"]) == 8192
                assert pairs["restok.crop"] == "adm-center-256" and pairs["restok.precision"] == "fp32"
                assert pairs["restok.tokenizer_sha256"] == manifest["settings"]["tokenizer"]["sha256"]
                for key in ("schema_version", "tokenizer", "device_kind", "libtorch", "decoder", "version"):
                    assert pairs[f"restok.{key}"], key


def test_the_manifest_names_every_file_with_its_size_and_digest(outputs):
    for layout in LAYOUTS:
        root = outputs[layout]
        manifest = json.loads((root / "_manifest.json").read_text())
        records = manifest["tokens"] + manifest["images"]
        assert {record["path"] for record in records} == {
            str(path.relative_to(root)) for path in root.rglob("*.parquet")
        }
        for record in records:
            content = (root / record["path"]).read_bytes()
            assert (record["bytes"], record["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
            assert record["rows"] == pq.read_metadata(root / record["path"]).num_rows


def test_codes_are_stored_by_dictionary_in_one_row_group(output):
    """13 bits a code and a table's few files depend on it; a fallback to plain pages would go unnoticed otherwise."""
    for path in table_files(output, "tokens"):
        metadata = pq.read_metadata(path)
        assert metadata.num_row_groups == 1
        tokens = metadata.row_group(0).column(3)
        assert tokens.path_in_schema == "tokens.list.element"
        assert tokens.has_dictionary_page and "RLE_DICTIONARY" in tokens.encodings
        assert tokens.compression == "ZSTD"


def test_rows_are_in_the_order_of_the_source(output):
    """The folder layout lists its files sorted; the order of a table is part of its bytes."""
    ids = [row for path in table_files(output, "images") for row in pq.read_table(path)["image_id"].to_pylist()]
    paths = sorted(str(path.relative_to(SAMPLES / "folder")) for path in (SAMPLES / "folder").rglob("*.*"))
    assert ids == [path.rsplit("/", 1)[1].rsplit(".", 1)[0] for path in paths]
