//! Options and settings of `restok compare`.

use super::{SettingsError, shared::required};
use clap::ValueEnum;
use report::{ScoreColumn, comparison::RowOrder};

/// Shape of a comparison on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComparisonFormat {
    /// Columns for a terminal, best scores marked with *
    #[default]
    Text,
    /// A Markdown table, best scores in bold
    Markdown,
    /// Comma-separated values with all digits, and columns for bounds, best scores and notes
    Csv,
    /// A LaTeX table (booktabs), best scores in bold
    Latex,
    /// One JSON document with the whole lines of the scores tables
    Json,
}

/// Options of `restok compare`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompareOptions {
    /// Outputs of `restok evaluate`, sweeps with scores, and folders of such outputs
    #[arg(value_name = "EVALUATION")]
    pub(crate) output: Option<Vec<String>>,
    /// Scores to show, in this order, comma-separated (default: all that any set has).
    ///
    /// Names as for `restok evaluate --scores` (fid, sfid, is, precision, recall, kid, mind, density, coverage,
    /// fid-infinity, vendi, authpct), and kid-deviation, psnr, ssim, ms-ssim, lpips, codes-used and entropy-bits.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) scores: Option<Vec<String>>,
    /// Sort by this score, best first, or none for the order of the evaluations (default: the first score shown).
    ///
    /// Sets whose score is not comparable come after the others.
    #[arg(long, value_name = "SCORE")]
    pub(crate) sort: Option<String>,
    /// Format of the table on standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Option<ComparisonFormat>,
}

/// Settings of `restok compare`.
#[derive(Clone, Debug)]
pub(crate) struct CompareSettings {
    /// Where the evaluations are; at least one.
    pub(crate) outputs: Vec<String>,
    /// Scores that are shown; `None` for all that are there.
    pub(crate) scores: Option<Vec<&'static ScoreColumn>>,
    /// How sets follow each other.
    pub(crate) order: RowOrder,
    /// Shape of the table.
    pub(crate) format: ComparisonFormat,
}

impl CompareOptions {
    /// The settings.
    ///
    /// # Errors
    /// When there is no evaluation, or a score is unknown or not shown.
    pub(crate) fn resolve(self) -> Result<CompareSettings, SettingsError> {
        const SECTION: &str = "compare";
        let outputs = self.output.filter(|outputs| !outputs.is_empty());
        let outputs = required(outputs, "output", "EVALUATION as an argument", SECTION)?;
        let scores = self.scores.map(|names| columns(&names)).transpose()?;
        let order = match self.sort.as_deref() {
            None => RowOrder::FirstScore,
            Some("none") => RowOrder::Given,
            Some(name) => {
                let shown = scores.clone().unwrap_or_else(|| ScoreColumn::all().iter().collect());
                RowOrder::Score(named("--sort", name, &shown, "none, or ")?)
            }
        };
        Ok(CompareSettings { outputs, scores, order, format: self.format.unwrap_or_default() })
    }
}

/// Scores by their names, each once.
fn columns(names: &[String]) -> Result<Vec<&'static ScoreColumn>, SettingsError> {
    let all: Vec<&ScoreColumn> = ScoreColumn::all().iter().collect();
    let mut columns: Vec<&ScoreColumn> = Vec::new();
    for name in names {
        let column = named("--scores", name, &all, "")?;
        if !columns.iter().any(|other| other.key() == column.key()) {
            columns.push(column);
        }
    }
    Ok(columns)
}

/// The score with this name among `known`.
///
/// # Errors
/// Names those that are known, with `besides` before them.
pub(crate) fn named(
    flag: &'static str,
    name: &str,
    known: &[&'static ScoreColumn],
    besides: &str,
) -> Result<&'static ScoreColumn, SettingsError> {
    known.iter().find(|column| column.key() == name).copied().ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|column| column.key()).collect();
        SettingsError::invalid(flag, format!("{name:?}"), format!("{besides}one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    #[test]
    fn scores_are_shown_as_asked_for_each_once() {
        let settings =
            parsed::<CompareOptions>("a b --scores recall,fid,recall --sort fid").resolve().expect("complete");
        let keys = settings.scores.map(|scores| scores.iter().map(|column| column.key()).collect::<Vec<_>>());
        assert_eq!((settings.outputs.len(), keys), (2, Some(vec!["recall", "fid"])));
        assert!(matches!(settings.order, RowOrder::Score(column) if column.key() == "fid"));
        let settings = parsed::<CompareOptions>("a --sort none").resolve().expect("complete");
        assert!(settings.scores.is_none() && matches!(settings.order, RowOrder::Given));
        assert_eq!(settings.format, ComparisonFormat::Text);
    }

    #[test]
    fn what_is_unknown_or_not_shown_is_refused_with_what_there_is() {
        for (line, words) in [
            ("", &["EVALUATION as an argument", "[compare]"][..]),
            ("a --scores fd", &["--scores", "\"fd\"", "fid, sfid, is", "lpips"]),
            ("a --sort best", &["--sort", "\"best\"", "none, or one of fid"]),
            ("a --scores fid,is --sort kid", &["--sort", "\"kid\"", "one of fid, is"]),
        ] {
            let error = parsed::<CompareOptions>(line).resolve().expect_err(line).to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
    }
}
