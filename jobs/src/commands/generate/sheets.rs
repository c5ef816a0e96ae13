//! Sheets of samples: many of each class, or one of each class step by step.

use super::Loaded;
use crate::{
    contact_sheet::{SheetRow, contact_sheet, picture},
    settings::{Codes, GenerateSettings, SettingsError},
};
use anyhow::{Context, Result};
use image::RgbImage;
use models::{Generator, VisualTokenizer};
use report::text::counted;
use schemas::{Origin, SampleBatch, SampleOrigin, Sampling, TokenBatch};
use std::path::Path;

/// Draws the sheets that were asked for.
///
/// # Errors
/// When the networks refuse, or a file cannot be written.
pub(super) async fn draw(settings: GenerateSettings, loaded: Loaded) -> Result<()> {
    let written = tokio::task::spawn_blocking(move || draw_loaded(&settings, &loaded)).await??;
    Ok(crate::output::print(&written)?)
}

fn draw_loaded(settings: &GenerateSettings, loaded: &Loaded) -> Result<String> {
    let Codes::Draw { sampling, classes, .. } = &settings.codes else {
        return Err(SettingsError::invalid("--grid", "with --decode-only", "a generator to draw with").into());
    };
    let known = loaded.generator()?;
    let classes = known.choose_classes(classes)?;
    let mut generator = loaded.borrow_generator(settings)?;
    let tokenizer = loaded.borrow_tokenizer(settings)?;
    let drawn = SampleOrigin {
        generator: known.identity.clone(),
        sampling: sampling.clone(),
        count: 0,
        classes: classes.clone(),
        pictures: None,
    };
    let title = format!("{}, {}", generator.name(), Origin::Samples(drawn));
    let mut written = String::new();
    if let Some(file) = &settings.sheets.grid {
        let columns = settings.sheets.columns;
        // Sample by sample the set that the same command without --grid begins with.
        let codes = sample(&mut generator, settings, sampling, &classes, columns)?;
        let rows = grid_rows(loaded, &classes, &decode(&tokenizer, &codes, None, settings)?);
        let captions: Vec<String> = (1..=columns).map(|column| column.to_string()).collect();
        save(file, &contact_sheet(&title, &captions, &rows, columns))?;
        let (classes, samples) = (counted_classes(&classes), counted(columns as u64, "sample"));
        written.push_str(&format!("{classes}, {samples} of each\n{}\n", file.display()));
    }
    if let Some(file) = &settings.sheets.reveal {
        let codes = sample(&mut generator, settings, sampling, &classes, 1)?;
        // What is there after a step: the tokens up to its last, and the decoder's own guess for the rest.
        let ends = known.config.step_ends();
        let empty = |&class: &i32| SheetRow { label: class_label(loaded, class), images: Vec::new() };
        let mut rows: Vec<SheetRow> = classes.iter().map(empty).collect();
        for &end in &ends {
            for (row, image) in rows.iter_mut().zip(decode(&tokenizer, &codes, Some(end), settings)?) {
                row.images.push(Some(image));
            }
        }
        let captions: Vec<String> = ends.iter().map(|&end| counted(end as u64, "token")).collect();
        save(file, &contact_sheet(&title, &captions, &rows, captions.len()))?;
        let (classes, steps) = (counted_classes(&classes), counted(ends.len() as u64, "step"));
        written.push_str(&format!("{classes}, one sample of each after each of {steps}\n{}\n", file.display()));
    }
    Ok(written)
}

/// `each` samples of every class: sample `i` is of class `i` modulo their number, as in a set.
fn sample(
    generator: &mut Generator,
    settings: &GenerateSettings,
    sampling: &Sampling,
    classes: &[i32],
    each: usize,
) -> Result<TokenBatch> {
    let all: Vec<u64> = (0..(classes.len() * each) as u64).collect();
    let mut codes = Vec::new();
    for numbers in all.chunks(settings.batch_size) {
        let of_class = numbers.iter().map(|&number| classes[number as usize % classes.len()]).collect();
        let batch = SampleBatch::try_new(numbers.to_vec(), of_class, settings.batch_size)?;
        codes.extend_from_slice(generator.sample(&batch, sampling)?.codes());
    }
    Ok(TokenBatch::try_new(codes, generator.levels().tokens_per_image())?)
}

/// Pictures of the first `tokens` tokens of each row, or of all.
fn decode(
    tokenizer: &VisualTokenizer,
    codes: &TokenBatch,
    tokens: Option<usize>,
    settings: &GenerateSettings,
) -> Result<Vec<RgbImage>> {
    let per_image = codes.tokens_per_image();
    let mut images = Vec::with_capacity(codes.rows());
    for part in codes.codes().chunks(settings.batch_size * per_image) {
        let part = TokenBatch::try_new(part.to_vec(), per_image)?;
        let pixels = tokenizer.decode(&part, tokens.unwrap_or(per_image), settings.rounding)?;
        for row in 0..pixels.filled() {
            images.push(picture(&pixels, row)?);
        }
    }
    Ok(images)
}

fn grid_rows(loaded: &Loaded, classes: &[i32], images: &[RgbImage]) -> Vec<SheetRow> {
    classes
        .iter()
        .enumerate()
        .map(|(place, &class)| SheetRow {
            label: class_label(loaded, class),
            images: images.iter().skip(place).step_by(classes.len()).cloned().map(Some).collect(),
        })
        .collect()
}

/// The plural that [`counted`] does not make.
fn counted_classes(classes: &[i32]) -> String {
    match classes.len() {
        1 => "1 class".to_owned(),
        many => format!("{many} classes"),
    }
}

fn class_label(loaded: &Loaded, class: i32) -> String {
    let name = usize::try_from(class).ok().and_then(|class| loaded.class_names.get(class));
    name.cloned().unwrap_or_else(|| format!("class {class}"))
}

fn save(file: &Path, sheet: &RgbImage) -> Result<()> {
    sheet.save(file).with_context(|| format!("{} cannot be written", file.display()))
}
