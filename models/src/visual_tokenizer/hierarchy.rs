//! The arithmetic of levels: which tokens merge, which see which, where each stands. No tensors; everything follows from the
//! configuration and is computed once, at load. Source: modeling/modules/blocks.py.

use super::config::TokenizerConfig;
use crate::ModelError;

/// Levels with fewer tokens than this share one attention with a mask; larger ones get their own without.
const SMALL_LEVEL: i64 = 32;

/// Blocks after whose attention image tokens merge, in order. The published formula names a block before the first when there
/// are fewer blocks than stages, and the same one twice when there are few; such entries merge nothing.
pub(super) fn merging_blocks(config: &TokenizerConfig) -> Vec<usize> {
    let mut blocks: Vec<usize> =
        named_merges(config).into_iter().filter(|&block| block >= 0).map(|block| block as usize).collect();
    blocks.dedup();
    blocks
}

/// Level embeddings that the published model has: one for the image and one for each merge that the formula names.
pub(super) fn level_embeddings(config: &TokenizerConfig) -> usize {
    named_merges(config).len() + 1
}

fn named_merges(config: &TokenizerConfig) -> Vec<i64> {
    let options = config.options();
    if !options.merge_tokens || options.hierarchy_stages == 0 {
        return Vec::new();
    }
    let (stages, layers) = (options.hierarchy_stages as f64, config.encoder.layers as f64);
    (1..options.hierarchy_stages).map(|stage| (stage as f64 / stages * layers) as i64 - 1).collect()
}

/// Height and width of each level of image tokens: the image first, then one for each merge.
pub(super) fn image_levels(config: &TokenizerConfig) -> Result<Vec<(i64, i64)>, ModelError> {
    let ratio = config.options().reduction_ratio;
    let mut levels = vec![(config.encoder_grid, config.encoder_grid)];
    for _ in merging_blocks(config) {
        let (height, width) = levels[levels.len() - 1];
        let merged = ((height * width) as f64 * (1.0 - ratio)) as i64;
        let merged_width = (width as f64 * (1.0 - ratio)) as i64;
        if merged_width < 1 || merged != height * merged_width {
            let expected = format!("a ratio that leaves whole columns of {height} by {width} image tokens");
            return Err(ModelError::setting("reduction_ratio", ratio, expected));
        }
        levels.push((height, merged_width));
    }
    Ok(levels)
}

/// For each of `outputs` places, the one of `inputs` that nearest-neighbour resizing takes.
pub(super) fn nearest(inputs: i64, outputs: i64) -> Vec<i64> {
    let scale = inputs as f32 / outputs as f32;
    (0..outputs).map(|place| ((place as f32 * scale) as i64).min(inputs - 1)).collect()
}

/// Places (row, column) of the encoder's tokens: image levels coarsest first, then latent tokens. Every level starts one
/// whole level's count after the last.
pub(super) fn encoder_positions(coarsest_first: &[(i64, i64)], latent_tokens: usize) -> Vec<(f64, f64)> {
    let (mut positions, mut offset) = (Vec::new(), 0);
    for &(height, width) in coarsest_first {
        positions.extend(grid(height, width, offset));
        offset += height * width;
    }
    positions.extend((0..latent_tokens as i64).map(|token| ((token + offset) as f64, (token + offset) as f64)));
    positions
}

/// Places of the decoder's tokens: latent tokens, then the image's.
pub(super) fn decoder_positions(latent_tokens: usize, side: i64) -> Vec<(f64, f64)> {
    let latent = (0..latent_tokens).map(|token| (token as f64, token as f64));
    latent.chain(grid(side, side, latent_tokens as i64)).collect()
}

fn grid(height: i64, width: i64, offset: i64) -> impl Iterator<Item = (f64, f64)> {
    (0..height).flat_map(move |row| (0..width).map(move |column| ((row + offset) as f64, (column + offset) as f64)))
}

/// A run of levels that attend together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LevelRun {
    /// First token.
    pub(super) start: i64,
    /// Sizes of its levels.
    pub(super) levels: Vec<i64>,
}

impl LevelRun {
    pub(super) fn end(&self) -> i64 {
        self.start + self.levels.iter().sum::<i64>()
    }
}

