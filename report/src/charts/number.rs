//! Numbers as text: short beside an axis, longer where one asks for them.

/// A number with few digits: `0.25`, `1.8e-4`, `12k`, `1.2M`.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e15 => format!("{value:.2e}"),
        size if size >= 1e6 => format!("{}M", significant(value / 1e6, 3)),
        size if size >= 1e4 => format!("{}k", significant(value / 1e3, 3)),
        _ => significant(value, 4),
    }
}

/// A number with `digits` significant digits, without zeros at its end.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "none".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let power = value.abs().log10().floor();
    if (-4.0..15.0).contains(&power) {
        let decimals = (digits as f64 - 1.0 - power).max(0.0) as usize;
        return trimmed(&format!("{value:.decimals$}")).to_owned();
    }
    let text = format!("{value:.*e}", digits.saturating_sub(1));
    match text.split_once('e') {
        Some((front, power)) => format!("{}e{power}", trimmed(front)),
        None => text,
    }
}

fn trimmed(text: &str) -> &str {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_they_need_to_be() {
        let shown = [0.0, 0.25, 0.1 + 0.2, 100.0, 5_500.0, 352_000.0, 1_281_167.0, 1.8e-5, -3.0, f64::NAN].map(short);
        assert_eq!(shown, ["0", "0.25", "0.3", "100", "5500", "352k", "1.28M", "1.8e-5", "-3", "none"]);
        assert_eq!(significant(1.008_847, 5), "1.0088");
        assert_eq!(significant(0.000_363_7, 3), "0.000364");
    }
}
