//! How much of the codebook each level uses, and how evenly.

use super::{part, table};
use crate::{
    charts::{Bar, BarChart},
    inspection::Inspection,
    text::{count, percent},
};
use maud::{Markup, html};
use schemas::CodebookUse;

pub(super) fn section(inspection: &Inspection) -> Markup {
    if inspection.all_levels.codes == 0 {
        return html! {};
    }
    let size = inspection.settings.tokenizer.codebook_size;
    let levels: Vec<&CodebookUse> = inspection.levels.iter().chain([&inspection.all_levels]).collect();
    let used = levels.iter().map(|level| {
        let seen = level.codes.min(size as u64) as f64 / size.max(1) as f64;
        Bar {
            label: name(level),
            fraction: level.fraction,
            most: (seen < 1.0).then_some(seen),
            value: percent(level.fraction),
            told: format!("{}: {} of {} codes occur", name(level), count(level.distinct), count(size as u64)),
        }
    });
    let entropy = levels.iter().map(|level| {
        let (whole, most) = ((size as f64).log2(), most_bits(level, size));
        Bar {
            label: name(level),
            fraction: level.entropy_bits / whole,
            most: (most < whole).then_some(most / whole),
            value: format!("{:.2} bits", level.entropy_bits),
            told: format!("{}: {:.3} of at most {most:.3} bits", name(level), level.entropy_bits),
        }
    });
    let rows: Vec<Vec<String>> = levels
        .iter()
        .map(|level| {
            vec![
                name(level),
                count(level.tokens_per_image as u64),
                count(level.codes),
                count(level.distinct),
                percent(level.fraction),
                format!("{:.2}", level.entropy_bits),
                format!("{:.2}", most_bits(level, size)),
            ]
        })
        .collect();
    let content = html! {
        p.note {
            "A full bar is all " (count(size as u64)) " codes, or " (format!("{:.0}", (size as f64).log2()))
            " bits. A mark shows the most that so few tokens could reach. Level 0 is the coarsest."
        }
        div.charts {
            (BarChart { title: "Codes used".to_owned(), bars: used.collect() }.render())
            (BarChart { title: "Entropy".to_owned(), bars: entropy.collect() }.render())
        }
        details {
            summary { "The numbers" }
            (table(&["level", "tokens an image", "codes seen", "distinct", "of codebook", "entropy, bits", "at most"], &rows))
        }
        @if inspection.codes_out_of_range > 0 {
            p.warning { (count(inspection.codes_out_of_range)) " codes are outside the codebook: run " code { "restok verify" } }
        }
    };
    part("Use of the codebook", content)
}

fn name(level: &CodebookUse) -> String {
    level.level.map_or("all levels".to_owned(), |number| format!("level {number}"))
}

/// Bits that the codes of a level could have at most: of all codes alike, or of each token another.
fn most_bits(level: &CodebookUse, size: usize) -> f64 {
    (level.codes.min(size as u64).max(1) as f64).log2()
}
