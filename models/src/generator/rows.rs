//! Rows of tokens with their classes, checked and brought to a device.

use super::{GeneratorConfig, wrong_rows};
use crate::{Device, ModelError, device};
use schemas::{SchemaError, TokenBatch, check_codebook_size};
use tch::{Kind, Tensor};

/// Images as a generator learns them.
#[derive(Debug)]
pub(crate) struct DeviceRows {
    /// int64 `[B]`.
    pub(crate) classes: Tensor,
    /// int64 `[B, N]`.
    pub(crate) tokens: Tensor,
}

impl DeviceRows {
    /// `tokens` with a class a row, the null class among them.
    ///
    /// # Errors
    /// When there is no row, the rows are not of the generator's length, a code or a class is not one of its, or there are not as
    /// many classes as rows.
    pub(crate) fn upload(
        config: &GeneratorConfig,
        tokens: &TokenBatch,
        classes: &[i32],
        device: Device,
    ) -> Result<Self, ModelError> {
        let (length, codes) = (config.tokens_per_image(), config.codebook_size());
        if tokens.tokens_per_image() != length {
            return Err(wrong_rows("tokens an image", tokens.tokens_per_image(), length));
        }
        if tokens.rows() == 0 || classes.len() != tokens.rows() {
            return Err(wrong_rows("classes", classes.len(), tokens.rows().max(1)));
        }
        check_classes(classes, config.class_rows() as usize)?;
        check_codebook_size(codes)?;
        if let Some(place) = tokens.codes().iter().position(|&code| !(0..codes).contains(&(code as usize))) {
            let (row, code) = (place / length, i64::from(tokens.codes()[place]));
            return Err(SchemaError::CodeOutOfRange { row, code, codebook_size: codes }.into());
        }
        // 16 bits on the way, widened there.
        let (rows, device) = (tokens.rows() as i64, device.torch());
        Ok(Self {
            classes: device::upload(classes, &[rows], device)?.f_to_kind(Kind::Int64)?,
            tokens: device::upload(tokens.codes(), &[rows, length as i64], device)?.f_to_kind(Kind::Int64)?,
        })
    }
}

/// Holds every class to `0..known`.
pub(crate) fn check_classes(classes: &[i32], known: usize) -> Result<(), ModelError> {
    match classes.iter().find(|&&class| usize::try_from(class).map_or(true, |class| class >= known)) {
        None => Ok(()),
        Some(class) => Err(ModelError::Data(SchemaError::Shape {
            what: "class",
            found: class.to_string(),
            expected: format!("0 to {}, the classes of this generator", known - 1),
        })),
    }
}
