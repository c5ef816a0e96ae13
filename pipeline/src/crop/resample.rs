//! Pillow's resampling, bit for bit: weights in fixed point with 22 bits, a horizontal and then a vertical pass, 8 bits in between.
//!
//! The arithmetic is that of Pillow's `src/libImaging/Resample.c`: weights in double precision, rounded half away from
//! zero to 22 bits, sums of 32-bit integers, one rounding at the end of each pass. Integer sums do not depend on their
//! order, so the passes here are laid out for vector units without touching a bit of the result, and compute only the
//! window that survives the crop.

use std::ops::Range;

/// Channels of a pixel.
pub(super) const CHANNELS: usize = 3;

/// Fractional bits of a weight: 32, less 8 of the pixel and 2 against overflow by the negative lobes.
const PRECISION_BITS: u32 = 22;

/// Half of the last place that is kept: what each sum starts with, so that shifting rounds.
const ROUNDING: i32 = 1 << (PRECISION_BITS - 1);

/// Rows that go through the horizontal pass together, one in each lane of the vector unit.
const ROWS: usize = 8;

/// Values of a row that go through the vertical pass together, in registers from the first tap to the last.
const VALUES: usize = 32;

/// Shape of the weights over the source pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// `Image.BOX`: the mean.
    Box,
    /// `Image.BICUBIC`: Keys' cubic with a = -0.5.
    Bicubic,
}

impl Filter {
    /// Reach to either side, in source pixels at scale 1.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bicubic => 2.0,
        }
    }

    /// Weight at a distance. The order of operations is Pillow's: it decides the last bit.
    fn weight(self, distance: f64) -> f64 {
        match self {
            Self::Box if distance > -0.5 && distance <= 0.5 => 1.0,
            Self::Box => 0.0,
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = distance.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
        }
    }
}

/// One axis of a resize, for a range of its outputs: where each begins to read and with what weights.
#[derive(Debug)]
pub(super) struct Axis {
    /// Source positions that are read at all.
    pub(super) source: Range<usize>,
    /// First position of each output, counted from `source.start`.
    starts: Vec<usize>,
    /// Positions read by each output. The same for all, padded with weights of zero, so that the loops have one shape.
    taps: usize,
    /// `taps` weights for each output.
    weights: Vec<i32>,
}

impl Axis {
    /// The axis from `from` to `to` pixels, for its outputs `window`; `None` when the lengths are equal and nothing changes.
    pub(super) fn new(from: usize, to: usize, filter: Filter, window: Range<usize>) -> Option<Self> {
        if from == to {
            return None;
        }
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let inverse = 1.0 / stretch;
        // A cast to an integer truncates, and from below zero it gives zero: Pillow's `(int)` and its clamp in one.
        let bounds = |output: usize| {
            let center = (output as f64 + 0.5) * scale;
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            (center, start, end)
        };
        let (mut first, mut last, mut taps) = (from, 0, 0);
        for output in window.clone() {
            let (_, start, end) = bounds(output);
            (first, last, taps) = (first.min(start), last.max(end), taps.max(end - start));
        }
        let mut starts = Vec::with_capacity(window.len());
        let mut weights = vec![0; window.len() * taps];
        let mut exact = Vec::with_capacity(taps);
        for (output, row) in window.zip(weights.chunks_exact_mut(taps)) {
            let (center, start, end) = bounds(output);
            exact.clear();
            exact.extend((start..end).map(|source| filter.weight((source as f64 - center + 0.5) * inverse)));
            let sum: f64 = exact.iter().sum();
            // Near the far edge the padding goes before the weights, so that no output reads past the source.
            let padded_start = start.min(last - taps);
            for (slot, weight) in row[start - padded_start..].iter_mut().zip(&exact) {
                let scaled = if sum == 0.0 { *weight } else { weight / sum } * f64::from(1 << PRECISION_BITS);
                *slot = (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
            starts.push(padded_start - first);
        }
        Some(Self { source: first..last, starts, taps, weights })
    }

    /// Outputs of the axis.
    pub(super) fn outputs(&self) -> usize {
        self.starts.len()
    }
}

/// Rows of RGB pixels inside a larger image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    /// From the window's first value to its last, or further.
    pub(super) values: &'a [u8],
    /// Values from one row to the next.
    pub(super) stride: usize,
    /// Values of a row that belong to the window.
    pub(super) row_values: usize,
    /// Rows of the window.
    pub(super) rows: usize,
}

impl<'a> Window<'a> {
    fn row(&self, row: usize) -> &'a [u8] {
        &self.values[row * self.stride..][..self.row_values]
    }
}

