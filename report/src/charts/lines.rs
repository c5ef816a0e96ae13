//! A line chart: lines over one axis of numbers, drawn as SVG, with a legend in HTML that wraps on a narrow screen.
//!
//! The picture is drawn for the width of a phone and grows a little on a desk; colours are classes, so that the style sheet decides them
//! for either theme, and each of the first eight lines has a dash of its own besides, for those who see no colours.

use super::{
    axis::{Axis, Span},
    number::{short, significant},
};
use maud::{Markup, html};

/// Size of the picture in its own units.
const WIDTH: f64 = 370.0;
const HEIGHT: f64 = 232.0;
/// Space around the plot.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;

/// Points of a line up to which each has a dot that is seen.
const DOTS: usize = 40;
/// Points of a line that tell their numbers when one points at them, at most.
const TELLING: usize = 60;
/// Points of a line, at most: more than there are columns of pixels on a wide screen would only make the page heavy.
const POINTS: usize = 500;

/// Width of a digit beside an axis, and of the space that keeps two labels apart.
const DIGIT: f64 = 7.0;
const GAP: f64 = 6.0;

/// Where a point is drawn, across and down, and its two numbers.
type Place = (f64, f64, (f64, f64));

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// Where it goes, by the horizontal axis. Where a number is none, it is broken.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LineChart {
    /// What it shows.
    pub(crate) title: String,
    /// What is on the horizontal axis.
    pub(crate) across: &'static str,
    /// How the horizontal axis is divided.
    pub(crate) across_span: Span,
    /// How the vertical axis is divided.
    pub(crate) span: Span,
    /// Whether a line that is alone has its name below the chart, which its title then does not tell.
    pub(crate) named: bool,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

impl LineChart {
    /// The chart as a figure; nothing where no line has a point.
    pub(crate) fn render(&self) -> Markup {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let across = Axis::of(points().filter(|point| point.1.is_finite()).map(|point| point.0), self.across_span);
        let up = Axis::of(points().map(|point| point.1), self.span);
        let (Some(across), Some(up)) = (across, up) else { return html! {} };
        let shown: Vec<(usize, &Line)> = self.lines.iter().enumerate().filter(|(_, line)| line.is_drawn()).collect();
        let label = format!("{}, against {}; {}", self.title, self.across, describe(&shown));
        html! {
            figure.chart {
                figcaption { (self.title) @if self.span == Span::Logarithmic { " " small { "(logarithmic)" } } }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
                    (self.grid(&across, &up))
                    @for (number, line) in &shown { (self.draw(*number, line, &across, &up)) }
                }
                @if shown.len() > 1 || self.named {
                    ul.legend { @for (number, line) in &shown { li class=(class(*number)) { (key()) (line.name) } } }
                }
            }
        }
    }

    fn grid(&self, across: &Axis, up: &Axis) -> Markup {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let ticks: Vec<(f64, String)> =
            across.ticks.iter().filter_map(|tick| Some((horizontal(across.place(*tick)?), short(*tick)))).collect();
        html! {
            @for tick in &up.ticks {
                @if let Some(place) = up.place(*tick) {
                    line.grid x1=(LEFT) x2=(right) y1=(tenths(vertical(place))) y2=(tenths(vertical(place))) {}
                    text.tick x=(LEFT - 6.0) y=(tenths(vertical(place) + 4.0)) text-anchor="end" { (short(*tick)) }
                }
            }
            line.axis x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
            @for (x, _) in &ticks { line.axis x1=(tenths(*x)) x2=(tenths(*x)) y1=(bottom) y2=(bottom + 4.0) {} }
            @for (x, label) in with_room(&ticks) { text.tick x=(tenths(*x)) y=(bottom + 17.0) text-anchor="middle" { (label) } }
            text.across x=(tenths((LEFT + right) / 2.0)) y=(HEIGHT - 4.0) text-anchor="middle" { (self.across) }
        }
    }

    fn draw(&self, number: usize, line: &Line, across: &Axis, up: &Axis) -> Markup {
        let places: Vec<Option<Place>> = thinned(&line.points)
            .into_iter()
            .map(|(x, y)| Some((horizontal(across.place(x)?), vertical(up.place(y)?), (x, y))))
            .collect();
        let present: Vec<&Place> = places.iter().flatten().collect();
        let telling = present.len().div_ceil(TELLING).max(1);
        let dot = if present.len() <= DOTS { "dot" } else { "dot hidden" };
        html! {
            g class=(class(number)) {
                path.line d=(path(&places)) {}
                @for (x, y, (at, value)) in present.iter().step_by(telling) {
                    circle class=(dot) cx=(tenths(*x)) cy=(tenths(*y)) r="3" {
                        title { (line.name) ": " (significant(*value, 5)) " at " (short(*at)) " " (self.across) }
                    }
                }
            }
        }
    }
}

