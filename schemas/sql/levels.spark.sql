-- Views over an output of restok, for Spark 3.3 or newer. Say first where the output is:
--
--   spark-sql --conf spark.restok.output=demo-output/folder -i schemas/sql/levels.spark.sql
--
-- or in a session: SET spark.restok.output=s3a://bucket/tokens; and then these statements one by one.
--
-- tokens, images   the tables, with `split` from the partitions
-- token_levels     one row a view of an image, one column a level: level_0 (coarsest, 1 token) to level_7 (finest, 64 tokens)
-- token_codes      one row a token: level, position and code, for counting and joining
-- books            images by split and status

CREATE OR REPLACE TEMPORARY VIEW tokens USING parquet OPTIONS (path '${spark.restok.output}/tokens');

CREATE OR REPLACE TEMPORARY VIEW images USING parquet OPTIONS (path '${spark.restok.output}/images');

-- slice(list, start from 1, length). The columns are for 128 tokens, the division that every file's metadata states as
-- restok.level_offsets = [0,1,2,4,8,16,32,64,128]: level n > 0 is slice(tokens, 2^(n-1) + 1, 2^(n-1)). With 64 tokens leave out
-- level_7, with 256 add slice(tokens, 129, 128) AS level_8.
CREATE OR REPLACE TEMPORARY VIEW token_levels AS
SELECT
    image_id,
    view,
    label,
    split,
    slice(tokens, 1, 1) AS level_0,
    slice(tokens, 2, 1) AS level_1,
    slice(tokens, 3, 2) AS level_2,
    slice(tokens, 5, 4) AS level_3,
    slice(tokens, 9, 8) AS level_4,
    slice(tokens, 17, 16) AS level_5,
    slice(tokens, 33, 32) AS level_6,
    slice(tokens, 65, 64) AS level_7
FROM tokens;

-- Position 0 is level 0, after that a level is as long as all before it, so its number is how many binary digits a position has.
-- This holds for any number of tokens.
CREATE OR REPLACE TEMPORARY VIEW token_codes AS
SELECT
    image_id,
    view,
    label,
    split,
    CASE WHEN position = 0 THEN 0 ELSE length(bin(position)) END AS level,
    position,
    code
FROM (SELECT image_id, view, label, split, posexplode(tokens) AS (position, code) FROM tokens);

CREATE OR REPLACE TEMPORARY VIEW books AS
SELECT split, status, count(*) AS images, sum(bytes) AS bytes FROM images GROUP BY split, status;
