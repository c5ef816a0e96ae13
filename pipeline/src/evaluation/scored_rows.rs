//! The file of a unit read back, with every shape checked.

use super::scored_file::{KEY_REJECTED, KEY_SCORING, KEY_UNITS, KEY_VARIANTS, scored_schema};
use crate::{
    PipelineError,
    parquet_batches::{self, ParquetBatches},
};
use arrow_array::{
    Array, ArrowPrimitiveType, RecordBatch,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int16Type, Int32Type},
};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use schemas::{
    ImageMeasures, KEY_SCHEMA_VERSION, KEY_UNIT, SCHEMA_VERSION, ScoredImages, ScoredRow, ScoredUnit, TokenBatch,
};
use std::collections::BTreeMap;

/// Rows decoded at once; bounds the copies that Arrow makes on the way.
const BATCH_ROWS: usize = 1024;

/// The error of a file that is not what it must be.
pub(super) fn damaged(uri: &str, problem: &str) -> PipelineError {
    let problem =
        format!("{problem}. It is damaged or not of this evaluation: delete it and start the same command again");
    PipelineError::Output { uri: uri.to_owned(), problem }
}

/// Metadata and unit of a file that was put as part `unit` of `units` under `key`.
///
/// # Errors
/// When it is another file, or only a part of one.
pub(super) fn decode(
    bytes: Bytes,
    (key, unit, units): (&str, u32, u32),
    uri: &str,
) -> Result<(BTreeMap<String, String>, ScoredUnit), PipelineError> {
    let wrong = |problem: String| damaged(uri, &problem);
    let size = bytes.len();
    let builder = parquet_batches::open(bytes)
        .map_err(|error| wrong(format!("{size} bytes that are no whole Parquet file ({error})")))?;
    let said = builder.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    let said = said.filter(|pair| pair.key.starts_with("restok."));
    let metadata: BTreeMap<String, String> =
        said.filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?))).collect();
    let version: u32 = number(&metadata, KEY_SCHEMA_VERSION).map_err(wrong)?;
    if version > SCHEMA_VERSION {
        let problem =
            format!("schema version {version}, this program reads up to {SCHEMA_VERSION}: use a newer restok");
        return Err(PipelineError::Output { uri: uri.to_owned(), problem });
    }
    for (name, expected) in
        [(KEY_SCORING, key.to_owned()), (KEY_UNIT, unit.to_string()), (KEY_UNITS, units.to_string())]
    {
        let found = metadata.get(name);
        if found != Some(&expected) {
            return Err(wrong(format!("its {name} is {found:?}, expected {expected:?}")));
        }
    }
    let rejected = number(&metadata, KEY_REJECTED).map_err(wrong)?;
    let kept: Vec<Option<u16>> = metadata
        .get(KEY_VARIANTS)
        .and_then(|variants| serde_json::from_str(variants).ok())
        .ok_or_else(|| wrong(format!("its {KEY_VARIANTS} is {:?}, expected a list", metadata.get(KEY_VARIANTS))))?;
    let tokens_per_image = check_schema(builder.schema()).map_err(wrong)?;
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    if rows.checked_rem(kept.len()).unwrap_or(rows) != 0 {
        return Err(wrong(format!("{rows} rows for {} variants", kept.len())));
    }
    let images = rows.checked_div(kept.len()).unwrap_or(0);
    let mut reading = Reading {
        unit: ScoredUnit {
            rows: Vec::new(),
            variants: kept
                .into_iter()
                .map(|kept_tokens| ScoredImages { kept_tokens, ..ScoredImages::default() })
                .collect(),
            tokens: None,
            rejected,
        },
        images,
        place: 0,
        codes: Vec::new(),
    };
    let batches = ParquetBatches::build(|| builder.with_batch_size(BATCH_ROWS).build());
    let batches = batches.map_err(|source| PipelineError::Parquet { uri: uri.to_owned(), source })?;
    for batch in batches {
        let batch = batch.map_err(|error| wrong(format!("its pages do not read ({error})")))?;
        reading.add(&batch).map_err(wrong)?;
    }
    let unit = reading.finish(tokens_per_image).map_err(wrong)?;
    Ok((metadata, unit))
}

fn number<T: std::str::FromStr>(metadata: &BTreeMap<String, String>, key: &str) -> Result<T, String> {
    let found = metadata.get(key);
    found.and_then(|text| text.parse().ok()).ok_or_else(|| format!("its {key} is {found:?}, expected a number"))
}

/// Holds the columns to the schema; says how many tokens an image has, where there are any.
fn check_schema(found: &Schema) -> Result<Option<usize>, String> {
    let tokens = match found.field_with_name("tokens").map(|field| field.data_type()) {
        Ok(DataType::FixedSizeList(_, length)) => usize::try_from(*length).ok(),
        _ => None,
    };
    for field in scored_schema(tokens).fields() {
        let there = found.field_with_name(field.name()).ok().map(|found| found.data_type());
        // The names of lists' elements are nobody's business.
        let same = match (there, field.data_type()) {
            (Some(DataType::FixedSizeList(one, length)), DataType::FixedSizeList(other, expected)) => {
                length == expected && one.data_type() == other.data_type()
            }
            (there, expected) => there == Some(expected),
        };
        if !same {
            let there = there.map_or("no such column".to_owned(), ToString::to_string);
            return Err(format!("column {:?}: found {there}, expected {}", field.name(), field.data_type()));
        }
    }
    Ok(tokens)
}

