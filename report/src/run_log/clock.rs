//! Moments as text. The proleptic Gregorian calendar in UTC, without leap seconds, as computers keep it.

use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_OF_A_DAY: u64 = 86_400;

/// A moment as `20260131T235959.123Z`: sorts by time, also where two runs begin in one second, and is a file name everywhere.
pub(super) fn stamp(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, thousandths) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = date(seconds / SECONDS_OF_A_DAY);
    let second = seconds % SECONDS_OF_A_DAY;
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hours:02}{minutes:02}{seconds:02}.{thousandths:03}Z")
}

/// What [`stamp`] wrote, as a person writes it, in whole seconds: `2026-01-31 23:59:59 UTC`. Anything else stays as it is.
pub(crate) fn readable(stamp: &str) -> String {
    let digits: Vec<char> = stamp.chars().collect();
    let is_of = |form: &str| {
        let alike = |(letter, form): (&char, char)| if form == '0' { letter.is_ascii_digit() } else { *letter == form };
        digits.len() == form.len() && digits.iter().zip(form.chars()).all(alike)
    };
    let is_stamp = is_of("00000000T000000.000Z") || is_of("00000000T000000Z");
    if !is_stamp {
        return stamp.to_owned();
    }
    let part = |from: usize, to: usize| digits[from..to].iter().collect::<String>();
    format!("{}-{}-{} {}:{}:{} UTC", part(0, 4), part(4, 6), part(6, 8), part(9, 11), part(11, 13), part(13, 15))
}

/// Year, month and day of a day since 1970-01-01. Years are counted from March, so that the leap day is the last of a year; 400 of
/// them have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + later, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (1_709_251_200, "20240301T000000Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            let expected = expected.replace('Z', ".000Z");
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn two_moments_of_one_second_sort_by_time() {
        let names = [1_007, 1_070, 1_100]
            .map(|millis| format!("{}-rank0.json", stamp(UNIX_EPOCH + Duration::from_millis(millis))));
        assert_eq!(names[0], "19700101T000001.007Z-rank0.json");
        assert!(names.is_sorted(), "{names:?}");
    }

    #[test]
    fn a_stamp_is_read_and_anything_else_left_alone() {
        assert_eq!(readable(&stamp(UNIX_EPOCH + Duration::from_millis(1_709_251_199_007))), "2024-02-29 23:59:59 UTC");
        assert_eq!(readable("20240229T235959Z"), "2024-02-29 23:59:59 UTC");
        assert_eq!(readable("yesterday"), "yesterday");
    }
}
