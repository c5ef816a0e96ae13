//! Our side of `make bench`: measures one thing and prints one JSON object. `tools/bench/bench.py` makes the inputs, runs the other
//! side on the same ones, and compares.
//!
//! ```text
//! measure encode FOLDER PIXELS PRECISION BATCH REPEATS THREADS TOKENS
//! measure preprocess IMAGES REPEATS PIXELS
//! measure table SOURCE OUTPUT CROP
//! ```

use models::{DeviceChoice, LoadOptions, Precision, VisualTokenizer, initialise};
use pipeline::{
    BatchEncoder, DecodeLimits, EncodeError, Limits, Shard, SourceOptions, SourceReader, Storage, Telemetry,
    TokenizeRun, crop_views, decode_image, list_source, plan_units, tokenize,
};
use schemas::{Crop, ImageIdRule, PixelBatch, PlanSettings, SourceLayout, TokenBatch, TokenLevels, TokenizerIdentity};
use serde_json::{Value, json};
use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tests::random::Random;

type Measured = Result<Value, Box<dyn Error>>;

const CODEBOOK_SIZE: usize = 8192;
const TOKENS_PER_IMAGE: usize = 128;
/// Side of the views of `encode` and `preprocess`, in pixels.
const SIDE: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench` when it runs a benchmark itself.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = match arguments[..] {
        ["encode", folder, pixels, precision, batch, repeats, threads, tokens] => {
            let sizes = Sizes { batch: batch.parse()?, repeats: repeats.parse()?, threads: threads.parse()? };
            encode(folder.as_ref(), pixels.as_ref(), precision.parse()?, sizes, tokens.as_ref())?
        }
        ["preprocess", images, repeats, pixels] => preprocess(images.as_ref(), repeats.parse()?, pixels.as_ref())?,
        ["table", source, output, crop] => table(source, output, crop.parse()?)?,
        _ => json!({ "nothing": "make bench runs this with arguments; see tools/bench" }),
    };
    writeln!(std::io::stdout(), "{measured}")?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    repeats: usize,
    threads: usize,
}

/// Time of encoding the views in `pixels` (u8, `[views, SIDE, SIDE, 3]`), and their tokens as int16.
fn encode(folder: &Path, pixels: &Path, precision: Precision, sizes: Sizes, tokens: &Path) -> Measured {
    let device = initialise(&[DeviceChoice::Cpu], Some(sizes.threads))?[0];
    let tokenizer = VisualTokenizer::load(folder, LoadOptions { device, precision, name: None })?;
    let pixels = fs::read(pixels)?;
    let batches = pixels
        .chunks(sizes.batch * SIDE * SIDE * 3)
        .map(|chunk| {
            let views = chunk.len() / (SIDE * SIDE * 3);
            PixelBatch::try_new(chunk.to_vec(), views, views, SIDE, SIDE)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // The first batch pays for what is set up once, and is not counted.
    tokenizer.encode(&batches[0])?;
    let mut seconds = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..sizes.repeats {
        bytes.clear();
        let started = Instant::now();
        for batch in &batches {
            let codes = tokenizer.encode(batch)?;
            bytes.extend(codes.codes().iter().flat_map(|code| code.to_le_bytes()));
        }
        seconds.push(started.elapsed().as_secs_f64());
    }
    fs::write(tokens, bytes)?;
    Ok(json!({ "seconds": seconds, "native": precision.is_native(device), "device": device.kind() }))
}

/// Time of decoding and cropping every image of a folder on this one thread, and their views.
fn preprocess(images: &Path, repeats: usize, pixels: &Path) -> Measured {
    let mut files =
        fs::read_dir(images)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>, std::io::Error>>()?;
    files.sort();
    let encoded = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    let limits = Limits::default();
    let limits = DecodeLimits { max_bytes: limits.max_image_bytes, max_pixels: limits.max_image_pixels };
    let crop = Crop::AdmCenter { size: SIDE };
    let mut seconds = Vec::new();
    let mut views = Vec::new();
    for _ in 0..=repeats {
        views.clear();
        let started = Instant::now();
        for bytes in &encoded {
            let image = decode_image(bytes, &limits).map_err(|failure| failure.message)?;
            crop_views(&image, crop, &mut views);
        }
        seconds.push(started.elapsed().as_secs_f64());
    }
    fs::write(pixels, views)?;
    // The first round warmed the caches.
    Ok(json!({ "seconds": seconds[1..], "images": files.len() }))
}

/// A tokenizer of the worst case: every code equally likely, so that no encoding of the table can save anything.
struct RandomCodes(Random);

impl BatchEncoder for RandomCodes {
    fn encode(&mut self, batch: &PixelBatch) -> Result<TokenBatch, EncodeError> {
        let codes: Vec<i64> =
            (0..batch.filled() * TOKENS_PER_IMAGE).map(|_| self.0.below(CODEBOOK_SIZE as u64) as i64).collect();
        TokenBatch::try_from_codes(&codes, TOKENS_PER_IMAGE, CODEBOOK_SIZE).map_err(|error| EncodeError {
            message: error.to_string(),
            temporary: false,
            source: None,
        })
    }

    fn device_kind(&self) -> String {
        "random codes".to_owned()
    }
}

/// A table as `restok tokenize` writes it, of random codes; its size is for the caller to measure.
fn table(source: &str, output: &str, crop: Crop) -> Measured {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let limits = Limits::default();
    let report = runtime.block_on(async {
        let listing = list_source(&SourceOptions::new(source), &limits).await?;
        let settings = PlanSettings {
            source: String::new(),
            layout: SourceLayout::Parquet,
            split: "train".to_owned(),
            image_id: ImageIdRule::Stem,
            tokenizer: TokenizerIdentity {
                name: "random".to_owned(),
                sha256: "0".repeat(64),
                codebook_size: CODEBOOK_SIZE,
                levels: TokenLevels::published(TOKENS_PER_IMAGE)?,
            },
            crop,
            precision: "fp32".to_owned(),
            batch_size: 32,
            unit_size: 16_384,
            max_image_bytes: limits.max_image_bytes,
            max_image_pixels: limits.max_image_pixels,
        };
        let plan = Arc::new(plan_units(settings, listing)?);
        let encoder = || -> Result<Box<dyn BatchEncoder>, EncodeError> { Ok(Box::new(RandomCodes(Random::new(0)))) };
        let run = TokenizeRun {
            source: SourceReader::open(Arc::clone(&plan), &limits)?,
            plan,
            output: Storage::open_output(output, &limits)?,
            encoders: vec![("cpu".to_owned(), Box::new(encoder))],
            libtorch: models::libtorch_version(),
            limits: limits.clone(),
            shard: Shard::ALONE,
            max_reject_rate: 0.0,
            start_jitter: Duration::ZERO,
            finalize: true,
            cancel: tokio_util::sync::CancellationToken::new(),
            telemetry: Arc::new(Telemetry::new()),
        };
        Ok::<_, Box<dyn Error>>(tokenize(run).await?)
    })?;
    Ok(json!({ "images": report.books_here.written, "rows": report.books_here.token_rows }))
}
