//! A chart of fractions: a bar a row, each within its whole.

use maud::{Markup, html};

/// Size of the picture in its own units.
const WIDTH: f64 = 370.0;
const ROW: f64 = 24.0;
/// Where bars begin and end; labels stand before them, numbers behind.
const BAR_LEFT: f64 = 82.0;
const BAR_RIGHT: f64 = 290.0;
const BAR_HEIGHT: f64 = 14.0;

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bar {
    /// What it is of.
    pub(crate) label: String,
    /// How much of the whole, 0 to 1.
    pub(crate) fraction: f64,
    /// The most that it could be, 0 to 1, where that is less than the whole.
    pub(crate) most: Option<f64>,
    /// The number as text.
    pub(crate) value: String,
    /// What is told when one points at it.
    pub(crate) told: String,
}

/// The chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BarChart {
    /// What it shows.
    pub(crate) title: String,
    /// The rows.
    pub(crate) bars: Vec<Bar>,
}

impl BarChart {
    /// The chart as a figure; nothing without rows.
    pub(crate) fn render(&self) -> Markup {
        if self.bars.is_empty() {
            return html! {};
        }
        let height = ROW * self.bars.len() as f64 + 4.0;
        let told: Vec<String> = self.bars.iter().map(|bar| format!("{}: {}", bar.label, bar.value)).collect();
        html! {
            figure.chart {
                figcaption { (self.title) }
                svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(format!("{}; {}", self.title, told.join(", "))) {
                    @for (row, bar) in self.bars.iter().enumerate() { (draw(row, bar)) }
                }
            }
        }
    }
}

fn draw(row: usize, bar: &Bar) -> Markup {
    let middle = ROW * (row as f64 + 0.5) + 2.0;
    let top = middle - BAR_HEIGHT / 2.0;
    let length = |fraction: f64| {
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        (fraction * (BAR_RIGHT - BAR_LEFT) * 10.0).round() / 10.0
    };
    html! {
        g.bar {
            title { (bar.told) }
            text.label x=(BAR_LEFT - 8.0) y=(middle + 4.0) text-anchor="end" { (bar.label) }
            rect.whole x=(BAR_LEFT) y=(top) width=(BAR_RIGHT - BAR_LEFT) height=(BAR_HEIGHT) rx="2" {}
            rect.part x=(BAR_LEFT) y=(top) width=(length(bar.fraction)) height=(BAR_HEIGHT) rx="2" {}
            @if let Some(most) = bar.most {
                line.most x1=(BAR_LEFT + length(most)) x2=(BAR_LEFT + length(most)) y1=(top - 2.0) y2=(top + BAR_HEIGHT + 2.0) {}
            }
            text.value x=(BAR_RIGHT + 8.0) y=(middle + 4.0) { (bar.value) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share_of_the_whole() {
        let bar = |fraction: f64, most: Option<f64>| Bar {
            label: "level <0>".to_owned(),
            fraction,
            most,
            value: "50 %".to_owned(),
            told: "512 of 1,024".to_owned(),
        };
        let svg = BarChart { title: "use".to_owned(), bars: vec![bar(0.5, Some(0.75)), bar(f64::NAN, None)] }
            .render()
            .into_string();
        assert!(svg.contains("<rect class=\"part\" x=\"82\" y=\"7\" width=\"104\""), "{svg}");
        assert!(svg.contains("class=\"part\" x=\"82\" y=\"31\" width=\"0\""), "{svg}");
        assert!(
            svg.contains("x1=\"238\"")
                && svg.contains("level &lt;0&gt;")
                && svg.contains("<title>512 of 1,024</title>")
        );
        assert_eq!(BarChart { title: String::new(), bars: Vec::new() }.render().into_string(), "");
    }
}