/// Resizes a window that holds exactly the sources of both axes, and appends the outputs' rows without gaps to `out`.
pub(super) fn resize(window: Window<'_>, across: Option<&Axis>, down: Option<&Axis>, out: &mut Vec<u8>) {
    match (across, down) {
        (None, None) => (0..window.rows).for_each(|row| out.extend_from_slice(window.row(row))),
        (None, Some(down)) => vertical(window, down, append(out, down.outputs() * window.row_values)),
        (Some(across), None) => horizontal(window, across, append(out, window.rows * across.outputs() * CHANNELS)),
        (Some(across), Some(down)) => {
            let row_values = across.outputs() * CHANNELS;
            let mut between = vec![0; window.rows * row_values];
            horizontal(window, across, &mut between);
            let between = Window { values: &between, stride: row_values, row_values, rows: window.rows };
            vertical(between, down, append(out, down.outputs() * row_values));
        }
    }
}

/// Lengthens `out`, and gives the new part.
fn append(out: &mut Vec<u8>, values: usize) -> &mut [u8] {
    let start = out.len();
    out.resize(start + values, 0);
    &mut out[start..]
}

fn horizontal(window: Window<'_>, axis: &Axis, output: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "the processor was just asked whether it has AVX2, which is all the function needs"
        )]
        unsafe {
            horizontal_avx2(window, axis, output);
        }
        return;
    }
    horizontal_portable(window, axis, output);
}

