//! The seam: a tokenizer as the pipeline's encoder.

use crate::{exit_code, tokenizer_folder::TokenizerFolder};
use models::{Device, ModelError, Precision, VisualTokenizer};
use pipeline::{BatchEncoder, EncodeError, EncoderFactory};
use schemas::{PixelBatch, TokenBatch};

/// A tokenizer on one device, owned by that device's thread.
#[derive(Debug)]
struct TokenizerEncoder {
    tokenizer: VisualTokenizer,
}

impl BatchEncoder for TokenizerEncoder {
    fn encode(&mut self, batch: &PixelBatch) -> Result<TokenBatch, EncodeError> {
        self.tokenizer.encode(batch).map_err(encode_error)
    }

    fn device_kind(&self) -> String {
        self.tokenizer.device().kind()
    }
}

/// Moves a tokenizer that is loaded already onto its thread.
pub(crate) fn loaded(tokenizer: VisualTokenizer) -> EncoderFactory {
    Box::new(move || Ok(Box::new(TokenizerEncoder { tokenizer })))
}

/// Loads a tokenizer on the thread that will own it.
pub(crate) fn loading(folder: TokenizerFolder, device: Device, precision: Precision) -> EncoderFactory {
    Box::new(move || {
        let tokenizer = folder.load(device, precision).map_err(encode_error)?;
        Ok(Box::new(TokenizerEncoder { tokenizer }))
    })
}

fn encode_error(error: ModelError) -> EncodeError {
    let advice = if error.is_out_of_memory() { ". Use a smaller --batch-size" } else { "" };
    EncodeError {
        message: format!("{error}{advice}"),
        temporary: exit_code::is_temporary(&error),
        source: Some(error.into()),
    }
}
