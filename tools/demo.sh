#!/usr/bin/env bash
# The main job on the built-in sample: the same images in three layouts become three token tables, then they are looked at.
# Run again, it finds its units done and only looks. `make demo` builds what it needs first.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly restok=${RESTOK_BINARY:-target/debug/restok}
readonly output=${1:-demo-output}
readonly tokenizer=tests/fixtures/tokenizer

step() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
# Shows a command as a user would type it, and runs it.
run() { printf '$ %s\n' "${*/#$restok/restok}" >&2; "$@"; }

step "1. Images become tables: one sample in three layouts, two broken files in each"
for layout in folder webdataset parquet; do
  # One image in twenty is broken on purpose, above the usual limit of 1 %.
  run "$restok" tokenize --source "samples/$layout" --output "$output/$layout" --tokenizer "$tokenizer" \
    --split sample --unit-size 16 --batch-size 8 --max-reject-rate 10%
done

step "2. The books, the provenance and the use of the codebook, level by level"
run "$restok" inspect "$output/folder"

step "3. Every file is what its marker says"
run "$restok" verify "$output/folder"

step "4. Tokens become images again: originals above what the first 1, 2, 4 … 128 tokens tell"
run "$restok" reconstruct --tokens "$output/folder" --tokenizer "$tokenizer" --to "$output/images" --images 6

step "5. The tables are plain Parquet: one SQL query over the three of them"
OUTPUT=$output .venv/bin/python - <<'PYTHON'
import os
import duckdb

root = os.environ["OUTPUT"]
query = f"""
SELECT split_part(filename, '/', -4) AS layout,
       count(*)                       AS rows,
       count(DISTINCT tokens[1])      AS codes_level_0,
       count(DISTINCT tokens[5:8])    AS patterns_level_3,
       md5(string_agg(image_id || tokens::VARCHAR, '' ORDER BY image_id))[:8] AS digest_of_all_tokens
FROM read_parquet('{root}/*/tokens/**/*.parquet', filename = true)
GROUP BY layout ORDER BY layout
"""
print("D " + query.strip())
print(duckdb.sql(query))
PYTHON
cat >&2 <<END

Look at  $output/images/contact-sheet.png
The demo's tokenizer has random weights: it shows that everything works, but its pictures are noise. With the published checkpoint,
  restok tokenize --source samples/folder --output my-tokens --tokenizer hf://xushu-me/restok_l_128.r256_in1k --max-reject-rate 10%
END