impl Line {
    fn is_drawn(&self) -> bool {
        self.points.iter().any(|point| point.1.is_finite())
    }
}

/// The last number of each line, for those who hear the page.
fn describe(lines: &[(usize, &Line)]) -> String {
    let last =
        |line: &Line| line.points.iter().rev().find(|point| point.1.is_finite()).map(|point| significant(point.1, 4));
    let ends: Vec<String> =
        lines.iter().map(|(_, line)| format!("{} ends at {}", line.name, last(line).unwrap_or_default())).collect();
    ends.join(", ")
}

/// The points of a line, of a long one the least and the greatest of each few, so that no spike is lost; where a number is none among
/// them, that too, so that the line is broken there.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let size = points.len().div_ceil(POINTS / 2);
    let mut kept = Vec::new();
    for (number, few) in points.chunks(size).enumerate() {
        let by_value = |left: &(usize, f64), right: &(usize, f64)| left.1.total_cmp(&right.1);
        let values = || few.iter().map(|point| point.1).enumerate().filter(|(_, value)| value.is_finite());
        let broken = few.iter().position(|point| !point.1.is_finite());
        let extremes =
            [values().min_by(by_value), values().max_by(by_value)].map(|found| found.map(|(place, _)| place));
        let last = (number * size + few.len() == points.len()).then_some(few.len() - 1);
        let mut places: Vec<usize> = extremes.into_iter().chain([broken, last]).flatten().collect();
        places.sort_unstable();
        places.dedup();
        kept.extend(places.into_iter().map(|place| few[place]));
    }
    kept
}

/// Those of the labels, each with its place across, that do not run into each other. The last is always among them: it says how far
/// the axis goes.
fn with_room(labels: &[(f64, String)]) -> Vec<&(f64, String)> {
    let half = |label: &str| (label.chars().count() as f64 * DIGIT + GAP) / 2.0;
    let apart = |left: &(f64, String), right: &(f64, String)| right.0 - left.0 >= half(&left.1) + half(&right.1);
    let Some((last, before)) = labels.split_last() else { return Vec::new() };
    let mut kept: Vec<&(f64, String)> = Vec::new();
    for label in before {
        if apart(label, last) && kept.last().is_none_or(|left| apart(left, label)) {
            kept.push(label);
        }
    }
    kept.push(last);
    kept
}

/// The stroke of a line beside its name.
fn key() -> Markup {
    html! { svg.key viewBox="0 0 34 6" width="34" height="6" aria-hidden="true" { path.line d="M1 3L33 3" {} } }
}

/// The class of the colour and dash of a line.
fn class(number: usize) -> String {
    format!("s{}", number % 8)
}

