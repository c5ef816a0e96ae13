//! Axes: from numbers to places, and where the ticks are.

/// How an axis is divided, and what it spans.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Span {
    /// From a round number below the least to one above the greatest.
    Data,
    /// Exactly from the least to the greatest, as time and steps are shown.
    Exact,
    /// From 0.
    FromZero,
    /// From 0 to 1.
    Fraction,
    /// By powers, from the least to the greatest.
    Logarithmic,
    /// By doublings, a tick for each that occurs.
    Doubling,
}

/// An axis of finite numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    logarithmic: bool,
    low: f64,
    high: f64,
    /// Numbers that are written beside it, ascending.
    pub(crate) ticks: Vec<f64>,
}

/// Ticks that a linear axis has, about.
const TICKS: f64 = 4.0;

impl Axis {
    /// The axis of `values`; `None` where none of them has a place on it.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>, span: Span) -> Option<Self> {
        let logarithmic = matches!(span, Span::Logarithmic | Span::Doubling);
        let mut values: Vec<f64> =
            values.into_iter().filter(|value| value.is_finite() && (!logarithmic || *value > 0.0)).collect();
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        Some(match span {
            Span::Data => Self::linear(least, greatest, true),
            Span::Exact => Self::linear(least, greatest, false),
            Span::FromZero => Self::linear(least.min(0.0), greatest.max(0.0), true),
            Span::Fraction => Self::linear(0.0, 1.0, true),
            Span::Logarithmic => Self::powers(least, greatest),
            Span::Doubling => {
                values.dedup();
                let room = if least == greatest { 2.0_f64.sqrt() } else { 1.0 };
                Self { logarithmic, low: least / room, high: greatest * room, ticks: values }
            }
        })
    }

    /// The place of a number: 0 at the low end, 1 at the high one; `None` where it has none.
    pub(crate) fn place(&self, value: f64) -> Option<f64> {
        let place = match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        // A little room for the rounding of the ends.
        (place.is_finite() && (-1e-6..=1.0 + 1e-6).contains(&place)).then_some(place)
    }

    fn linear(least: f64, greatest: f64, round: bool) -> Self {
        let (least, greatest) = match greatest > least {
            true => (least, greatest),
            // A single number gets some room, so that it lies in the middle.
            false => {
                let room = if least == 0.0 { 1.0 } else { least.abs() / 2.0 };
                (least - room, greatest + room)
            }
        };
        let step = round_step((greatest - least) / TICKS);
        // Sums of steps would gather errors; products do not.
        let (first, last) = match round {
            true => ((least / step + 1e-9).floor(), (greatest / step - 1e-9).ceil()),
            false => ((least / step - 1e-9).ceil(), (greatest / step + 1e-9).floor()),
        };
        let ticks = (0..=((last - first) as usize)).map(|number| (first + number as f64) * step).collect();
        let (low, high) = if round { (first * step, last * step) } else { (least, greatest) };
        Self { logarithmic: false, low, high, ticks }
    }

    fn powers(least: f64, greatest: f64) -> Self {
        // Both ends a little wider than the numbers.
        let (low, high) = (least / 1.1, greatest * 1.1);
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let decades = (high / low).log10();
        let within: &[f64] = match decades {
            ..1.2 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
            1.2..3.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let apart = (decades / 6.0).ceil().max(1.0) as i32;
        let ticks = (first..=last)
            .filter(|power| power.rem_euclid(apart) == 0)
            .flat_map(|power| within.iter().map(move |factor| factor * 10.0_f64.powi(power)))
            .filter(|tick| (low..=high).contains(tick))
            .collect();
        Self { logarithmic: true, low, high, ticks }
    }
}

/// The least of 1, 2, 2.5, 5 and 10 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10.0_f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|round| *round >= step * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(values: &[f64], span: Span) -> Axis {
        Axis::of(values.iter().copied(), span).expect("numbers")
    }

    fn assert_ticks(axis: &Axis, expected: &[f64]) {
        assert_eq!(axis.ticks.len(), expected.len(), "{:?}", axis.ticks);
        axis.ticks.iter().zip(expected).for_each(|(tick, expected)| assert!((tick - expected).abs() < 1e-9, "{tick}"));
    }

    #[test]
    fn linear_axes_have_round_ticks_and_hold_every_number() {
        let data = axis(&[0.31, 1.92], Span::Data);
        assert_ticks(&data, &[0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!((data.place(0.5), data.place(2.0), data.place(2.5)), (Some(0.25), Some(1.0), None));
        let exact = axis(&[25.0, 5500.0], Span::Exact);
        assert_ticks(&exact, &[2000.0, 4000.0]);
        assert_eq!((exact.place(25.0), exact.place(5500.0)), (Some(0.0), Some(1.0)));
        assert_ticks(&axis(&[3.0], Span::FromZero), &[0.0, 1.0, 2.0, 3.0]);
        assert_ticks(&axis(&[0.4], Span::Fraction), &[0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn one_number_lies_in_the_middle() {
        assert_eq!(axis(&[7.0, 7.0], Span::Exact).place(7.0), Some(0.5));
        assert_eq!(axis(&[0.0], Span::Exact).place(0.0), Some(0.5));
        let place = axis(&[16.0], Span::Doubling).place(16.0).expect("a place");
        assert!((place - 0.5).abs() < 1e-9, "{place}");
    }

    #[test]
    fn powers_are_for_numbers_above_zero() {
        assert_ticks(&axis(&[0.001, 50.0, 0.0, f64::NAN], Span::Logarithmic), &[0.001, 0.01, 0.1, 1.0, 10.0]);
        assert_ticks(&axis(&[2.0, 30.0], Span::Logarithmic), &[3.0, 10.0, 30.0]);
        assert_eq!(Axis::of([0.0, -1.0], Span::Logarithmic), None);
        assert_eq!(axis(&[1.0, 4.0], Span::Doubling).place(2.0), Some(0.5));
    }

    #[test]
    fn nothing_has_no_axis() {
        assert_eq!(Axis::of([], Span::Data), None);
        assert_eq!(Axis::of([f64::NAN, f64::INFINITY], Span::Data), None);
    }
}
