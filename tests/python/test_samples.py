"""The built-in sample is one set in three layouts."""

import json
import tarfile

import pyarrow.parquet as pq
from conftest import SAMPLES


def folder_files():
    """(class, bytes) by file name."""
    paths = [path for path in (SAMPLES / "folder").rglob("*") if path.is_file()]
    return {path.name: (path.parent.name, path.read_bytes()) for path in paths}


def test_tar_shards_hold_the_folder_files_with_their_labels():
    files = folder_files()
    classes = sorted({kind for kind, _ in files.values()})
    found = {}
    for shard in sorted((SAMPLES / "webdataset").glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        for name in members:
            stem, extension = name.rsplit(".", 1)
            if extension in ("cls", "json"):
                continue
            described = json.loads(members[f"{stem}.json"])
            assert int(members[f"{stem}.cls"]) == described["label"] == classes.index(described["class_name"])
            assert described["filename"] == f"{described['class_name']}/{name}"
            found[name] = (described["class_name"], members[name])
    assert found == files


def test_the_parquet_file_holds_the_folder_files_with_their_labels():
    table = pq.read_table(SAMPLES / "parquet" / "sample-00000-of-00001.parquet")
    described = json.loads(table.schema.metadata[b"huggingface"])
    classes = described["info"]["features"]["label"]["names"]
    rows = table.to_pylist()
    assert {row["image"]["path"]: (classes[row["label"]], row["image"]["bytes"]) for row in rows} == folder_files()
    assert pq.read_metadata(SAMPLES / "parquet" / "sample-00000-of-00001.parquet").num_row_groups > 1
