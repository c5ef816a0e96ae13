//! One file in the safetensors format, whose header is checked against its size before anything is believed.

use super::{
    commands::{pickle_conversion_command, renamed_pickle_conversion_command},
    foreign::{Foreign, LOOKED_AT},
};
use crate::ModelError;
use safetensors::tensor::{Metadata, TensorInfo};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Largest header that the format allows, in bytes.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;

/// Ending of the format's files.
const ENDING: &str = "safetensors";

/// An open file.
pub(super) struct SafetensorsFile {
    pub(super) path: PathBuf,
    file: File,
    data_starts: u64,
    pub(super) tensors: Vec<(String, TensorInfo)>,
}

impl SafetensorsFile {
    /// Opens `path` and checks its header.
    ///
    /// # Errors
    /// When it cannot be read, is something else, or is damaged or cut short.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::File { file: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let damaged = |problem: &str, found: String, expected: String| ModelError::DamagedWeights {
            file: path.to_owned(),
            problem: problem.to_owned(),
            found,
            expected,
        };
        let file_bytes = file.metadata().map_err(io)?.len();
        let mut start = vec![0; LOOKED_AT.min(usize::try_from(file_bytes).unwrap_or(LOOKED_AT))];
        file.read_exact_at(&mut start, 0).map_err(io)?;
        let header_bytes = start.first_chunk().map(|bytes: &[u8; 8]| u64::from_le_bytes(*bytes));
        let is_believable = header_bytes.is_some_and(|bytes| bytes <= LARGEST_HEADER_BYTES);
        let begins = start.get(8).is_none_or(|&byte| byte == b'{');
        if !(is_believable && begins)
            && let Some(error) = foreign(path, &start)
        {
            return Err(error);
        }
        let Some(header_bytes) = header_bytes else {
            return Err(damaged("the file is cut short", format!("{file_bytes} bytes"), "at least 8 bytes".to_owned()));
        };
        if header_bytes > LARGEST_HEADER_BYTES {
            return Err(damaged(
                "this is no safetensors file",
                format!("a header of {header_bytes} bytes"),
                format!("at most {LARGEST_HEADER_BYTES}"),
            ));
        }
        let data_starts = 8 + header_bytes;
        if data_starts > file_bytes {
            return Err(damaged(
                "the file is cut short within its header",
                format!("{file_bytes} bytes"),
                format!("more than {data_starts} bytes"),
            ));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact_at(&mut header, 8).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
            damaged(
                "the header does not read",
                error.to_string(),
                "names, types, shapes and offsets as JSON".to_owned(),
            )
        })?;
        let expected_bytes = data_starts + metadata.data_len() as u64;
        if expected_bytes != file_bytes {
            let problem = match expected_bytes > file_bytes {
                true => "the file has the wrong size, it is cut short",
                false => "the file has the wrong size, something follows its end",
            };
            return Err(damaged(
                problem,
                format!("{file_bytes} bytes"),
                format!("{expected_bytes} bytes by its header"),
            ));
        }
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path: path.to_owned(), file, data_starts, tensors })
    }

    /// The bytes of a tensor of this file.
    pub(super) fn read(&self, info: &TensorInfo) -> Result<Vec<u8>, ModelError> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        self.file
            .read_exact_at(&mut bytes, self.data_starts + start as u64)
            .map_err(|source| ModelError::File { file: self.path.clone(), source })?;
        Ok(bytes)
    }
}

/// The error of a file that is something else by its first bytes, where they tell what.
fn foreign(path: &Path, start: &[u8]) -> Option<ModelError> {
    Some(match Foreign::of(start)? {
        Foreign::Pickle => {
            let has_ending = path.extension().is_some_and(|ending| ending == ENDING);
            let command = match has_ending {
                true => renamed_pickle_conversion_command(path),
                false => pickle_conversion_command(&[path], &path.with_extension(ENDING)),
            };
            ModelError::PickledWeights { file: path.to_owned(), command }
        }
        Foreign::Other { what, advice } => {
            ModelError::ForeignFile { file: path.to_owned(), what, expected: "a safetensors file", advice }
        }
    })
}
