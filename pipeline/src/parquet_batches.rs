//! Parquet files that may be damaged.
//!
//! The library holds some damage for impossible: it panics, where it opens a file and where it decodes one, and it passes over as many values
//! as a list of a field that it does not know says it has, at the end of the file too, where they take no bytes and billions of them take
//! hours. Let through, a panic would end the run without the file's name. What is left: lists of truth values, which take no bytes anywhere.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use bytes::{Buf, Bytes};
use parquet::{
    arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    errors::{ParquetError, Result as ParquetResult},
    file::{
        metadata::ParquetMetaData,
        reader::{ChunkReader, Length},
    },
};
use std::{
    fmt,
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What `read` gives, its panic an error.
pub(crate) fn without_panic<T, E: From<ParquetError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let problem = "the reader panicked on these bytes: the file is damaged";
        Err(ParquetError::General(problem.to_owned()).into())
    })
}

/// Why nothing is read at the end of a file: its footer stands behind all pages, so that no sound page is read up to there.
pub(crate) fn past_the_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a page goes on past the end of the file")
}

/// Checks that a footer's number of rows is the sum of its row groups', which the library does not compare.
///
/// # Errors
/// When it is not.
pub(crate) fn check_rows(metadata: &ParquetMetaData) -> ParquetResult<()> {
    let rows = metadata.file_metadata().num_rows();
    let mut groups = metadata.row_groups().iter().map(|group| group.num_rows());
    let sum = groups.try_fold(0_i64, |sum, rows| sum.checked_add(rows).filter(|_| rows >= 0));
    if sum != Some(rows) {
        let sum = sum.map_or("no number".to_owned(), |sum| sum.to_string());
        return Err(ParquetError::General(format!("its footer says {rows} rows, its row groups sum up to {sum}")));
    }
    Ok(())
}

/// Opens the whole file `bytes`.
///
/// # Errors
/// When it is no Parquet file, or a damaged one.
pub(crate) fn open(bytes: Bytes) -> ParquetResult<ParquetRecordBatchReaderBuilder<WholeFile>> {
    let builder = without_panic(|| ParquetRecordBatchReaderBuilder::try_new(WholeFile(bytes)))?;
    check_rows(builder.metadata())?;
    Ok(builder)
}

/// A file in memory.
#[derive(Debug)]
pub(crate) struct WholeFile(Bytes);

impl Length for WholeFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl ChunkReader for WholeFile {
    type T = BytesOfFile;

    fn get_read(&self, start: u64) -> ParquetResult<BytesOfFile> {
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(self.0.len());
        Ok(BytesOfFile(self.0.slice(start..)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        ChunkReader::get_bytes(&self.0, start, length)
    }
}

/// The bytes from one position on.
#[derive(Debug)]
pub(crate) struct BytesOfFile(Bytes);

impl Read for BytesOfFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(past_the_end());
        }
        let count = self.0.len().min(buffer.len());
        self.0.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Batches of rows. A panic is an error, and an error is the last thing that comes.
pub(crate) struct ParquetBatches<R = ParquetRecordBatchReader>(Option<R>);

impl ParquetBatches {
    /// Those of the reader that `build` builds.
    ///
    /// # Errors
    /// Those of `build`.
    pub(crate) fn build(build: impl FnOnce() -> ParquetResult<ParquetRecordBatchReader>) -> ParquetResult<Self> {
        Ok(Self(Some(without_panic(build)?)))
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
        let batch = without_panic(|| reader.next().transpose());
        if batch.is_err() {
            self.0 = None;
        }
        batch.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Float64Array;
    use arrow_schema::{DataType, Field, Schema};
    use parquet::{
        arrow::ArrowWriter,
        file::metadata::{FileMetaData, RowGroupMetaData},
    };
    use std::{iter, sync::Arc};

    /// Two rows of one column.
    fn parquet_file() -> Vec<u8> {
        let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Float64, false)]));
        let column = Arc::new(Float64Array::from(vec![1.0, 2.0]));
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), None).expect("a writer");
        writer.write(&RecordBatch::try_new(schema, vec![column]).expect("a batch")).expect("written");
        writer.into_inner().expect("a file")
    }

    #[test]
    fn a_page_header_that_goes_on_for_ever_ends_with_the_file() {
        let mut bytes = parquet_file();
        // In the place of the first page's header: a field 15, which the format does not have, a list of 2,147,483,647 doubles.
        bytes[4..11].copy_from_slice(&[0xF9, 0xF7, 0xFF, 0xFF, 0xFF, 0xFF, 0x07]);
        let builder = open(bytes.into()).expect("its footer is whole");
        let read = ParquetBatches::build(|| builder.build()).map(|mut batches| batches.next());
        let told = match read {
            Ok(batch) => batch.expect("an answer").expect_err("there is no such page").to_string(),
            Err(error) => error.to_string(),
        };
        assert!(told.contains("past the end of the file"), "{told}");
    }

    #[test]
    fn a_footer_whose_rows_do_not_add_up_is_refused() {
        let builder = open(parquet_file().into()).expect("sound");
        let (file, groups) = (builder.metadata().file_metadata(), builder.metadata().row_groups());
        let saying = |rows: i64, groups: Vec<RowGroupMetaData>| {
            let file = FileMetaData::new(file.version(), rows, None, None, file.schema_descr_ptr(), None);
            check_rows(&ParquetMetaData::new(file, groups)).map_err(|error| error.to_string())
        };
        saying(2, groups.to_vec()).expect("as it is");
        saying(4, [groups, groups].concat()).expect("two groups");
        for (rows, groups) in
            [(-3, groups.to_vec()), (3, groups.to_vec()), (i64::MAX, groups.to_vec()), (2, Vec::new())]
        {
            let told = saying(rows, groups).expect_err("other rows");
            assert!(told.contains(&format!("says {rows} rows")), "{told}");
        }
    }

    #[test]
    fn a_panic_is_the_last_error() {
        let mut calls = 0;
        let reader = iter::from_fn(move || {
            calls += 1;
            assert!(calls < 2, "as a decoder does");
            Some(Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))))
        });
        let mut batches = ParquetBatches(Some(reader));
        assert!(batches.next().is_some_and(|batch| batch.is_ok()));
        let error = batches.next().expect("one more").expect_err("a panic").to_string();
        assert!(error.contains("damaged"), "{error}");
        assert!(batches.next().is_none());
    }
}
