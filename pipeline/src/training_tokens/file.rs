//! One file of a tokens table in memory: the codes in one piece, a label an image, and nothing for each row besides.

use super::tables::{TokenFile, TokenFiles};
use crate::{PipelineError, tables::visit_tokens};
use bytes::Bytes;
use schemas::{TokenColumns, sha256_hex};

/// The rows of a file: those of an image follow one another, views from 0 up.
#[derive(Debug)]
pub(super) struct FileTokens {
    /// `[images, views, tokens_per_image]`.
    codes: Vec<i16>,
    /// An image each.
    labels: Vec<i32>,
    views: usize,
    tokens_per_image: usize,
}

impl FileTokens {
    /// The codes of one view of an image.
    pub(super) fn codes(&self, image: usize, view: usize) -> &[i16] {
        let start = (image * self.views + view) * self.tokens_per_image;
        &self.codes[start..start + self.tokens_per_image]
    }

    pub(super) fn label(&self, image: usize) -> i32 {
        self.labels[image]
    }

    pub(super) fn views(&self) -> usize {
        self.views
    }

    /// Makes the bytes of a file into its rows, and checks all that is said of them: size, digest, number of rows, their order,
    /// every code against the codebook and every label against `classes`.
    ///
    /// # Errors
    /// With the file, and where it is one image's fault, with its key.
    pub(super) fn decode(
        bytes: Bytes,
        files: &TokenFiles,
        file: &TokenFile,
        classes: usize,
    ) -> Result<Self, PipelineError> {
        let uri = files.uri(file);
        let wrong = |problem: String| PipelineError::Output { uri: uri.clone(), problem };
        let record = &file.record;
        let found = (bytes.len() as u64, sha256_hex(&bytes));
        if found != (record.bytes, record.sha256.clone()) {
            return Err(wrong(format!(
                "{} bytes with SHA-256 {}, but the manifest says {} bytes with {}; `restok verify` says what else differs",
                found.0, found.1, record.bytes, record.sha256
            )));
        }
        let tokens_per_image = files.tokenizer.levels.tokens_per_image();
        let mut reading = Reading {
            uri: &uri,
            codebook_size: files.tokenizer.codebook_size,
            classes,
            rows: 0,
            image_id: String::new(),
            tokens: Self {
                codes: Vec::with_capacity(usize::try_from(record.rows).unwrap_or(0) * tokens_per_image),
                labels: Vec::with_capacity(usize::try_from(file.images).unwrap_or(0)),
                views: file.views,
                tokens_per_image,
            },
        };
        visit_tokens(bytes, tokens_per_image, &uri, |columns| reading.add(columns))?;
        if reading.rows as u64 != record.rows {
            return Err(wrong(format!("{} rows, but the manifest says {}", reading.rows, record.rows)));
        }
        Ok(reading.tokens)
    }
}

/// A file that is being read.
struct Reading<'a> {
    uri: &'a str,
    codebook_size: usize,
    classes: usize,
    rows: usize,
    /// Key of the image whose rows are being read.
    image_id: String,
    tokens: FileTokens,
}

impl Reading<'_> {
    fn add(&mut self, columns: &TokenColumns) -> Result<(), PipelineError> {
        let codes = columns.codes();
        // A code below 0 is a large one without its sign, so that one comparison finds both, many codes at a time.
        if codes.iter().any(|&code| code as u16 as usize >= self.codebook_size) {
            return Err(self.code_error(columns));
        }
        for (row, &view) in columns.views().iter().enumerate() {
            self.add_row(columns, row, view)?;
        }
        self.tokens.codes.extend_from_slice(codes);
        Ok(())
    }

    fn add_row(&mut self, columns: &TokenColumns, row: usize, view: i8) -> Result<(), PipelineError> {
        let (image_id, label) = (columns.image_id(row), columns.label(row));
        let expected = self.rows % self.tokens.views;
        self.rows += 1;
        let belongs = if expected == 0 { image_id != self.image_id } else { image_id == self.image_id };
        if usize::try_from(view) != Ok(expected) || !belongs {
            let views = self.tokens.views;
            return Err(self.error(format!(
                "row {} is view {view} of image {image_id:?}, expected view {expected} of {}: the {views} views of an image \
                 must follow one another",
                self.rows - 1,
                if expected == 0 { "another image" } else { "the image before" },
            )));
        }
        let Some(label) = label else {
            return Err(self.error(format!(
                "image {image_id:?} has no label, and a generator learns classes: tokenize a source with labels (folders of \
                 classes, `.cls` members, a label column)"
            )));
        };
        if expected > 0 {
            return match self.tokens.labels.last() {
                Some(&first) if first == label => Ok(()),
                first => {
                    Err(self.error(format!("image {image_id:?} has labels {first:?} and {label} in two of its views")))
                }
            };
        }
        if usize::try_from(label).is_ok_and(|label| label < self.classes) {
            self.tokens.labels.push(label);
            image_id.clone_into(&mut self.image_id);
            return Ok(());
        }
        Err(self.error(format!("image {image_id:?} has label {label}, expected 0 to {} (classes)", self.classes - 1)))
    }

    fn code_error(&self, columns: &TokenColumns) -> PipelineError {
        let outside = |&code: &i16| code as u16 as usize >= self.codebook_size;
        let place = columns.codes().iter().position(outside).unwrap_or(0);
        let (image_id, code) = (columns.image_id(place / self.tokens.tokens_per_image), columns.codes()[place]);
        self.error(format!("image {image_id:?} has code {code}, outside the codebook of {}", self.codebook_size))
    }

    fn error(&self, problem: String) -> PipelineError {
        PipelineError::Output { uri: self.uri.to_owned(), problem }
    }
}
