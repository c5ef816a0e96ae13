//! The numbers of a training as curves, those that belong together in one chart.

use super::part;
use crate::{
    charts::{Line, LineChart, Span},
    gather::Metrics,
};
use maud::{Markup, html};

/// From how many times the least number on the greatest one needs powers to be seen beside it.
const WIDE: f64 = 30.0;

/// What says nothing as a curve: it grows evenly, or is drawn at random in each step.
const UNSHOWN: [&str; 4] = ["epoch", "images_seen", "kept_tokens", "images_rejected"];

pub(super) fn section(metrics: &Metrics) -> Markup {
    let charts = charts(metrics);
    if charts.is_empty() {
        return html! {};
    }
    part("Curves", html! { div.charts { @for chart in &charts { (chart.render()) } } })
}

/// A chart: its title, the columns in it with their names, and its axis; `None` for one that follows from the numbers.
type Group<'a> = (String, Vec<(&'a str, String)>, Option<Span>);

fn charts(metrics: &Metrics) -> Vec<LineChart> {
    let names: Vec<&str> = metrics.columns.iter().map(|(name, _)| name.as_str()).collect();
    let numbers = |name: &str| -> &[(f64, f64)] {
        metrics.columns.iter().find(|(column, _)| column == name).map_or(&[], |(_, numbers)| numbers)
    };
    groups(&names)
        .into_iter()
        .map(|(title, columns, span)| {
            let values = || {
                columns
                    .iter()
                    .flat_map(|(name, _)| numbers(name))
                    .map(|point| point.1)
                    .filter(|value| value.is_finite())
            };
            let (least, greatest) =
                values().fold((f64::MAX, f64::MIN), |(least, greatest), value| (least.min(value), greatest.max(value)));
            let wide = least > 0.0 && greatest > WIDE * least;
            LineChart {
                title,
                across: "step",
                across_span: Span::Exact,
                span: span.unwrap_or(if wide { Span::Logarithmic } else { Span::Data }),
                named: false,
                lines: columns
                    .into_iter()
                    .map(|(name, shown)| Line { name: shown, points: numbers(name).to_vec() })
                    .collect(),
            }
        })
        .filter(|chart| chart.lines.iter().any(|line| !line.points.is_empty()))
        .collect()
}

/// Which columns stand in one chart. A column that nobody foresaw has one for itself.
fn groups<'a>(names: &[&'a str]) -> Vec<Group<'a>> {
    let mut left: Vec<&str> = names.iter().copied().filter(|name| !UNSHOWN.contains(name)).collect();
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut take = |title: &str, span: Option<Span>, shown: &dyn Fn(&str) -> Option<String>| {
        let columns: Vec<(&str, String)> = left.iter().filter_map(|name| Some((*name, shown(name)?))).collect();
        left.retain(|name| !columns.iter().any(|(taken, _)| taken == name));
        if !columns.is_empty() {
            groups.push((title.to_owned(), columns, span));
        }
    };
    let level = |prefix: &'static str| move |name: &str| Some(format!("level {}", name.strip_prefix(prefix)?));
    let named = |wanted: &'static [(&'static str, &'static str)]| {
        move |name: &str| wanted.iter().find(|(column, _)| *column == name).map(|(_, shown)| (*shown).to_owned())
    };
    take("Loss", None, &named(&[("loss", "training"), ("total_loss", "training"), ("validation_loss", "validation")]));
    take("Terms of the loss", None, &|name| Some(name.strip_suffix("_loss")?.replace('_', " ")));
    take("Loss by level", None, &level("loss_level_"));
    take("Validation loss by level", None, &level("validation_loss_level_"));
    take("Validation accuracy", Some(Span::Fraction), &named(&[("validation_accuracy", "all tokens")]));
    take("Validation accuracy by level", Some(Span::Fraction), &level("validation_accuracy_level_"));
    take("Validation PSNR, dB", None, &named(&[("validation_psnr", "PSNR")]));
    take("Validation SSIM", None, &named(&[("validation_ssim", "SSIM")]));
    take("Share of the codebook used", Some(Span::Fraction), &named(&[("validation_codebook_used", "all levels")]));
    take("Share of the codebook used by level", Some(Span::Fraction), &level("validation_codebook_used_level_"));
    take("Entropy of the codes, bits", Some(Span::FromZero), &named(&[("validation_codebook_entropy", "entropy")]));
    take("Learning rate", Some(Span::FromZero), &named(&[("learning_rate", "rate")]));
    take("Norm of the gradient", None, &named(&[("gradient_norm", "norm")]));
    take("Images a second", Some(Span::FromZero), &named(&[("images_per_second", "images")]));
    take("Share of the time that data was waited for", Some(Span::Fraction), &named(&[("data_wait_share", "waiting")]));
    let others = left.into_iter().map(|name| (name.replace('_', " "), vec![(name, name.replace('_', " "))], None));
    groups.extend(others);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_together_is_in_one_chart_and_nothing_is_lost() {
        let names =
            ["epoch", "loss", "loss_level_0", "loss_level_1", "validation_loss", "perceptual_loss", "odd_number"];
        let groups = groups(&names);
        let titles: Vec<&str> = groups.iter().map(|(title, _, _)| title.as_str()).collect();
        assert_eq!(titles, ["Loss", "Terms of the loss", "Loss by level", "odd number"]);
        assert_eq!(groups[0].1, [("loss", "training".to_owned()), ("validation_loss", "validation".to_owned())]);
        assert_eq!(groups[2].1[1], ("loss_level_1", "level 1".to_owned()));
    }

    #[test]
    fn numbers_far_apart_are_shown_by_powers() {
        let metrics =
            |values: [f64; 2]| Metrics { columns: vec![("loss".to_owned(), vec![(1.0, values[0]), (2.0, values[1])])] };
        assert_eq!(charts(&metrics([100.0, 1.0]))[0].span, Span::Logarithmic);
        assert_eq!(charts(&metrics([100.0, 10.0]))[0].span, Span::Data);
        assert_eq!(charts(&metrics([100.0, 0.0]))[0].span, Span::Data);
    }
}
