//! `restok compare`: sets beside each other by their scores.

use crate::{
    output::{print, print_json},
    settings::{CompareSettings, ComparisonFormat, named_score},
};
use anyhow::Result;
use pipeline::Limits;
use report::{
    ScoreColumn,
    comparison::{Comparison, RowOrder},
    gather_scores, score_columns,
};

/// Reads the evaluations one after another and prints the table.
///
/// # Errors
/// When nothing was scored at an address, or scores are damaged; when no set has the score that rows are sorted by.
pub(crate) async fn run(settings: CompareSettings, limits: &Limits) -> Result<()> {
    let mut records = Vec::new();
    for output in &settings.outputs {
        records.extend(gather_scores(output, limits).await?);
    }
    if let RowOrder::Score(column) = settings.order {
        let there: Vec<&'static ScoreColumn> = score_columns(records.iter());
        named_score("--sort", column.key(), &there, "a score that a set has, ")?;
    }
    let comparison = Comparison::new(records, settings.scores, settings.order);
    match settings.format {
        ComparisonFormat::Text => print(&comparison.text())?,
        ComparisonFormat::Markdown => print(&comparison.markdown())?,
        ComparisonFormat::Csv => print(&comparison.csv()?)?,
        ComparisonFormat::Latex => print(&comparison.latex())?,
        ComparisonFormat::Json => print_json(&comparison.document())?,
    }
    Ok(())
}
