//! The first pictures of a set, whatever form they lie in.

use crate::{
    Album,
    album::{Added, LeftOut, Picture},
};
use anyhow::{Context, Result};
use bytes::Bytes;
use pipeline::{PipelineError, SampleImage, Storage, TableReader, read_sample_parquet};
use schemas::{PictureFormat, Plan, UnitReport, picture_path, unit_pictures_path};
use std::collections::BTreeMap;

/// Pictures of a set that stands for itself.
pub(super) const OF_A_SET: usize = 40;
/// Longest side of a picture on the page, in pixels.
const LONGEST: u32 = 128;
/// Pictures that are looked through for those that are shown, and units that are read for them.
const LOOKED_THROUGH: usize = 400;
const UNITS: usize = 4;
/// Classes up to which pictures stand class by class.
const FEW_CLASSES: usize = 12;
/// Bytes of a block of a tar.
const BLOCK: usize = 512;

/// Some pictures of a set.
#[derive(Debug)]
pub(crate) struct Pictures {
    /// Class by class where classes are few, else all in one group without a name.
    pub(crate) groups: Vec<PictureGroup>,
    /// Pictures of the whole set.
    pub(crate) total: u64,
    /// Pictures that were to be shown and are not.
    pub(crate) left_out: LeftOut,
}

/// Pictures of one class, or of all.
#[derive(Debug)]
pub(crate) struct PictureGroup {
    /// The class.
    pub(crate) name: Option<String>,
    /// Its pictures.
    pub(crate) pictures: Vec<Picture>,
}

/// The first `wanted` pictures of an output; `None` where it has none.
///
/// # Errors
/// When a file is damaged, or the store fails.
pub(super) async fn first_pictures(
    storage: &Storage,
    reader: &TableReader,
    wanted: usize,
    album: &mut Album,
) -> Result<Option<Pictures>> {
    let plan = reader.plan();
    let Some(settings) = plan.settings().origin.pictures() else { return Ok(None) };
    let has = |format| settings.formats.contains(&format);
    let mut samples = Vec::new();
    for report in reader.reports().iter().take(UNITS) {
        let room = LOOKED_THROUGH - samples.len();
        samples.extend(if has(PictureFormat::Parquet) || has(PictureFormat::Npz) {
            // The archive is made of such files, which stay.
            let path = unit_pictures_path(PictureFormat::Parquet.name(), report.unit, plan.hash());
            let rows = read_sample_parquet(storage.get(&path).await?, &storage.uri(&path))?;
            rows.take(room).collect::<Result<Vec<_>, _>>()?
        } else if has(PictureFormat::Webdataset) {
            let path = unit_pictures_path(PictureFormat::Webdataset.name(), report.unit, plan.hash());
            let bytes = storage.get(&path).await?;
            tar_samples(&bytes, room).ok_or_else(|| PipelineError::Output {
                uri: storage.uri(&path),
                problem: "no tar of samples".to_owned(),
            })?
        } else {
            // A request each: no more of them than are shown.
            png_samples(storage, plan, report, wanted.saturating_sub(samples.len())).await?
        });
        if samples.len() >= LOOKED_THROUGH {
            break;
        }
    }
    let total = reader.row_counts().written;
    let mut left_out = LeftOut::default();
    let mut groups = Vec::new();
    for (name, samples) in grouped(samples, plan, wanted) {
        let mut pictures = Vec::new();
        for sample in samples {
            let number = sample.sample;
            let told = match class_name(plan, sample.label) {
                Some(class) => format!("sample {number}, {class}"),
                None => format!("sample {number}"),
            };
            let place = format!("{}: picture {number}", storage.display());
            pictures.extend(left_out.taken(album.add(&sample.png, LONGEST, told, &place)?));
        }
        groups.push(PictureGroup { name, pictures });
    }
    Ok(Some(Pictures { groups, total, left_out }))
}