fn horizontal(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn vertical(place: f64) -> f64 {
    TOP + (1.0 - place) * (HEIGHT - TOP - BOTTOM)
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn path(places: &[Option<Place>]) -> String {
    let mut text = String::new();
    let mut pen_is_down = false;
    for place in places {
        match place {
            Some((x, y, _)) => {
                text.push_str(&format!("{}{} {}", if pen_is_down { "L" } else { "M" }, tenths(*x), tenths(*y)));
                pen_is_down = true;
            }
            None => pen_is_down = false,
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)], span: Span) -> String {
        LineChart {
            title: "loss <of & by>".to_owned(),
            across: "step",
            across_span: Span::Exact,
            span,
            named: false,
            lines: vec![Line { name: "a\"b".to_owned(), points: points.to_vec() }],
        }
        .render()
        .into_string()
    }

    #[test]
    fn a_line_goes_through_its_points_and_each_tells_its_number() {
        let svg = chart(&[(0.0, 0.0), (5.0, 0.5), (10.0, 1.0)], Span::Fraction);
        assert!(svg.contains("d=\"M46 194L202 102L358 10\""), "{svg}");
        assert_eq!(svg.matches("<circle class=\"dot\"").count(), 3);
        assert!(svg.contains("<title>a&quot;b: 0.5 at 5 step</title>"), "{svg}");
        assert!(
            svg.contains("role=\"img\" aria-label=\"loss &lt;of &amp; by&gt;, against step; a&quot;b ends at 1\""),
            "{svg}"
        );
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_number() {
        let svg = chart(&[(0.0, 0.0), (5.0, f64::NAN), (7.0, 1.0), (10.0, 1.0)], Span::Fraction);
        assert!(svg.contains("d=\"M46 194M264.4 10L358 10\""), "{svg}");
        let svg = chart(&[(1.0, 0.0), (2.0, 10.0), (3.0, 100.0)], Span::Logarithmic);
        assert_eq!(svg.matches("<circle").count(), 2, "0 has no place on a logarithmic axis");
        assert!(svg.contains("(logarithmic)"));
    }

    #[test]
    fn long_lines_are_thinned_and_end_where_they_end() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|step| (f64::from(step), f64::from(step % 7))).collect();
        let svg = chart(&points, Span::FromZero);
        assert!(svg.matches('L').count() <= POINTS + 1 && svg.contains("L358 "), "{}", svg.len());
        assert!(svg.matches("dot hidden").count() <= TELLING);
    }

    #[test]
    fn a_spike_and_a_gap_outlast_the_thinning() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|step| (f64::from(step), 0.0)).collect();
        (points[4_321].1, points[7_777].1, points[1_234].1) = (5.0, -5.0, f64::NAN);
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS + 2, "{}", thin.len());
        assert!(thin.contains(&(4_321.0, 5.0)) && thin.contains(&(7_777.0, -5.0)) && thin.ends_with(&[(9_999.0, 0.0)]));
        assert!(thin.iter().any(|point| point.0 == 1_234.0 && point.1.is_nan()));
        assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thinned(&points[..9]).len(), 9);
    }

    #[test]
    fn labels_keep_apart_and_the_last_is_there() {
        let labels = |ends: &[u32]| -> Vec<(f64, String)> {
            ends.iter().map(|end| (f64::from(*end).log2() * 44.0, end.to_string())).collect()
        };
        let shown = |labels: &[(f64, String)]| -> Vec<String> {
            with_room(labels).into_iter().map(|(_, label)| label.clone()).collect()
        };
        let doublings = labels(&[1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(shown(&doublings).len(), 8);
        let all = labels(&(1..=128).collect::<Vec<_>>());
        let kept = shown(&all);
        assert!(kept.starts_with(&["1".to_owned(), "2".to_owned()]) && kept.ends_with(&["128".to_owned()]), "{kept:?}");
        assert!((8..=20).contains(&kept.len()) && !kept.contains(&"127".to_owned()), "{kept:?}");
    }

    #[test]
    fn eight_lines_have_eight_dashes_and_show_them_beside_their_names() {
        let style = include_str!("../style.css");
        let dashes: std::collections::BTreeSet<&str> = (0..8)
            .map(|line| {
                let rule = style.split_once(&format!(".s{line} {{")).expect("a rule").1;
                rule.split_once("--dash: ").expect("a dash").1.split(';').next().expect("its end")
            })
            .collect();
        assert_eq!(dashes.len(), 8, "{dashes:?}");
        let line = |name: &str| Line { name: name.to_owned(), points: vec![(1.0, 1.0), (2.0, 2.0)] };
        let chart = |named: bool, lines: Vec<Line>| {
            let (title, across_span, span) = ("t".to_owned(), Span::Exact, Span::Data);
            LineChart { title, across: "step", across_span, span, named, lines }.render().into_string()
        };
        assert_eq!(chart(false, vec![line("a"), line("b")]).matches("class=\"key\"").count(), 2);
        assert_eq!(chart(true, vec![line("a")]).matches("class=\"key\"").count(), 1);
        assert!(!chart(false, vec![line("a")]).contains("legend"));
    }

    #[test]
    fn no_points_are_no_chart() {
        assert_eq!(chart(&[], Span::Data), "");
        assert_eq!(chart(&[(1.0, f64::NAN)], Span::Data), "");
    }
}
