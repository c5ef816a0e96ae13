//! Counts codes on the device; what the counts mean is [`CodebookStatistics`].

use crate::ModelError;
use schemas::{CodebookStatistics, TokenLevels};
use tch::{Device, Kind, Tensor};

/// A counter for each code of each level, and one more for codes that there are not.
#[derive(Debug)]
pub(super) struct CodebookCounter {
    levels: TokenLevels,
    codebook_size: usize,
    /// Where the counters of each token's level begin, int64 `[1, L]`.
    starts: Tensor,
    /// int64 `[levels · codebook_size + 1]`; integers, so that the order of addition does not matter on any device.
    counts: Tensor,
}

impl CodebookCounter {
    pub(super) fn new(device: Device, levels: TokenLevels, codebook_size: usize) -> Result<Self, ModelError> {
        let sizes = levels.sizes();
        let starts: Vec<i64> = sizes
            .iter()
            .enumerate()
            .flat_map(|(level, &size)| std::iter::repeat_n((level * codebook_size) as i64, size))
            .collect();
        let counters = (sizes.len() * codebook_size + 1) as i64;
        Ok(Self {
            starts: Tensor::f_from_slice(&starts)?.f_view([1, -1])?.f_to_device(device)?,
            counts: Tensor::f_zeros([counters], (Kind::Int64, device))?,
            levels,
            codebook_size,
        })
    }

    /// # Shapes
    /// `codes`: int64 `[B, L]`.
    pub(super) fn add(&mut self, codes: &Tensor) -> Result<(), ModelError> {
        let size = self.codebook_size as i64;
        let known = codes.f_ge(0)?.f_logical_and(&codes.f_lt(size)?)?;
        let elsewhere = self.counts.size1()? - 1;
        let counters = codes.f_add(&self.starts)?.f_where_scalarother(&known, elsewhere)?.f_flatten(0, -1)?;
        let ones = counters.f_ones_like()?;
        self.counts = self.counts.f_scatter_add_(0, &counters, &ones)?;
        Ok(())
    }

    /// The counters, for those of other processes to be added.
    pub(super) fn counts(&mut self) -> &mut Tensor {
        &mut self.counts
    }

    /// Waits for the device.
    pub(super) fn finish(self) -> Result<CodebookStatistics, ModelError> {
        let counts = Vec::<i64>::try_from(self.counts.f_to_device(Device::Cpu)?)?;
        let mut counts: Vec<u64> = counts.into_iter().map(i64::unsigned_abs).collect();
        let out_of_range = counts.pop().unwrap_or(0);
        Ok(CodebookStatistics::from_counts(self.levels, self.codebook_size, counts, out_of_range)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::TokenBatch;

    #[test]
    fn counts_on_the_device_are_those_of_the_tables() {
        let levels = TokenLevels::published(8).expect("1, 1, 2, 4");
        let mut on_device = CodebookCounter::new(Device::Cpu, levels.clone(), 5).expect("counters");
        let mut in_tables = CodebookStatistics::new(levels, 5);
        for batch in 0..3 {
            // Some of them outside the codebook, on either side.
            let codes: Vec<i16> = (0..24).map(|index| (index * index + batch) % 8 - 1).collect();
            in_tables.add(&TokenBatch::try_new(codes.clone(), 8).expect("rows of eight"));
            let codes = Tensor::from_slice(&codes).to_kind(Kind::Int64).view([3, 8]);
            on_device.add(&codes).expect("counted");
        }
        let on_device = on_device.finish().expect("read");
        assert_eq!((on_device.levels(), on_device.all()), (in_tables.levels(), in_tables.all()));
        assert_eq!(on_device.out_of_range(), in_tables.out_of_range());
        assert!(on_device.out_of_range() > 0 && on_device.all().distinct == 5);
    }
}
