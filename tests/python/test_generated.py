"""A generated set, made by the program under test with the models that ship, in all its forms."""

import duckdb
import pyarrow.parquet as pq
import pytest
import sample_files
from conftest import SAMPLES, restok

CLOTHES = SAMPLES / "fashion-mnist"
COUNT = 30


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    output = tmp_path_factory.mktemp("generated")
    restok(
        *("generate", "--generator", CLOTHES / "generator", "--tokenizer", CLOTHES / "tokenizer", "--output", output),
        *("--count", COUNT, "--unit-size", 12, "--batch-size", 6, "--guidance-scale", 2, "--seed", 5),
        *("--pictures", "npz,parquet,webdataset,png", "--devices", "cpu", "--device-threads", 1),
    )
    return output


def test_all_forms_hold_one_set(generated):
    pictures = generated / "pictures"
    names = pq.read_metadata(next((pictures / "parquet").iterdir())).metadata[b"huggingface"]
    class_names = sample_files.json.loads(names)["info"]["features"]["label"]["names"]
    assert len(class_names) == 10 and class_names[9] == "ankle-boot"
    sample_files.assert_archive_is_as_python_writes_it(pictures / "samples.npz")
    sets = [
        sample_files.from_archive(pictures / "samples.npz"),
        sample_files.from_parquet((pictures / "parquet").iterdir(), class_names),
        sample_files.from_shards((pictures / "webdataset").iterdir(), class_names),
        sample_files.from_folder(pictures / "png"),
    ]
    assert len(sets[0]) == COUNT
    sample_files.assert_same_set(*sets)
    assert [label for _, (label, _) in sorted(sets[1].items())] == [sample % 10 for sample in range(COUNT)]


def test_the_tokens_table_says_sample_class_and_seed(generated):
    rows = duckdb.sql(f"""
        SELECT sample, label, seed, image_id, len(tokens), min(list_min(tokens)) OVER () >= 0
        FROM read_parquet('{generated}/tokens/**/*.parquet') ORDER BY sample
    """).fetchall()
    expected = [(sample, sample % 10, 5, f"{sample:06d}", 32, True) for sample in range(COUNT)]
    assert rows == expected
    metadata = pq.read_metadata(next((generated / "tokens").rglob("*.parquet"))).metadata
    assert metadata[b"restok.guidance"] == b"2" and metadata[b"restok.seed"] == b"5"
    assert b"step" in metadata[b"restok.guidance_schedule"]
