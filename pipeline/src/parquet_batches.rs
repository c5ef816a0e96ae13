//! Batches of a Parquet file that may be damaged.
//!
//! The library holds some damage for impossible and panics on it, where it opens a file and where it decodes one. Let through, the panic
//! would end the run without the file's name.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use parquet::{arrow::arrow_reader::ParquetRecordBatchReader, errors::ParquetError};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What `read` gives, its panic an error.
pub(crate) fn without_panic<T, E: From<ParquetError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let problem = "the reader panicked on these bytes: the file is damaged";
        Err(ParquetError::General(problem.to_owned()).into())
    })
}

/// A reader of batches whose panic is an error, the last thing it gives.
pub(crate) struct ParquetBatches<R = ParquetRecordBatchReader>(Option<R>);

impl<R> ParquetBatches<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self(Some(reader))
    }
}

impl<R> fmt::Debug for ParquetBatches<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ParquetBatches").finish_non_exhaustive()
    }
}

impl<R: Iterator<Item = Result<RecordBatch, ArrowError>>> Iterator for ParquetBatches<R> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.0.as_mut()?;
        let mut panicked = true;
        let batch = without_panic(|| {
            let batch = reader.next().transpose();
            panicked = false;
            batch
        });
        if panicked {
            self.0 = None;
        }
        batch.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::Schema;
    use std::{iter, sync::Arc};

    #[test]
    fn a_panic_is_the_last_error() {
        let mut calls = 0;
        let reader = iter::from_fn(move || {
            calls += 1;
            assert!(calls < 2, "as a decoder does");
            Some(Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))))
        });
        let mut batches = ParquetBatches::new(reader);
        assert!(batches.next().is_some_and(|batch| batch.is_ok()));
        let error = batches.next().expect("one more").expect_err("a panic").to_string();
        assert!(error.contains("damaged"), "{error}");
        assert!(batches.next().is_none());
    }
}
