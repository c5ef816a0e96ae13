"""Outputs as `restok tokenize` leaves them, as far as they are read, of codes that a test or a benchmark has made up.

The tests of reading go by outputs of the program itself; these are for what takes many files, views or rows, or damage.
"""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as papq

ROWS_OF_A_FILE = 16_384
PLAN = "0123456789abcdef" * 4
CODEBOOK_SIZE = 8192


def write_output(output, codes, labels, *, images_of_a_file=ROWS_OF_A_FILE, levels=None, plan=PLAN, tokenizer="fedcba9876543210" * 4):
    """Writes codes of [images, views, tokens], with a label or None for each image."""
    images, views, tokens = codes.shape
    levels = levels or [1, tokens - 1]
    schema = pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("view", pa.int8(), nullable=False),
            pa.field("label", pa.int32()),
            pa.field("tokens", pa.list_(pa.field("element", pa.int16(), nullable=False), tokens), nullable=False),
        ],
        metadata={"restok.level_offsets": json.dumps([0, *np.cumsum(levels).tolist()]), "restok.plan": plan},
    )
    records = []
    for unit, start in enumerate(range(0, images, images_of_a_file)):
        part = codes[start : start + images_of_a_file]
        keys = [f"n{start + image:08}" for image in range(len(part)) for _ in range(views)]
        columns = [
            pa.array(keys),
            pa.array(np.tile(np.arange(views, dtype=np.int8), len(part))),
            pa.array([label for label in labels[start : start + len(part)] for _ in range(views)], pa.int32()),
            pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), type=schema.field("tokens").type),
        ]
        path = f"tokens/split=train/part-{unit:05}-{plan[:8]}.parquet"
        records.append(write_table(output, path, pa.table(columns, schema=schema)))
    counts = {"listed": images, "written": images, "rejected": {}, "token_rows": images * views, "bytes_read": 0}
    identity = {"name": "made up", "sha256": tokenizer, "codebook_size": CODEBOOK_SIZE, "levels": levels}
    settings = {"split": "train", "tokenizer": identity}
    manifest = {"schema_version": 1, "plan": plan, "settings": settings, "books": counts, "tokens": records, "images": []}
    (output / "_plan").mkdir()
    (output / "_plan/owner.json").write_text(json.dumps({"schema_version": 1, "plan": plan}))
    (output / "_manifest.json").write_text(json.dumps(manifest))
    (output / "_SUCCESS").touch()
    return output


def write_table(output, path, table):
    """Writes one file and returns its record."""
    file = output / path
    file.parent.mkdir(parents=True, exist_ok=True)
    papq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=3,
        use_dictionary=["tokens.list.element"],
        write_statistics=["image_id", "view", "label"],
        version="1.0",
        dictionary_pagesize_limit=1 << 20,
    )
    content = file.read_bytes()
    return {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "rows": len(table)}