/// Groups levels of `sizes`, in the order in which they see each other, so that small neighbours share an attention.
pub(super) fn level_runs(sizes: &[i64]) -> Vec<LevelRun> {
    let mut runs: Vec<LevelRun> = Vec::new();
    let mut start = 0;
    for &size in sizes {
        match runs.last_mut() {
            Some(run) if size < SMALL_LEVEL && run.levels.iter().all(|&other| other < SMALL_LEVEL) => {
                run.levels.push(size);
            }
            _ => runs.push(LevelRun { start, levels: vec![size] }),
        }
        start += size;
    }
    runs
}

/// Which of the first [`LevelRun::end`] tokens each row of `run` sees: all up to the end of its own level. Row-major.
pub(super) fn visible(run: &LevelRun) -> Vec<bool> {
    let columns = run.end();
    let mut seen = Vec::new();
    let mut level_ends = run.start;
    for &size in &run.levels {
        level_ends += size;
        for _ in 0..size {
            seen.extend((0..columns).map(|column| column < level_ends));
        }
    }
    seen
}

/// Height and width of the grid that a latent level of `tokens` (a power of two) averages over: 1x1, 1x2, 2x2, 2x4, …
pub(super) fn level_grid(tokens: usize) -> (usize, usize) {
    let height = 1 << (tokens.ilog2() / 2);
    (height, tokens / height)
}

/// The initial latent tokens as averages of the image tokens: `[latent tokens, side * side]`, row-major.
///
/// Each level averages over its own grid; with `residual`, what the coarser levels already say has been taken away. As all of
/// it is linear, it is one matrix.
pub(super) fn pooling_matrix(level_sizes: &[usize], side: usize, residual: bool) -> Vec<f32> {
    let tokens = side * side;
    // What is left of each image token, as a combination of all image tokens.
    let mut rest = vec![0.0_f64; tokens * tokens];
    for token in 0..tokens {
        rest[token * tokens + token] = 1.0;
    }
    let mut matrix = Vec::new();
    for &size in level_sizes {
        let (height, width) = level_grid(size);
        let mut averages = vec![0.0_f64; size * tokens];
        for (cell, average) in averages.chunks_exact_mut(tokens).enumerate() {
            let (rows, columns) = (window(cell / width, height, side), window(cell % width, width, side));
            let weight = 1.0 / (rows.len() * columns.len()) as f64;
            for token in rows.flat_map(|row| columns.clone().map(move |column| row * side + column)) {
                for (sum, value) in average.iter_mut().zip(&rest[token * tokens..(token + 1) * tokens]) {
                    *sum += weight * value;
                }
            }
        }
        if residual {
            let (row_of, column_of) = (nearest(height as i64, side as i64), nearest(width as i64, side as i64));
            for token in 0..tokens {
                let cell = row_of[token / side] as usize * width + column_of[token % side] as usize;
                let said = &averages[cell * tokens..(cell + 1) * tokens];
                for (left, said) in rest[token * tokens..(token + 1) * tokens].iter_mut().zip(said) {
                    *left -= said;
                }
            }
        }
        matrix.extend(averages.iter().map(|&value| value as f32));
    }
    matrix
}

/// Initial latent tokens without levels: averages over runs of image tokens, `[latent tokens, image tokens]`.
pub(super) fn flat_pooling_matrix(latent_tokens: usize, image_tokens: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; latent_tokens * image_tokens];
    for (latent, row) in matrix.chunks_exact_mut(image_tokens).enumerate() {
        let window = window(latent, latent_tokens, image_tokens);
        let weight = 1.0 / window.len() as f32;
        row[window].fill(weight);
    }
    matrix
}

/// The decoder's initial image tokens where they are not learned: the sum of all levels, spread over the image; their mean
/// unless the levels are residual. `[side * side, latent tokens]`.
pub(super) fn spreading_matrix(level_sizes: &[usize], side: usize, residual: bool) -> Vec<f32> {
    let latent_tokens: usize = level_sizes.iter().sum();
    let weight = if residual { 1.0 } else { 1.0 / level_sizes.len() as f32 };
    let mut matrix = vec![0.0; side * side * latent_tokens];
    let mut start = 0;
    for &size in level_sizes {
        let (height, width) = level_grid(size);
        let (row_of, column_of) = (nearest(height as i64, side as i64), nearest(width as i64, side as i64));
        for token in 0..side * side {
            let cell = row_of[token / side] as usize * width + column_of[token % side] as usize;
            matrix[token * latent_tokens + start + cell] += weight;
        }
        start += size;
    }
    matrix
}

