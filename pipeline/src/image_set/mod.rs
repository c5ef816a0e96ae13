//! Sets of images to score: listed or archived, frozen once and divided into units, prepared at one size.

mod image;
mod npz_images;
mod set;

pub(crate) use image::{PreparedRow, RejectedImage, SetImage};
pub use set::{ImageSet, ImageSetOptions};