fn vertical(window: Window<'_>, axis: &Axis, output: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "the processor was just asked whether it has AVX2, which is all the function needs"
        )]
        unsafe {
            vertical_avx2(window, axis, output);
        }
        return;
    }
    vertical_portable(window, axis, output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn horizontal_avx2(window: Window<'_>, axis: &Axis, output: &mut [u8]) {
    horizontal_portable(window, axis, output);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn vertical_avx2(window: Window<'_>, axis: &Axis, output: &mut [u8]) {
    vertical_portable(window, axis, output);
}

/// The horizontal pass. Three interleaved channels fit no vector unit, but eight rows do: each block of rows is turned so
/// that one value of all of them lies side by side, summed, and turned back.
// Inlined into its AVX2 twin, where the same loops compile to wider instructions: without them they take three times as long.
#[inline(always)]
fn horizontal_portable(window: Window<'_>, axis: &Axis, output: &mut [u8]) {
    let output_values = axis.outputs() * CHANNELS;
    let mut turned = vec![[0; ROWS]; window.row_values];
    let mut summed = vec![[0; ROWS]; output_values];
    for (block, output) in output.chunks_mut(ROWS * output_values).enumerate() {
        let rows = output.len() / output_values;
        // A short last block repeats its last row; what comes of the repeats is dropped.
        let sources: [&[u8]; ROWS] = std::array::from_fn(|row| window.row(block * ROWS + row.min(rows - 1)));
        turn(&sources, &mut turned);
        let weights = axis.weights.chunks_exact(axis.taps);
        for ((pixel, &start), weights) in summed.chunks_exact_mut(CHANNELS).zip(&axis.starts).zip(weights) {
            let sources = &turned[start * CHANNELS..][..axis.taps * CHANNELS];
            let mut sums = [[ROUNDING; ROWS]; CHANNELS];
            for (source, &weight) in sources.chunks_exact(CHANNELS).zip(weights) {
                for (sums, values) in sums.iter_mut().zip(source) {
                    for (sum, &value) in sums.iter_mut().zip(values) {
                        *sum += i32::from(value) * weight;
                    }
                }
            }
            for (values, sums) in pixel.iter_mut().zip(&sums) {
                clip_all(sums, values);
            }
        }
        turn_back(&summed, output, output_values);
    }
}

/// The vertical pass: whole rows are added up, a piece of a row at a time.
// Inlined into its AVX2 twin; see `horizontal_portable`.
#[inline(always)]
fn vertical_portable(window: Window<'_>, axis: &Axis, output: &mut [u8]) {
    let weights = axis.weights.chunks_exact(axis.taps);
    for ((output, &start), weights) in output.chunks_exact_mut(window.row_values).zip(&axis.starts).zip(weights) {
        let (pieces, rest) = output.as_chunks_mut::<VALUES>();
        for (piece, output) in pieces.iter_mut().enumerate() {
            let mut sums = [ROUNDING; VALUES];
            for (tap, &weight) in weights.iter().enumerate() {
                // An array of known length: a slice would send the sums through memory at each tap.
                let source: &[u8; VALUES] = window.values[(start + tap) * window.stride + piece * VALUES..]
                    .first_chunk()
                    .expect("a piece lies within its row");
                for (sum, &value) in sums.iter_mut().zip(source) {
                    *sum += i32::from(value) * weight;
                }
            }
            clip_all(&sums, output);
        }
        let offset = window.row_values - rest.len();
        for (position, output) in rest.iter_mut().enumerate() {
            let value = |tap: usize| i32::from(window.row(start + tap)[offset + position]);
            *output = clip(weights.iter().enumerate().fold(ROUNDING, |sum, (tap, &weight)| sum + value(tap) * weight));
        }
    }
}

/// Rows to columns: `turned[value][row]`.
#[inline(always)]
fn turn(rows: &[&[u8]; ROWS], turned: &mut [[u8; ROWS]]) {
    let (tiles, rest) = turned.as_chunks_mut::<8>();
    for (tile, output) in tiles.iter_mut().enumerate() {
        let words = turn_tile(std::array::from_fn(|row| word(&rows[row][tile * 8..])));
        for (output, word) in output.iter_mut().zip(words) {
            *output = word.to_le_bytes();
        }
    }
    let offset = tiles.len() * 8;
    for (position, output) in rest.iter_mut().enumerate() {
        for (output, row) in output.iter_mut().zip(rows) {
            *output = row[offset + position];
        }
    }
}

/// Columns to rows, as many as `output` has.
#[inline(always)]
fn turn_back(turned: &[[u8; ROWS]], output: &mut [u8], row_values: usize) {
    let (tiles, rest) = turned.as_chunks::<8>();
    for (tile, columns) in tiles.iter().enumerate() {
        let words = turn_tile(std::array::from_fn(|column| u64::from_le_bytes(columns[column])));
        for (row, word) in output.chunks_exact_mut(row_values).zip(words) {
            row[tile * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
    }
    let offset = tiles.len() * 8;
    for (position, column) in rest.iter().enumerate() {
        for (row, &value) in output.chunks_exact_mut(row_values).zip(column) {
            row[offset + position] = value;
        }
    }
}

/// Transposes eight by eight bytes held in eight words: swaps halves, then quarters, then single bytes.
#[inline(always)]
fn turn_tile(mut words: [u64; 8]) -> [u64; 8] {
    // Written out, because a loop over computed indices is not unrolled and takes four times as long.
    for (first, second) in [(0, 4), (1, 5), (2, 6), (3, 7)] {
        swap::<32>(&mut words, first, second, 0x0000_0000_FFFF_FFFF);
    }
    for (first, second) in [(0, 2), (1, 3), (4, 6), (5, 7)] {
        swap::<16>(&mut words, first, second, 0x0000_FFFF_0000_FFFF);
    }
    for (first, second) in [(0, 1), (2, 3), (4, 5), (6, 7)] {
        swap::<8>(&mut words, first, second, 0x00FF_00FF_00FF_00FF);
    }
    words
}

/// Swaps the upper bits of the first word's fields with the lower ones of the second's.
#[inline(always)]
fn swap<const BITS: u32>(words: &mut [u64; 8], first: usize, second: usize, low: u64) {
    let (above, below) = (words[first], words[second]);
    words[first] = (above & low) | ((below & low) << BITS);
    words[second] = ((above >> BITS) & low) | (below & !low);
}

/// The first eight bytes.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("the caller gives at least eight bytes"))
}

// By reference and not with `map`: an array that is passed on by value is kept in memory all through the loop that sums it.
#[inline(always)]
fn clip_all<const LENGTH: usize>(sums: &[i32; LENGTH], output: &mut [u8; LENGTH]) {
    for (value, &sum) in output.iter_mut().zip(sums) {
        *value = clip(sum);
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, a value at a time: what the passes must equal to the last bit.
    fn resize_one_by_one(pixels: &[u8], width: usize, to: (usize, usize), filter: Filter) -> Vec<u8> {
        let height = pixels.len() / CHANNELS / width;
        let weights = |from: usize, to: usize| -> Vec<Vec<(usize, i32)>> {
            (0..to)
                .map(|output| match Axis::new(from, to, filter, output..output + 1) {
                    None => vec![(output, 1 << PRECISION_BITS)],
                    Some(axis) => axis
                        .weights
                        .iter()
                        .enumerate()
                        .map(|(tap, &weight)| (axis.source.start + tap, weight))
                        .collect(),
                })
                .collect()
        };
        let sum = |weights: &[(usize, i32)], value: &dyn Fn(usize) -> u8| {
            clip(weights.iter().fold(ROUNDING, |sum, &(position, weight)| sum + i32::from(value(position)) * weight))
        };
        let (across, down) = (weights(width, to.0), weights(height, to.1));
        let mut between = Vec::new();
        for row in 0..height {
            for weights in &across {
                for channel in 0..CHANNELS {
                    between.push(sum(weights, &|column| pixels[(row * width + column) * CHANNELS + channel]));
                }
            }
        }
        let mut output = Vec::new();
        for weights in &down {
            for value in 0..to.0 * CHANNELS {
                output.push(sum(weights, &|row| between[row * to.0 * CHANNELS + value]));
            }
        }
        output
    }

    /// Noise: every value is likely, and neighbours have nothing to do with each other.
    fn noise(values: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..values).map(|_| next()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn both_passes_equal_the_definition_and_a_window_equals_its_part_of_the_whole(
            from in (1_usize..70, 1_usize..40),
            to in (1_usize..70, 1_usize..40),
            bicubic: bool,
            corner in (0.0_f64..1.0, 0.0_f64..1.0),
        ) {
            let filter = if bicubic { Filter::Bicubic } else { Filter::Box };
            let pixels = noise(from.0 * from.1 * CHANNELS);
            let whole = resize_one_by_one(&pixels, from.0, to, filter);
            let (left, top) = ((corner.0 * to.0 as f64) as usize, (corner.1 * to.1 as f64) as usize);
            let across = Axis::new(from.0, to.0, filter, left..to.0);
            let down = Axis::new(from.1, to.1, filter, top..to.1);
            let columns = across.as_ref().map_or(left..to.0, |axis| axis.source.clone());
            let rows = down.as_ref().map_or(top..to.1, |axis| axis.source.clone());
            let window = Window {
                values: &pixels[(rows.start * from.0 + columns.start) * CHANNELS..],
                stride: from.0 * CHANNELS,
                row_values: columns.len() * CHANNELS,
                rows: rows.len(),
            };
            let mut found = Vec::new();
            resize(window, across.as_ref(), down.as_ref(), &mut found);
            let expected: Vec<u8> = whole
                .chunks_exact(to.0 * CHANNELS)
                .skip(top)
                .flat_map(|row| &row[left * CHANNELS..])
                .copied()
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_portable_passes_equal_those_of_the_vector_unit() {
        let pixels = noise(123 * 77 * CHANNELS);
        let window = Window { values: &pixels, stride: 123 * CHANNELS, row_values: 123 * CHANNELS, rows: 77 };
        let both = |values: usize, pass: &dyn Fn(&mut [u8]), portable: &dyn Fn(&mut [u8])| {
            let (mut found, mut expected) = (vec![0; values], vec![0; values]);
            pass(&mut found);
            portable(&mut expected);
            assert_eq!(found, expected);
        };
        let axis = Axis::new(123, 50, Filter::Bicubic, 0..50).expect("lengths differ");
        let horizontal_of = |out: &mut [u8]| horizontal(window, &axis, out);
        both(77 * 50 * CHANNELS, &horizontal_of, &|out| horizontal_portable(window, &axis, out));
        let axis = Axis::new(77, 90, Filter::Bicubic, 0..88).expect("lengths differ");
        let vertical_of = |out: &mut [u8]| vertical(window, &axis, out);
        both(88 * 123 * CHANNELS, &vertical_of, &|out| vertical_portable(window, &axis, out));
    }

    #[test]
    fn weights_of_every_output_add_up_to_one_within_their_rounding() {
        for (from, to) in [(500, 341), (375, 256), (1, 256), (7, 256), (3000, 11), (257, 256)] {
            for filter in [Filter::Box, Filter::Bicubic] {
                let axis = Axis::new(from, to, filter, 0..to).expect("lengths differ");
                for weights in axis.weights.chunks_exact(axis.taps) {
                    let sum: i32 = weights.iter().sum();
                    assert!(
                        (sum - (1 << PRECISION_BITS)).unsigned_abs() as usize <= axis.taps,
                        "{from} to {to}: {sum}"
                    );
                }
            }
        }
    }
}
