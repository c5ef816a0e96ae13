#!/usr/bin/env bash
# The jobs on two small samples: images in three layouts become the same tokens; ten images of clothes become tokens and images
# again, with the tokenizer that ships; the generator that ships makes new ones; the tokenizer is scored; and one page shows it all. Run again, it finds its units done and only looks. `make demo` builds what it needs first.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly restok=${RESTOK_BINARY:-target/debug/restok}
readonly output=${1:-demo-output}
# Of the published shape, with random weights: 128 tokens an image, and small enough to ship.
readonly random_tokenizer=tests/fixtures/tokenizer
readonly clothes=samples/fashion-mnist

current="before the first step"
step() { current=$*; printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
# Shows a command as a user would type it, and runs it.
run() { printf '$ %s\n' "${*/#$restok/restok}" >&2; "$@"; }
failed() {
  local code=$?
  [ "$code" = 0 ] && return
  printf '\ndemo: failed with exit code %s in: %s\n' "$code" "$current" >&2
  printf 'If an older version has left its tables there: rm -r %s, then again.\n' "$output" >&2
}
trap failed EXIT

step "1. Images become tables: one sample in three layouts, two broken files in each"
for layout in folder webdataset parquet; do
  # One image in twenty is broken on purpose, above the usual limit of 1 %.
  run "$restok" tokenize --source "samples/$layout" --output "$output/$layout" --tokenizer "$random_tokenizer" \
    --split sample --unit-size 16 --batch-size 8 --max-reject-rate 10% --log-level warn | sed -n '/^Row counts/,/^$/p'
done

step "2. Every file is what its marker says"
run "$restok" verify "$output/folder"

step "3. The tables are plain Parquet: one SQL query over the three of them, whose tokens must be equal"
OUTPUT=$output .venv/bin/python - <<'PYTHON'
import os
import sys
import duckdb

root = os.environ["OUTPUT"]
query = f"""
SELECT split_part(filename, '/', -4) AS layout,
       count(*)                       AS rows,
       count(DISTINCT tokens[1])      AS codes_level_0,
       count(DISTINCT tokens[5:8])    AS patterns_level_3,
       md5(string_agg(image_id || tokens::VARCHAR, '' ORDER BY image_id))[:8] AS digest_of_all_tokens
FROM read_parquet('{root}/*/tokens/split=sample/*.parquet', filename = true)
GROUP BY layout ORDER BY layout
"""
print("D " + query.strip())
rows = duckdb.sql(query)
print(rows)
digests = {row[-1] for row in rows.fetchall()}
if len(digests) != 1:
    sys.exit(f"the three layouts gave different tokens: {digests}")
PYTHON

step "4. Ten test images of Fashion-MNIST, one of each class, become 32 tokens each"
run "$restok" tokenize --source "$clothes/images" --output "$output/fashion-mnist" --tokenizer "$clothes/tokenizer" \
  --crop adm-center-32 --split test --batch-size 10 --log-level warn

step "5. What the tables hold: the row counts, what they were made from, and the codes that each level uses"
run "$restok" inspect "$output/fashion-mnist"

step "6. Tokens are decoded: the originals, and reconstructions from the first 1, 2, 4, 8, 16 and all 32 tokens"
run "$restok" reconstruct --tokens "$output/fashion-mnist" --tokenizer "$clothes/tokenizer" --to "$output/pictures" --images 10

step "7. A set of new images, a hundred of each class: tokens, PNG files in Parquet, and the archive that evaluators read"
run "$restok" generate --generator "$clothes/generator" --tokenizer "$clothes/tokenizer" --output "$output/generated" \
  --count 1000 --guidance-scale 2 --unit-size 250 --log-level warn
.venv/bin/python - "$output/generated/pictures/samples.npz" <<'PYTHON'
import sys
import numpy

samples = numpy.load(sys.argv[1])["arr_0"]
print(f"samples.npz: arr_0 {samples.dtype} {samples.shape}")
PYTHON

step "8. Ten of each class on a sheet, and one of each step by step"
run "$restok" generate --generator "$clothes/generator" --tokenizer "$clothes/tokenizer" --guidance-scale 2 \
  --grid "$output/generated.png" --reveal "$output/reveal.png" --log-level warn

step "9. What the tokenizer keeps of ten test images, by how many tokens are kept, and the use of its codebook"
run "$restok" evaluate --protocol rfid --source "$clothes/images" --tokenizer "$clothes/tokenizer" --keep 1,2,4,8,16,32 \
  --allow count,resize --output "$output/evaluation" --log-level warn

step "10. One page about all of this: tables, images, rates, scores"
run "$restok" report "$output/fashion-mnist" "$output/pictures" "$output/generated" "$output/generated.png" "$output/reveal.png" \
  "$output/evaluation" --to "$output/report.html" --log-level warn

cat >&2 <<END

Look at  $output/report.html                (everything below, and row counts, rates and scores; it opens in any browser)
         $output/pictures/contact-sheet.png  (ten test images, reconstructed level by level)
         $output/generated.png               (new ones, by class)
         $output/reveal.png                  (one of each class, after each step)
Tokenizer and generator of steps 4 to 9 were trained by restok: $clothes/README.md has the commands and the figures.
That of steps 1 to 3 has the published shape and random weights. With the published checkpoint and a folder of images,
  restok tokenize --source ./images --output ./tokens --tokenizer hf://xushu-me/restok_l_128.r256_in1k
END
