//! What is said of any output: where its rows come from, and what became of them.

use crate::text::{bytes, count, counted, named, percent};
use schemas::{Origin, PlanSettings, RowCounts, SourceAccount};

/// Where rows come from, and how it lies there.
pub fn source_text(settings: &PlanSettings) -> String {
    match settings.origin.images() {
        Some(images) => format!("{} ({})", settings.source, images.layout),
        None => settings.source.clone(),
    }
}

/// How rows were made of what they come from, and what that is called.
pub fn origin_text(origin: &Origin) -> (&'static str, String) {
    match origin {
        Origin::Images(images) => {
            let views = counted(images.crop.views() as u64, "view");
            ("crop", format!("{origin} ({views} an image, EXIF orientation ignored)"))
        }
        Origin::Samples(_) => ("sampling", origin.to_string()),
        Origin::Tokens(_) => ("decoded from", origin.to_string()),
    }
}

/// Row counts as text: what became of the images, with a line for each reason.
pub fn row_counts_text(row_counts: &RowCounts) -> String {
    let mut pairs = vec![
        ("listed", format!("{}, {}", counted(row_counts.listed, "image"), bytes(row_counts.bytes_read))),
        (
            "written",
            format!("{}, {} of tokens", counted(row_counts.written, "image"), counted(row_counts.token_rows, "row")),
        ),
        ("rejected", format!("{} ({})", count(row_counts.rejected_total()), percent(row_counts.reject_rate()))),
    ];
    let reasons: Vec<(String, String)> =
        row_counts.rejected.iter().map(|(reason, number)| (format!("  {reason}"), count(*number))).collect();
    pairs.extend(reasons.iter().map(|(reason, number)| (reason.as_str(), number.clone())));
    format!("Row counts\n{}{}", named(2, &pairs), left_out_text(&row_counts.left_out))
}

/// What was left out, a line for each reason with the first of them; nothing where nothing was.
pub fn left_out_text(left_out: &SourceAccount) -> String {
    if left_out.is_empty() {
        return String::new();
    }
    let lines = left_out
        .iter()
        .map(|(reason, left)| format!("  {} {}, such as {}\n", count(left.count), reason.describe(), left.first));
    format!("Left out\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::RejectReason;

    #[test]
    fn row_counts_show_every_reason() {
        let row_counts = RowCounts {
            listed: 1000,
            written: 997,
            rejected: [(RejectReason::Truncated, 2), (RejectReason::TooLarge, 1)].into(),
            token_rows: 1994,
            bytes_read: 2048,
            left_out: SourceAccount::default(),
        };
        let text = row_counts_text(&row_counts);
        assert_eq!(
            text,
            "Row counts\n  listed       1,000 images, 2.00 KiB\n  written      997 images, 1,994 rows of tokens\n  rejected     3 (0.3 %)\n    \
             truncated  2\n    too_large  1\n"
        );
    }
}
