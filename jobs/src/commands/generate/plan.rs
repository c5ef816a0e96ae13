//! The plans of generated sets.

use super::Loaded;
use crate::settings::{ClassChoice, GenerateSettings, SettingsError};
use anyhow::{Context, Result};
use pipeline::{PipelineError, TableReader};
use schemas::{Origin, PictureFormat, Pictures, Plan, PlanSettings, PlannedInput, SampleOrigin, Sampling, TokenOrigin};

/// The plan of `count` samples.
pub(super) fn of_samples(
    settings: &GenerateSettings,
    loaded: &Loaded,
    sampling: &Sampling,
    classes: &ClassChoice,
    count: u64,
) -> Result<Plan> {
    let generator = loaded.generator()?;
    let origin = SampleOrigin {
        generator: generator.identity.clone(),
        sampling: sampling.clone(),
        count,
        classes: generator.choose_classes(classes)?,
        pictures: (!settings.formats.is_empty()).then(|| pictures(settings, loaded)),
    };
    let ranges =
        (0..count).step_by(settings.unit_size).map(|start| start..count.min(start + settings.unit_size as u64));
    let inputs = ranges
        .enumerate()
        .map(|(unit, samples)| {
            Ok(PlannedInput {
                uri: PlannedInput::SAMPLES.to_owned(),
                size: 0,
                etag: None,
                rows: Some(samples),
                label: None,
                unit: u32::try_from(unit).context("more units than there are numbers for: use larger ones")?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let plan_settings = plan_settings(settings, loaded, generator.identity.name.clone(), Origin::Samples(origin));
    Ok(Plan::try_new(plan_settings, class_names(loaded, generator.config.classes()), inputs)?)
}

/// The plan of the pictures of another output's tokens: a unit for each of its files.
pub(super) fn of_tokens(
    settings: &GenerateSettings,
    loaded: &Loaded,
    tokens: &str,
    tables: &TableReader,
) -> Result<Plan> {
    let shown = pipeline::without_secrets(tokens);
    let theirs = tables.plan();
    if !tables.is_finished() {
        let problem = "is not finished: run the job that makes it to its end, or `restok finalize`".to_owned();
        return Err(PipelineError::Output { uri: shown, problem }.into());
    }
    let made_by = &theirs.settings().tokenizer;
    let found = &loaded.tokenizer;
    let fits = found.levels == made_by.levels && found.codebook_size == made_by.codebook_size;
    if found.sha256 != made_by.sha256 && !(settings.allow_other_tokenizer && fits) {
        return Err(SettingsError::invalid(
            "--tokenizer",
            format!("{} (sha256 {})", found.name, found.sha256),
            format!(
                "the one of these tokens, {} (sha256 {}), or --allow-other-tokenizer",
                made_by.name, made_by.sha256
            ),
        )
        .into());
    }
    let mut first = 0;
    let inputs = tables.reports().iter().zip(0_u32..).map(|(report, unit)| {
        let rows = first..first + report.row_counts.written;
        first = rows.end;
        let etag = Some(report.tokens.sha256.clone());
        PlannedInput {
            uri: format!("{}/{}", shown.trim_end_matches('/'), report.tokens.path),
            size: report.tokens.bytes,
            etag,
            rows: Some(rows),
            label: None,
            unit,
        }
    });
    let origin = TokenOrigin { tokens_plan: theirs.hash().clone(), pictures: pictures(settings, loaded) };
    let class_names = match loaded.class_names.is_empty() {
        true => theirs.class_names().to_vec(),
        false => loaded.class_names.clone(),
    };
    let plan_settings = plan_settings(settings, loaded, shown.clone(), Origin::Tokens(origin));
    Ok(Plan::try_new(plan_settings, class_names, inputs)?)
}

fn plan_settings(settings: &GenerateSettings, loaded: &Loaded, source: String, origin: Origin) -> PlanSettings {
    PlanSettings {
        source,
        split: settings.split.clone(),
        tokenizer: loaded.tokenizer.clone(),
        precision: settings.precision.to_string(),
        batch_size: settings.batch_size,
        unit_size: settings.unit_size,
        origin,
    }
}

fn pictures(settings: &GenerateSettings, loaded: &Loaded) -> Pictures {
    let mut formats = settings.formats.clone();
    // The archive is made of what Parquet holds.
    if formats.contains(&PictureFormat::Npz) {
        formats.insert(PictureFormat::Parquet);
    }
    Pictures {
        decoder_precision: settings.decoder_precision.to_string(),
        rounding: settings.rounding,
        side: loaded.side,
        formats,
    }
}

/// Names for all classes, or none.
fn class_names(loaded: &Loaded, classes: usize) -> Vec<String> {
    match loaded.class_names.len() == classes {
        true => loaded.class_names.clone(),
        false => Vec::new(),
    }
}
