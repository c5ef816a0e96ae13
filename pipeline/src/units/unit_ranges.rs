//! Unit numbers as ranges.

/// Ascending unit numbers as ranges, both ends in them.
pub(crate) fn unit_ranges(units: &[u32]) -> Vec<[u32; 2]> {
    let neighbours = units.chunk_by(|one, next| one + 1 == *next);
    neighbours.filter_map(|range| Some([*range.first()?, *range.last()?])).collect()
}

/// Ascending unit numbers in words: `0-4, 7, 9-11`; the first ten ranges of them.
pub(crate) fn describe_units(units: impl IntoIterator<Item = u32>) -> String {
    let ranges = unit_ranges(&units.into_iter().collect::<Vec<_>>());
    let mut words: Vec<String> = ranges
        .iter()
        .take(10)
        .map(|[start, end]| if start == end { start.to_string() } else { format!("{start}-{end}") })
        .collect();
    if ranges.len() > 10 {
        words.push("…".to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_units_are_written_as_ranges() {
        assert_eq!(unit_ranges(&[0, 1, 2, 5, 7, 8]), [[0, 2], [5, 5], [7, 8]]);
        assert_eq!(describe_units([0, 1, 2, 4, 7, 8]), "0-2, 4, 7-8");
        assert_eq!(describe_units((0..40).filter(|unit| unit % 2 == 0)), "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, …");
        assert_eq!(describe_units([]), "");
    }
}
