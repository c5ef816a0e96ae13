//! Charts as SVG within the page: no script, no picture, and readable when the page is printed.

mod axis;
mod bars;
mod lines;
mod number;

pub(crate) use axis::Span;
pub(crate) use bars::{Bar, BarChart};
pub(crate) use lines::{Line, LineChart};
pub(crate) use number::significant;
