//! What is in an output: counts, provenance, use of the codebook.

use crate::{
    output_text::{origin_text, row_counts_text, source_text},
    text::{aligned, bytes, count, counted, named, percent},
};
use anyhow::Result;
use futures::TryStreamExt;
use pipeline::{Storage, TableReader};
use schemas::{CodebookStatistics, CodebookUse, KEY_UNIT, PlanSettings, RowCounts, TokenRows};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
};

/// Everything that `restok inspect` says.
#[derive(Debug, Serialize)]
pub struct Inspection {
    pub(crate) output: String,
    /// Whether it was finalized.
    pub(crate) finished: bool,
    pub(crate) units: Units,
    pub(crate) plan: String,
    pub(crate) settings: PlanSettings,
    #[serde(rename = "books")]
    pub(crate) row_counts: RowCounts,
    /// The files' own account of their making; more than one value where they differ.
    pub(crate) provenance: BTreeMap<String, BTreeSet<String>>,
    pub(crate) files: Files,
    pub(crate) levels: Vec<CodebookUse>,
    pub(crate) all_levels: CodebookUse,
    /// Codes that the codebook does not have; 0 in a sound table.
    pub(crate) codes_out_of_range: u64,
    pub(crate) examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Units {
    pub(crate) complete: u64,
    pub(crate) total: u32,
    /// Units whose files another attempt, with other bytes, had written first.
    pub(crate) adopted: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Files {
    pub(crate) tokens: usize,
    pub(crate) tokens_bytes: u64,
    pub(crate) images: usize,
    pub(crate) images_bytes: u64,
    /// Everything in the tokens files, divided by the tokens in them.
    pub(crate) bits_a_token: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Example {
    pub(crate) image_id: String,
    pub(crate) view: i8,
    pub(crate) label: Option<i32>,
    pub(crate) tokens: Vec<i16>,
}

/// What of the files' own account of their making is told, and under which name.
const MADE_WITH: [(&str, &str); 4] = [
    ("device", "restok.device_kind"),
    ("libtorch", "restok.libtorch"),
    ("decoder", "restok.decoder"),
    ("restok", "restok.version"),
];

impl Inspection {
    /// Devices and versions that made the files, a name and a text each, as far as the files say so.
    pub(crate) fn made_with(&self) -> impl Iterator<Item = (&'static str, String)> {
        MADE_WITH.iter().filter_map(|(name, key)| {
            let values: Vec<&str> = self.provenance.get(*key)?.iter().map(String::as_str).collect();
            Some((*name, values.join("; ")))
        })
    }
}

/// Reads an output unit by unit; a few files are in memory at once.
///
/// # Errors
/// When a file cannot be read.
pub async fn inspect(storage: &Storage, reader: &TableReader, rows: usize) -> Result<Inspection> {
    let settings = reader.plan().settings();
    let levels = settings.tokenizer.levels.clone();
    let tokens_per_image = levels.tokens_per_image() as u64;
    let mut statistics = CodebookStatistics::new(levels, settings.tokenizer.codebook_size);
    let mut provenance: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut examples = Vec::new();
    let mut files = pin!(reader.token_files());
    while let Some(file) = files.try_next().await? {
        statistics.add(&file.rows.tokens);
        for (key, value) in file.metadata.into_iter().filter(|(key, _)| key != KEY_UNIT) {
            provenance.entry(key).or_default().insert(value);
        }
        examples.extend(first_rows(&file.rows, rows - examples.len()));
    }
    let row_counts = reader.row_counts();
    let reports = reader.reports();
    let tokens_bytes = reports.iter().map(|report| report.tokens.bytes).sum();
    let tokens = row_counts.token_rows * tokens_per_image;
    Ok(Inspection {
        output: storage.display().to_owned(),
        finished: reader.is_finished(),
        units: Units {
            complete: reports.len() as u64,
            total: reader.plan().units(),
            adopted: reports.iter().filter(|report| report.adopted).count(),
        },
        plan: reader.plan().hash().to_string(),
        settings: settings.clone(),
        row_counts,
        provenance,
        files: Files {
            tokens: reports.len(),
            tokens_bytes,
            images: reports.len(),
            images_bytes: reports.iter().map(|report| report.images.bytes).sum(),
            bits_a_token: (tokens > 0).then(|| tokens_bytes as f64 * 8.0 / tokens as f64),
        },
        levels: statistics.levels(),
        all_levels: statistics.all(),
        codes_out_of_range: statistics.out_of_range(),
        examples,
    })
}

fn first_rows(rows: &TokenRows, wanted: usize) -> Vec<Example> {
    rows.tokens
        .iter_rows()
        .take(wanted)
        .enumerate()
        .map(|(row, tokens)| Example {
            image_id: rows.image_ids[row].clone(),
            view: rows.views[row],
            label: rows.labels[row],
            tokens: tokens.to_vec(),
        })
        .collect()
}

/// What `restok inspect` prints.
pub fn inspection_text(inspection: &Inspection) -> String {
    let settings = &inspection.settings;
    let units = &inspection.units;
    let state = match inspection.finished {
        true => format!("finished: {}", counted(u64::from(units.total), "unit")),
        false if units.complete == u64::from(units.total) => {
            format!("unfinished: all {} units are complete, `restok finalize` will close it", units.total)
        }
        false => format!(
            "unfinished: {} of {} units are complete; what follows counts only those",
            units.complete, units.total
        ),
    };
    let levels: Vec<String> = settings.tokenizer.levels.sizes().iter().map(ToString::to_string).collect();
    let mut made = vec![
        ("source", source_text(settings)),
        ("split", settings.split.clone()),
        ("tokenizer", settings.tokenizer.name.clone()),
        ("tokenizer sha256", settings.tokenizer.sha256.clone()),
        ("levels", levels.join(", ")),
        origin_text(&settings.origin),
        ("precision", format!("{}, batches of {}", settings.precision, settings.batch_size)),
        ("plan", inspection.plan.clone()),
    ];
    made.extend(inspection.made_with());
    if units.adopted > 0 {
        made.push((
            "adopted",
            format!("{} of which another attempt's files were there first", counted(units.adopted as u64, "unit")),
        ));
    }
    let files = &inspection.files;
    let bits = files.bits_a_token.map_or(String::new(), |bits| format!(", {bits:.2} bits a token"));
    let stored = [
        ("tokens", format!("{}, {}{bits}", counted(files.tokens as u64, "file"), bytes(files.tokens_bytes))),
        ("images", format!("{}, {}", counted(files.images as u64, "file"), bytes(files.images_bytes))),
    ];
    let mut text = format!(
        "{}\n{state}\n\n{}\nMade from\n{}\nStored as\n{}\nUse of the codebook ({} codes)\n{}",
        inspection.output,
        row_counts_text(&inspection.row_counts),
        named(2, &made),
        named(2, &stored),
        count(settings.tokenizer.codebook_size as u64),
        aligned(2, &level_rows(inspection)),
    );
    if inspection.codes_out_of_range > 0 {
        text.push_str(&format!(
            "  {} codes are outside the codebook: run `restok verify`\n",
            count(inspection.codes_out_of_range)
        ));
    }
    if !inspection.examples.is_empty() {
        text.push_str("\nFirst rows (image_id, view, label, tokens)\n");
        for example in &inspection.examples {
            text.push_str(&format!("  {}\n", example_row(example).join("  ")));
        }
    }
    text
}

fn level_rows(inspection: &Inspection) -> Vec<Vec<String>> {
    let heading = ["level", "tokens", "codes seen", "distinct", "of codebook", "entropy, bits"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(inspection.levels.iter().chain([&inspection.all_levels]).map(|level| {
        let tokens = match (level.level, level.tokens_per_image) {
            (Some(_), 1) => level.first_token.to_string(),
            _ => format!("{}..{}", level.first_token, level.first_token + level.tokens_per_image - 1),
        };
        vec![
            level.level.map_or("all".to_owned(), |number| number.to_string()),
            tokens,
            count(level.codes),
            count(level.distinct),
            percent(level.fraction),
            format!("{:.2}", level.entropy_bits),
        ]
    }));
    rows
}

fn example_row(example: &Example) -> Vec<String> {
    const SHOWN: usize = 12;
    let mut tokens: Vec<String> = example.tokens.iter().take(SHOWN).map(ToString::to_string).collect();
    if example.tokens.len() > SHOWN {
        tokens.push(format!("… {} more", example.tokens.len() - SHOWN));
    }
    vec![
        example.image_id.clone(),
        example.view.to_string(),
        example.label.map_or("none".to_owned(), |label| label.to_string()),
        format!("[{}]", tokens.join(", ")),
    ]
}
