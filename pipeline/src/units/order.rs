//! Which unit comes next.

use super::ProcessRank;
use schemas::sha256_hex;

/// All units in the order in which this process takes them: first its own (`unit % world_size == rank`), ascending; then everybody
/// else's, shuffled by rank, so that processes that have run out of their own rarely reach for the same one.
///
/// Doing a unit twice is harmless, only wasteful: the first writer wins and the other finds the same bytes there.
pub(crate) fn unit_order(units: u32, process: ProcessRank) -> Vec<u32> {
    let (own, mut others): (Vec<u32>, Vec<u32>) =
        (0..units).partition(|unit| unit % process.world_size == process.rank);
    others.sort_by_cached_key(|unit| sha256_hex(format!("{}/{unit}", process.rank).as_bytes()));
    own.into_iter().chain(others).collect()
}

/// Unit numbers as ranges: `0-4, 7, 9-11`; the first ten of them.
pub(crate) fn describe_units(units: impl IntoIterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for unit in units {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == unit => *end = unit,
            _ => ranges.push((unit, unit)),
        }
    }
    let mut words: Vec<String> = ranges
        .iter()
        .take(10)
        .map(|(start, end)| if start == end { start.to_string() } else { format!("{start}-{end}") })
        .collect();
    if ranges.len() > 10 {
        words.push("…".to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RankOrigin;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_process_takes_every_unit_once_its_own_first(units in 0_u32..200, world in 1_u32..9, rank in 0_u32..9) {
            prop_assume!(rank < world);
            let order = unit_order(units, ProcessRank { rank, world_size: world, origin: RankOrigin::Options });
            let own = (0..units).filter(|unit| unit % world == rank).count();
            prop_assert!(order[..own].iter().all(|unit| unit % world == rank));
            prop_assert!(order[..own].is_sorted());
            let mut sorted = order;
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..units).collect::<Vec<_>>());
        }
    }

    #[test]
    fn processes_steal_in_different_orders() {
        let stolen =
            |rank| unit_order(30, ProcessRank { rank, world_size: 3, origin: RankOrigin::Options })[10..].to_vec();
        assert_ne!(
            stolen(0).iter().filter(|unit| **unit % 3 == 2).collect::<Vec<_>>(),
            stolen(1).iter().filter(|unit| **unit % 3 == 2).collect::<Vec<_>>()
        );
        assert_eq!(stolen(1), stolen(1));
    }

    #[test]
    fn runs_of_units_are_written_as_ranges() {
        assert_eq!(describe_units([0, 1, 2, 4, 7, 8]), "0-2, 4, 7-8");
        assert_eq!(describe_units((0..40).filter(|unit| unit % 2 == 0)), "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, …");
        assert_eq!(describe_units([]), "");
    }
}