/// What output place `index` of `outputs` averages over, of `inputs`: torch's adaptive average.
fn window(index: usize, outputs: usize, inputs: usize) -> std::ops::Range<usize> {
    index * inputs / outputs..((index + 1) * inputs).div_ceil(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::TokenizerSize;

    #[test]
    fn the_published_large_model_merges_after_blocks_5_11_and_17() {
        let config = TokenizerConfig::preset(TokenizerSize::Large);
        assert_eq!(merging_blocks(&config), [5, 11, 17]);
        assert_eq!(image_levels(&config).expect("published"), [(16, 16), (16, 8), (16, 4), (16, 2)]);
        assert_eq!(level_embeddings(&config), 4);
    }

    #[test]
    fn small_levels_share_an_attention_and_large_ones_do_not() {
        let runs = level_runs(&[64, 256, 1, 1, 2, 4, 8, 16, 32, 64]);
        let starts: Vec<_> = runs.iter().map(|run| (run.start, run.end())).collect();
        assert_eq!(starts, [(0, 64), (64, 320), (320, 352), (352, 384), (384, 448)]);
    }

    #[test]
    fn a_level_sees_itself_and_all_before_it() {
        let run = LevelRun { start: 2, levels: vec![1, 2] };
        let rows: Vec<_> = visible(&run).chunks(5).map(|row| row.iter().filter(|&&seen| seen).count()).collect();
        assert_eq!(rows, [3, 5, 5]);
    }

    #[test]
    fn level_grids_are_the_published_table() {
        let grids: Vec<_> = [1, 2, 4, 8, 16, 32, 64, 128, 256].into_iter().map(level_grid).collect();
        assert_eq!(grids, [(1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]);
    }

    #[test]
    fn residual_pooling_says_nothing_twice() {
        let (side, levels) = (8, [1, 1, 2, 4, 8, 16, 32]);
        let matrix = pooling_matrix(&levels, side, true);
        let rows: Vec<&[f32]> = matrix.chunks_exact(side * side).collect();
        assert!(rows[0].iter().all(|&weight| (weight - 1.0 / 64.0).abs() < 1e-7), "the first token is the mean");
        assert!(
            rows[1].iter().all(|&weight| weight.abs() < 1e-7),
            "the second level is as coarse and has nothing left to say"
        );
        for row in &rows[1..] {
            assert!(row.iter().sum::<f32>().abs() < 1e-6, "of a constant image only the mean remains");
        }
        let plain = pooling_matrix(&levels, side, false);
        for row in plain.chunks_exact(side * side) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "without residuals every token is an average");
        }
    }

    #[test]
    fn spreading_after_residual_pooling_gives_the_finest_average_back() {
        let (side, levels) = (4, [1, 1, 2, 4, 8]);
        let pooling = pooling_matrix(&levels, side, true);
        let spreading = spreading_matrix(&levels, side, true);
        let latent_tokens = 16;
        for token in 0..side * side {
            let back: Vec<f32> = (0..side * side)
                .map(|input| {
                    (0..latent_tokens)
                        .map(|latent| spreading[token * latent_tokens + latent] * pooling[latent * side * side + input])
                        .sum()
                })
                .collect();
            // The finest level is 2 by 4: it averages over two rows of one column.
            let expected = |input: usize| {
                if input % side == token % side && input / side / 2 == token / side / 2 { 0.5 } else { 0.0 }
            };
            for (input, weight) in back.iter().enumerate() {
                assert!((weight - expected(input)).abs() < 1e-6, "{token} {input} {weight}");
            }
        }
    }

    #[test]
    fn nearest_halving_keeps_the_first_of_each_pair() {
        assert_eq!(nearest(6, 3), [0, 2, 4]);
        assert_eq!(nearest(3, 6), [0, 0, 1, 1, 2, 2]);
    }
}
