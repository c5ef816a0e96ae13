-- Views over an output of restok, for DuckDB 1.1 or newer. Say first where the output is:
--
--   SET VARIABLE restok_output = 'demo-output/folder';      -- or s3://bucket/tokens
--   .read schemas/sql/levels.duckdb.sql
--
-- tokens, images   the tables, with `split` from the partitions
-- token_levels     one row a view of an image, one column a level: level_0 (coarsest, 1 token) to level_7 (finest, 64 tokens)
-- token_codes      one row a token: level, position and code, for counting and joining
-- books            images by split and status

CREATE OR REPLACE VIEW tokens AS
SELECT * FROM read_parquet(getvariable('restok_output') || '/tokens/*/*.parquet', hive_partitioning = true);

CREATE OR REPLACE VIEW images AS
SELECT * FROM read_parquet(getvariable('restok_output') || '/images/*/*.parquet', hive_partitioning = true);

-- Slices are from 1 and take both ends. The columns are for 128 tokens, the division that every file's metadata states as
-- restok.level_offsets = [0,1,2,4,8,16,32,64,128]: level n > 0 is tokens[2^(n-1) + 1 : 2^n]. With 64 tokens leave out level_7;
-- with 256 add tokens[129:256] AS level_8.
CREATE OR REPLACE VIEW token_levels AS
SELECT
    image_id,
    view,
    label,
    split,
    tokens[1:1] AS level_0,
    tokens[2:2] AS level_1,
    tokens[3:4] AS level_2,
    tokens[5:8] AS level_3,
    tokens[9:16] AS level_4,
    tokens[17:32] AS level_5,
    tokens[33:64] AS level_6,
    tokens[65:128] AS level_7
FROM tokens;

-- Position 0 is level 0; after that a level is as long as all before it, so its number is how many binary digits a position has.
-- This holds for any number of tokens.
CREATE OR REPLACE VIEW token_codes AS
SELECT
    image_id,
    view,
    label,
    split,
    CAST(CASE WHEN position = 0 THEN 0 ELSE length(bin(position)) END AS INTEGER) AS level,
    CAST(position AS INTEGER) AS position,
    code
FROM (
    SELECT image_id, view, label, split, unnest(tokens) AS code, generate_subscripts(tokens, 1) - 1 AS position FROM tokens
);

CREATE OR REPLACE VIEW books AS
SELECT split, status, count(*) AS images, CAST(sum(bytes) AS BIGINT) AS bytes FROM images GROUP BY ALL;
