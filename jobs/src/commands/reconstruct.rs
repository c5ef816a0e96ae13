//! `restok reconstruct`: tokens back to images.

mod choose;
mod originals;

use crate::{
    contact_sheet::{SheetRow, contact_sheet, picture},
    model_folder::{ModelFolder, tokenizer_identity},
    settings::{ImageChoice, ReconstructSettings, SettingsError},
};
use anyhow::{Context, Result};
use choose::ChosenImage;
use image::RgbImage;
use models::{Device, VisualTokenizer};
use pipeline::{Limits, Storage, TableReader};
use report::text::counted;
use schemas::{PlanSettings, Rounding, TokenBatch, sha256_hex};
use std::{collections::HashMap, path::Path};

/// Name of the contact sheet below `--to`.
const SHEET_FILE: &str = "contact-sheet.png";

/// Columns that a contact sheet holds at most: it is a picture to look at, and is in memory whole.
const SHEET_IMAGES: usize = 32;

/// Images beside each other in a contact sheet.
const IMAGES_BESIDE: usize = 10;

/// Rebuilds images and prints where they are.
///
/// # Errors
/// When there is no such output, image or tokenizer, the tokenizer is not the one that made the tokens, or a file cannot be
/// written.
pub(crate) async fn run(settings: ReconstructSettings, limits: Limits, device: Device) -> Result<()> {
    let storage = Storage::open(&settings.tokens, &limits)?;
    let reader = TableReader::open(&storage).await?;
    let plan_settings = reader.plan().settings();
    check_view(settings.view, plan_settings)?;
    let tokenizer = load(&settings, device).await?;
    check_tokenizer(&tokenizer, plan_settings, settings.allow_other_tokenizer)?;
    let keep = choose_prefixes(settings.keep.as_deref(), &tokenizer)?;
    let chosen = choose::choose(&reader, &settings.images, settings.view).await?;
    std::fs::create_dir_all(&settings.to).with_context(|| format!("{} cannot be made", settings.to.display()))?;

    let originals = match settings.originals {
        true => originals::read(&reader, &chosen, settings.view, &limits).await,
        false => HashMap::new(),
    };
    let mut rows = Vec::new();
    if settings.originals {
        let images: Vec<_> = chosen.iter().map(|image| originals.get(&image.image_id).cloned()).collect();
        save(&settings.to, &chosen, "original", &images)?;
        rows.push(SheetRow { label: "original".to_owned(), images });
    }
    for &tokens in &keep {
        let images =
            decode(&tokenizer, &chosen, tokens, settings.batch_size)?.into_iter().map(Some).collect::<Vec<_>>();
        save(&settings.to, &chosen, &format!("tokens-{tokens:03}"), &images)?;
        rows.push(SheetRow { label: counted(tokens as u64, "token"), images });
    }
    let sheet = settings.to.join(SHEET_FILE);
    save_sheet(&sheet, &tokenizer, plan_settings, &chosen, rows)?;
    crate::output::print(&format!(
        "{} from the first {} tokens\n{}\n",
        counted(chosen.len() as u64, "image"),
        keep.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        sheet.display()
    ))?;
    Ok(())
}

async fn load(settings: &ReconstructSettings, device: Device) -> Result<VisualTokenizer> {
    let (reference, precision) = (settings.tokenizer.clone(), settings.precision);
    let loading = tokio::task::spawn_blocking(move || -> Result<_> {
        Ok(ModelFolder::find(&reference)?.load_tokenizer(device, precision)?)
    });
    loading.await?
}

fn check_view(view: i8, settings: &PlanSettings) -> Result<(), SettingsError> {
    let views = settings.origin.views();
    match usize::try_from(view).is_ok_and(|view| view < views) {
        true => Ok(()),
        false => Err(SettingsError::invalid(
            "--view",
            view.to_string(),
            format!("0 to {}: the tokens were made with {}", views - 1, settings.origin),
        )),
    }
}

/// Tokens mean something only to the tokenizer that made them.
fn check_tokenizer(
    tokenizer: &VisualTokenizer,
    settings: &PlanSettings,
    allow_other: bool,
) -> Result<(), SettingsError> {
    let (found, expected) = (tokenizer_identity(tokenizer), &settings.tokenizer);
    if found.sha256 == expected.sha256 {
        return Ok(());
    }
    let other = SettingsError::invalid(
        "--tokenizer",
        format!("{} (sha256 {})", found.name, &found.sha256[..12]),
        format!(
            "the one that made these tokens, {} (sha256 {}), or --allow-other-tokenizer",
            expected.name,
            expected.sha256.get(..12).unwrap_or(&expected.sha256)
        ),
    );
    match allow_other && found.levels == expected.levels && found.codebook_size == expected.codebook_size {
        true => {
            tracing::warn!("{other}");
            Ok(())
        }
        false => Err(other),
    }
}