/// The first pictures class by class, where classes are few and more than one; else the first of all.
fn grouped(samples: Vec<SampleImage>, plan: &Plan, wanted: usize) -> Vec<(Option<String>, Vec<SampleImage>)> {
    let mut classes: BTreeMap<i32, Vec<SampleImage>> = BTreeMap::new();
    for sample in &samples {
        classes.entry(sample.label).or_default().push(sample.clone());
    }
    let few = 2..=FEW_CLASSES.min(wanted);
    if !few.contains(&classes.len()) || classes.contains_key(&-1) {
        return vec![(None, samples.into_iter().take(wanted).collect())];
    }
    let each = (wanted / classes.len()).max(1);
    let named = |label: i32| class_name(plan, label).unwrap_or_else(|| format!("class {label}"));
    classes.into_iter().map(|(label, samples)| (Some(named(label)), samples.into_iter().take(each).collect())).collect()
}

fn class_name(plan: &Plan, label: i32) -> Option<String> {
    plan.class_names().get(usize::try_from(label).ok()?).cloned()
}

/// The first PNG files of a unit.
async fn png_samples(storage: &Storage, plan: &Plan, report: &UnitReport, wanted: usize) -> Result<Vec<SampleImage>> {
    let mut samples = Vec::new();
    let number = |path: &str| path.rsplit('/').next()?.strip_suffix(".png")?.parse::<u64>().ok();
    let files = report.pictures.iter().filter_map(|file| Some((number(&file.path)?, &file.path)));
    for (sample, path) in files.filter(|(sample, path)| picture_path(*sample) == **path).take(wanted) {
        let png = storage.get(path).await?;
        let label = plan.settings().origin.samples().map_or(-1, |origin| origin.class_of(sample));
        samples.push(SampleImage { sample, label, png });
    }
    Ok(samples)
}

/// The first samples of a tar as `restok generate` writes it: `.png`, `.cls` and `.json` of each, one after another.
fn tar_samples(tar: &Bytes, wanted: usize) -> Option<Vec<SampleImage>> {
    let mut samples = Vec::new();
    let mut at = 0;
    let mut picture: Option<(u64, Bytes)> = None;
    while samples.len() < wanted {
        let header = tar.get(at..at + BLOCK)?;
        if header[0] == 0 {
            break;
        }
        let text = |from: usize, to: usize| {
            std::str::from_utf8(&header[from..to]).ok().map(|text| text.trim_matches(['\0', ' ']))
        };
        let name = text(0, 100)?;
        let size = usize::from_str_radix(text(124, 136)?, 8).ok()?;
        let from = at + BLOCK;
        let content = tar.get(from..from.checked_add(size)?)?;
        match name.rsplit_once('.')? {
            (stem, "png") => picture = Some((stem.parse().ok()?, tar.slice(from..from + size))),
            (_, "cls") => {
                let (sample, png) = picture.take()?;
                samples.push(SampleImage { sample, label: std::str::from_utf8(content).ok()?.parse().ok()?, png });
            }
            _ => {}
        }
        at = from + size.next_multiple_of(BLOCK);
    }
    Some(samples)
}

/// A picture file of this machine.
///
/// # Errors
/// When it cannot be read, or is no picture.
pub(super) fn file(path: &std::path::Path, longest: u32, told: String, album: &mut Album) -> Result<Added> {
    let place = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| place.clone())?;
    album.add(&bytes, longest, told, &place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_gives_its_samples_and_a_torn_one_none() {
        let samples: Vec<SampleImage> = (0..3)
            .map(|sample| SampleImage { sample, label: sample as i32 + 5, png: Bytes::from(vec![sample as u8; 700]) })
            .collect();
        let tar = pipeline::encode_sample_tar(&samples, None, Some(1), "here").expect("a tar");
        assert_eq!(tar_samples(&tar, 10), Some(samples.clone()));
        assert_eq!(tar_samples(&tar, 2), Some(samples[..2].to_vec()));
        assert_eq!(tar_samples(&tar.slice(..1_000), 10), None);
    }
}
