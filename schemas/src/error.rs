//! What can be wrong with data that crosses a wall.

/// An error in the data itself: a shape, a range, a name or a document that does not fit its schema.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Something has another size or shape than it must have.
    #[error("{what}: found {found}, expected {expected}")]
    Shape {
        /// The thing that was measured.
        what: &'static str,
        /// What it was.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// A code that the codebook does not have.
    #[error("row {row}: code {code} is outside the codebook of {codebook_size} codes")]
    CodeOutOfRange {
        /// Row in its batch.
        row: usize,
        /// The code.
        code: i64,
        /// Codes in the codebook.
        codebook_size: usize,
    },
    /// A name that is none of those known.
    #[error("{what} {found:?} is not known; expected {expected}")]
    UnknownName {
        /// The kind of name.
        what: &'static str,
        /// The name.
        found: String,
        /// The names there are.
        expected: String,
    },
    /// A column is missing or has another type.
    #[error("column {column:?}: found {found}, expected {expected}")]
    Column {
        /// The column.
        column: String,
        /// Its type, or that it is missing.
        found: String,
        /// The type the schema gives it.
        expected: String,
    },
    /// A document (plan, marker, manifest, metadata) that does not read.
    #[error("{document}: {problem}")]
    Document {
        /// Which document.
        document: String,
        /// What is wrong with it.
        problem: String,
    },
}