/// A unit that is being read.
struct Reading {
    unit: ScoredUnit,
    images: usize,
    /// Rows so far.
    place: usize,
    codes: Vec<i16>,
}

impl Reading {
    fn add(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let column =
            |name: &str| batch.column_by_name(name).ok_or_else(|| format!("column {name:?}: found no such column"));
        let (ids, formats) = (column("image_id")?.as_string::<i32>(), column("format")?.as_string::<i32>());
        if ids.null_count() + formats.null_count() > 0 {
            return Err("nulls in a column that has none".to_owned());
        }
        let labels = column("label")?.as_primitive::<Int32Type>();
        let kept = column("kept_tokens")?.as_primitive::<Int16Type>();
        let (pool, spatial) = (column("pool")?, column("spatial")?);
        let tokens = batch.column_by_name("tokens");
        let float = |name: &str| Ok::<_, String>(column(name)?.as_primitive::<Float64Type>());
        let [psnr, ssim, ms_ssim, lpips] = [float("psnr")?, float("ssim")?, float("ms_ssim")?, float("lpips")?];
        for index in 0..batch.num_rows() {
            if self.place >= self.images * self.unit.variants.len() {
                return Err(format!("more rows than the {} that its footer says", self.place));
            }
            let (number, row) = (self.place / self.images, self.place % self.images);
            self.place += 1;
            let place = || format!("in row {row} of variant {number}");
            let found = ScoredRow {
                image_id: ids.value(index).to_owned(),
                label: labels.is_valid(index).then(|| labels.value(index)),
                format: formats.value(index).to_owned(),
            };
            if number == 0 {
                self.unit.rows.push(found);
            } else if self.unit.rows[row] != found {
                return Err(format!("another image {}: {found:?}, expected {:?}", place(), self.unit.rows[row]));
            }
            let variant = &mut self.unit.variants[number];
            let kept = kept.is_valid(index).then(|| kept.value(index));
            if kept.map(i32::from) != variant.kept_tokens.map(i32::from) {
                return Err(format!("{kept:?} kept tokens {}, expected {:?}", place(), variant.kept_tokens));
            }
            extend::<Float32Type>(&mut variant.pool, pool, index);
            extend::<Float32Type>(&mut variant.spatial, spatial, index);
            let value = |column: &arrow_array::Float64Array| column.is_valid(index).then(|| column.value(index));
            match (value(psnr), value(ssim)) {
                (Some(psnr), Some(ssim)) => {
                    let (ms_ssim, lpips) = (value(ms_ssim), value(lpips));
                    variant.measures.push(ImageMeasures { psnr, ssim, ms_ssim, lpips });
                }
                (None, None) => {}
                _ => return Err(format!("one of psnr and ssim without the other {}", place())),
            }
            if let Some(tokens) = tokens.filter(|_| number == 0) {
                extend::<Int16Type>(&mut self.codes, tokens, index);
            }
        }
        Ok(())
    }

    fn finish(self, tokens_per_image: Option<usize>) -> Result<ScoredUnit, String> {
        let Self { mut unit, images, place, codes } = self;
        if place != images * unit.variants.len() {
            return Err(format!("{place} rows, expected {images} of {} variants", unit.variants.len()));
        }
        unit.variants.iter().try_for_each(|variant| variant.check(images)).map_err(|error| error.to_string())?;
        if let Some(tokens_per_image) = tokens_per_image {
            let tokens = TokenBatch::try_new(codes, tokens_per_image).map_err(|error| error.to_string())?;
            if tokens.rows() != images {
                return Err(format!("codes of {} images, expected {images}", tokens.rows()));
            }
            unit.tokens = Some(tokens);
        }
        Ok(unit)
    }
}

/// Takes the list in row `index`, if there is one.
fn extend<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, column: &dyn Array, index: usize) {
    let lists = column.as_fixed_size_list();
    if lists.is_valid(index) {
        let start = lists.value_offset_at(index);
        let length = lists.value_length() as usize;
        values.extend_from_slice(&lists.values().as_primitive::<T>().values()[start..start + length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evaluation::scored_file::{FileIdentity, encode},
        testing::{fuzz, read_or_refused},
    };

    #[test]
    fn hostile_features_are_read_or_refused_by_name() {
        let row = |number: usize| ScoredRow { image_id: format!("{number:06}"), label: None, format: "PNG".to_owned() };
        let measured = ImageMeasures { psnr: 20.0, ssim: 0.5, ms_ssim: None, lpips: Some(0.25) };
        let variants = [None, Some(4)].map(|kept_tokens| ScoredImages {
            kept_tokens,
            pool: vec![0.5; 2 * ScoredImages::POOL],
            spatial: Vec::new(),
            measures: if kept_tokens.is_some() { vec![measured; 2] } else { Vec::new() },
        });
        let tokens = TokenBatch::try_new((0..8).collect(), 4).expect("codes");
        let scored = ScoredUnit {
            rows: (0..2).map(row).collect(),
            variants: variants.into(),
            tokens: Some(tokens),
            rejected: 1,
        };
        let identity = FileIdentity {
            key: "a-key".to_owned(),
            units: 3,
            device_kind: "cpu".to_owned(),
            libtorch: "2.13.0".to_owned(),
        };
        let sound = encode(&scored, 1, &identity, "a").expect("bytes");
        decode(sound.clone(), ("a-key", 1, 3), "a.parquet").expect("reads back");
        fuzz(file!(), 200, &[sound.to_vec()], |bytes| {
            read_or_refused("a.parquet", decode(Bytes::copy_from_slice(bytes), ("a-key", 1, 3), "a.parquet"))
        });
    }
}
