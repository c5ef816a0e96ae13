//! A small set of images that the tests draw themselves, in each of the three layouts.

use crate::random::Random;
use arrow_array::{Array, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use std::{fs, path::Path, sync::Arc};

/// Classes, named as ImageNet names them and already in sorted order: a label is an index into this list.
pub const CLASSES: [&str; 4] = ["n01440764", "n01443537", "n01484850", "n02105855"];

/// One image of the set.
#[derive(Clone, Debug)]
pub struct SampleImage {
    /// Index into [`CLASSES`].
    pub label: usize,
    /// Its key in every layout.
    pub stem: String,
    /// The encoded image, or what is left of it.
    pub bytes: Vec<u8>,
    /// The reason that the images table must give; `None` for a good image.
    pub rejected: Option<&'static str>,
}

/// A set of images in the order of a sorted folder: by class, then by file name.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The images.
    pub images: Vec<SampleImage>,
}

impl Sample {
    /// Draws `images` images; `seed` decides every pixel. Every 16th from the sixth on is broken: a JPEG cut in the middle, or an
    /// error page that was saved under an image's name.
    pub fn draw(images: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let draw = |number: usize| {
            let label = number * CLASSES.len() / images;
            let stem = format!("{}_{:05}", CLASSES[label], 10_000 + number);
            let (bytes, rejected) = match number % 32 {
                5 => {
                    let mut bytes = jpeg(&mut random);
                    bytes.truncate(bytes.len() / 2);
                    (bytes, Some("truncated"))
                }
                21 => (b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n".to_vec(), Some("unsupported")),
                // Real sets hold files whose extension lies, and grey images.
                9 => (png(&mut random, ExtendedColorType::Rgb8), None),
                13 => (png(&mut random, ExtendedColorType::L8), None),
                _ => (jpeg(&mut random), None),
            };
            SampleImage { label, stem, bytes, rejected }
        };
        Self { images: (0..images).map(draw).collect() }
    }

    /// Images that must be rejected.
    pub fn broken(&self) -> usize {
        self.images.iter().filter(|image| image.rejected.is_some()).count()
    }

    /// Images that must be encoded.
    pub fn good(&self) -> usize {
        self.images.len() - self.broken()
    }

    /// Writes `<folder>/<class>/<stem>.JPEG`.
    pub fn write_folder(&self, folder: &Path) {
        for image in &self.images {
            let class = folder.join(CLASSES[image.label]);
            fs::create_dir_all(&class).expect("a folder for the class");
            fs::write(class.join(format!("{}.JPEG", image.stem)), &image.bytes).expect("an image file");
        }
    }

    /// Writes `<folder>/sample-NNNN.tar`, each with its share of the images and their `.cls`.
    pub fn write_webdataset(&self, folder: &Path, shards: usize) {
        fs::create_dir_all(folder).expect("a folder for the shards");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime for the tar writer");
        for (shard, images) in self.shares(shards).enumerate() {
            let tar = runtime.block_on(tar(images)).expect("a tar in memory");
            fs::write(folder.join(format!("sample-{shard:04}.tar")), tar).expect("a shard");
        }
    }

    /// Writes `<folder>/sample-NNNNN-of-NNNNN.parquet` as the hub lays out ImageNet, several row groups each.
    pub fn write_parquet(&self, folder: &Path, files: usize) {
        fs::create_dir_all(folder).expect("a folder for the files");
        for (file, images) in self.shares(files).enumerate() {
            let path = folder.join(format!("sample-{file:05}-of-{files:05}.parquet"));
            fs::write(path, parquet(images)).expect("a Parquet file");
        }
    }

    fn shares(&self, parts: usize) -> impl Iterator<Item = &[SampleImage]> {
        self.images.chunks(self.images.len().div_ceil(parts))
    }
}

async fn tar(images: &[SampleImage]) -> std::io::Result<Vec<u8>> {
    let mut builder = tokio_tar::Builder::new(Vec::new());
    for image in images {
        let label = image.label.to_string();
        for (extension, bytes) in [("jpg", image.bytes.as_slice()), ("cls", label.as_bytes())] {
            let mut header = tokio_tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{}.{extension}", image.stem), bytes).await?;
        }
    }
    builder.into_inner().await
}

fn parquet(images: &[SampleImage]) -> Vec<u8> {
    let bytes: Arc<dyn Array> = Arc::new(BinaryArray::from_iter_values(images.iter().map(|image| &image.bytes)));
    let paths = images.iter().map(|image| format!("{}_{}.JPEG", image.stem, CLASSES[image.label]));
    let paths: Arc<dyn Array> = Arc::new(StringArray::from_iter_values(paths));
    let field =
        |name: &str, array: &Arc<dyn Array>| Arc::new(arrow_schema::Field::new(name, array.data_type().clone(), true));
    let columns = StructArray::from(vec![(field("bytes", &bytes), bytes), (field("path", &paths), paths)]);
    let labels: Arc<dyn Array> = Arc::new(Int64Array::from_iter_values(images.iter().map(|image| image.label as i64)));
    let batch = RecordBatch::try_from_iter([("image", Arc::new(columns) as Arc<dyn Array>), ("label", labels)])
        .expect("columns of one length");
    let properties =
        WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(7)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("rows in memory");
    writer.into_inner().expect("a file in memory")
}

/// RGB pixels of a picture of its own: two colours that run into each other, and a few rectangles.
fn picture(random: &mut Random) -> (usize, usize, Vec<u8>) {
    let (width, height) = (24 + random.below(80) as usize, 24 + random.below(80) as usize);
    let mut colour = || [0; 3].map(|_| random.below(256) as usize);
    let (from, to) = (colour(), colour());
    let mut pixels = vec![0; width * height * 3];
    for (position, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (row, column) = (position / width, position % width);
        let share = (row + column) * 256 / (width + height);
        for channel in 0..3 {
            pixel[channel] = ((from[channel] * (256 - share) + to[channel] * share) / 257) as u8;
        }
    }
    for _ in 0..6 {
        let (left, top) = (random.below(width as u64) as usize, random.below(height as u64) as usize);
        let (right, bottom) = ((left + 12).min(width), (top + 12).min(height));
        let colour = [0; 3].map(|_| random.below(256) as u8);
        for row in top..bottom {
            for column in left..right {
                pixels[(row * width + column) * 3..][..3].copy_from_slice(&colour);
            }
        }
    }
    (width, height, pixels)
}

fn jpeg(random: &mut Random) -> Vec<u8> {
    let (width, height, pixels) = picture(random);
    let image = turbojpeg::Image {
        pixels: pixels.as_slice(),
        width,
        pitch: width * 3,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2).expect("pixels of that shape").to_vec()
}

fn png(random: &mut Random, color: ExtendedColorType) -> Vec<u8> {
    let (width, height, mut pixels) = picture(random);
    if color == ExtendedColorType::L8 {
        pixels = pixels.chunks_exact(3).map(|pixel| pixel[0]).collect();
    }
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&pixels, width as u32, height as u32, color).expect("pixels of that shape");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_distinct_images_in_sorted_order() {
        let sample = Sample::draw(48, 1);
        let again = Sample::draw(48, 1);
        let bytes = |sample: &Sample| sample.images.iter().map(|image| image.bytes.clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&sample), bytes(&again));
        assert!(sample.images.windows(2).all(|pair| pair[0].stem < pair[1].stem && pair[0].bytes != pair[1].bytes));
        assert_eq!((sample.broken(), sample.good()), (3, 45));
    }
}
