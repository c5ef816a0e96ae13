//! NumPy's files: the header of an array, archives of arrays to read, and the evaluation archive to write.

mod header;
mod reader;
mod writer;

pub(crate) use header::{HeaderFault, NpyHeader};
pub(crate) use reader::{Checked, Member, NpzArchive};
pub use writer::{NpzEncoder, NpzShape, npz_size};

/// Name of the archive's first array: what `numpy.savez(path, array)` calls it, and what the evaluator asks for.
pub(crate) const PIXELS: &str = "arr_0.npy";