/// Prefix lengths: those that were asked for, or the ends of the levels.
fn choose_prefixes(asked: Option<&[usize]>, tokenizer: &VisualTokenizer) -> Result<Vec<usize>, SettingsError> {
    let tokens_per_image = tokenizer.levels().tokens_per_image();
    let Some(asked) = asked else { return Ok(tokenizer.levels().offsets().split_off(1)) };
    match asked.iter().find(|&&tokens| tokens > tokens_per_image) {
        None => Ok(asked.to_vec()),
        Some(tokens) => Err(SettingsError::invalid(
            "--keep",
            tokens.to_string(),
            format!("1 to {tokens_per_image}, the tokens an image"),
        )),
    }
}

/// Decodes every chosen image from its first `tokens` tokens.
fn decode(
    tokenizer: &VisualTokenizer,
    chosen: &[ChosenImage],
    tokens: usize,
    batch_size: usize,
) -> Result<Vec<RgbImage>> {
    let mut images = Vec::with_capacity(chosen.len());
    for part in chosen.chunks(batch_size) {
        let codes = part.iter().flat_map(|image| image.tokens.iter().copied()).collect();
        let batch = TokenBatch::try_new(codes, tokenizer.levels().tokens_per_image())?;
        let pixels = tokenizer.decode(&batch, tokens, Rounding::Nearest)?;
        for row in 0..pixels.filled() {
            images.push(picture(&pixels, row)?);
        }
    }
    Ok(images)
}

fn save(to: &Path, chosen: &[ChosenImage], what: &str, images: &[Option<RgbImage>]) -> Result<()> {
    let ids: Vec<&str> = chosen.iter().map(|image| image.image_id.as_str()).collect();
    for (name, picture) in file_names(&ids).iter().zip(images) {
        if let Some(picture) = picture {
            write_png(&to.join(format!("{name}.{what}.png")), picture)?;
        }
    }
    Ok(())
}

fn save_sheet(
    path: &Path,
    tokenizer: &VisualTokenizer,
    settings: &PlanSettings,
    chosen: &[ChosenImage],
    mut rows: Vec<SheetRow>,
) -> Result<()> {
    if chosen.len() > SHEET_IMAGES {
        tracing::info!("the contact sheet shows the first {SHEET_IMAGES} of {} images", chosen.len());
        rows.iter_mut().for_each(|row| row.images.truncate(SHEET_IMAGES));
    }
    let captions: Vec<String> = chosen.iter().take(SHEET_IMAGES).map(|image| image.image_id.clone()).collect();
    let title = format!("{}, {}", tokenizer.name(), settings.origin);
    write_png(path, &contact_sheet(&title, &captions, &rows, IMAGES_BESIDE))
}

fn write_png(path: &Path, picture: &RgbImage) -> Result<()> {
    picture.save(path).with_context(|| format!("{} cannot be written", path.display()))
}

/// An image's key as a file's name: keys by path hold slashes.
fn file_name(image_id: &str) -> String {
    let safe = |letter: char| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' };
    let name: String = image_id.chars().map(safe).collect();
    match name.starts_with('.') {
        true => format!("_{name}"),
        false => name,
    }
}

/// A name for each key, all different: `a/b` and `a_b` would both be `a_b`, and get a digest of their keys behind it.
fn file_names(image_ids: &[&str]) -> Vec<String> {
    let names: Vec<String> = image_ids.iter().map(|image_id| file_name(image_id)).collect();
    let mut uses: HashMap<&str, usize> = HashMap::new();
    names.iter().for_each(|name| *uses.entry(name).or_default() += 1);
    let distinct = |(name, image_id): (&String, &&str)| match uses[name.as_str()] {
        1 => name.clone(),
        _ => format!("{name}-{}", &sha256_hex(image_id.as_bytes())[..8]),
    };
    names.iter().zip(image_ids).map(distinct).collect()
}

/// The images that were asked for but are not in the tables.
#[derive(Debug, thiserror::Error)]
#[error("no tokens of {}; it may have been rejected: see its status in the images table", missing.join(", "))]
pub(crate) struct NoSuchImages {
    missing: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_file_names_that_stay_in_their_folder() {
        assert_eq!(file_name("n01440764_10026"), "n01440764_10026");
        assert_eq!(file_name("cats/../a b"), "cats_.._a_b");
        assert_eq!(file_name(".."), "_..");
    }

    #[test]
    fn keys_that_would_be_one_file_are_several() {
        let names = file_names(&["a/b", "a_b", "c/d", "a b"]);
        assert_eq!(names[2], "c_d");
        let distinct: std::collections::HashSet<&String> = names.iter().collect();
        assert!(distinct.len() == 4 && names.iter().all(|name| !name.contains(['/', ' '])), "{names:?}");
    }
}
