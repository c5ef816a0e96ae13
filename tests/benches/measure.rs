//! Our side of `make bench`: measures one thing and prints one JSON object. `tools/bench/bench.py` makes the inputs, runs the other
//! side on the same ones, and compares.
//!
//! ```text
//! measure encode FOLDER PIXELS PRECISION BATCH REPEATS THREADS TOKENS
//! measure preprocess IMAGES REPEATS PIXELS
//! measure table SOURCE OUTPUT CROP
//! measure sample GENERATOR TOKENIZER KIND PRECISION BATCH REPEATS THREADS
//! measure train-generator GENERATOR PRECISION BATCH REPEATS THREADS
//! measure train-group CONFIG BATCH STEPS REPEATS [RANK PROCESSES PORT]
//! measure fid SAMPLES REFERENCE REPEATS THREADS
//! ```

use models::{
    DeviceChoice, FeatureStatistics, Generator, GeneratorConfig, GeneratorRecipe, GeneratorTrainer, LoadOptions,
    Precision, ProcessGroup, Rendezvous, Trainer, VisualTokenizer, frechet_distance, initialise,
    measuring::sampling_times,
};
use pipeline::{
    BatchNetwork, DecodeLimits, DeviceError, Limits, ProcessRank, Run, SourceOptions, SourceReader, Storage, Telemetry,
    TokenizeRun, crop_views, decode_image, list_source, plan_units, tokenize,
};
use schemas::{
    Crop, GuidanceSchedule, ImageIdRule, ImageOrigin, Origin, PixelBatch, PlanSettings, Rounding, SampleBatch,
    Sampling, ScoredImages, SourceAccount, SourceReading, TokenBatch, TokenLevels, TokenizerIdentity,
};
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
        ["sample", generator, tokenizer, kind, precision, batch, repeats, threads] => {
            let sizes = Sizes { batch: batch.parse()?, repeats: repeats.parse()?, threads: threads.parse()? };
            sample(generator.as_ref(), tokenizer.as_ref(), kind, precision.parse()?, sizes)?
        }
        ["train-generator", generator, precision, batch, repeats, threads] => {
            let sizes = Sizes { batch: batch.parse()?, repeats: repeats.parse()?, threads: threads.parse()? };
            train_generator(generator.as_ref(), precision.parse()?, sizes)?
        }
        ["train-group", config, batch, steps, repeats, ref group @ ..] => {
            let rendezvous = match *group {
                [] => None,
                [rank, processes, port] => Some(Rendezvous {
                    host: "localhost".to_owned(),
                    port: port.parse()?,
                    rank: rank.parse()?,
                    world_size: processes.parse()?,
                    is_open: false,
                }),
                _ => return Err("a group is RANK PROCESSES PORT".into()),
            };
            train_group(config.as_ref(), batch.parse()?, steps.parse()?, repeats.parse()?, rendezvous)?
        }
        ["fid", samples, reference, repeats, threads] => {
            fid(samples.as_ref(), reference.as_ref(), repeats.parse()?, threads.parse()?)?
        }
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
    let counted = tokenizer.config().encode_operations()?;
    let views: i64 = batches.iter().map(|batch| batch.filled() as i64).sum();
    Ok(json!({
        "seconds": seconds,
        "operations": operations(precision, views * counted.in_precision, views * counted.in_float32),
    }))
}

/// Operations by the precision that a processor computes them in.
fn operations(precision: Precision, in_precision: i64, in_float32: i64) -> Value {
    match precision {
        Precision::Fp32 | Precision::Tf32 => json!({ "fp32": in_precision + in_float32 }),
        Precision::Bf16 | Precision::Fp16 => json!({ precision.name(): in_precision, "fp32": in_float32 }),
    }
}

/// Time of sampling a batch under a kind of guidance, and the shares of attention, of the head with the drawing, of the rest, and of
/// the tokenizer's decoder, where it takes these codes.
fn sample(generator: &Path, tokenizer: &Path, kind: &str, precision: Precision, sizes: Sizes) -> Measured {
    let device = initialise(&[DeviceChoice::Cpu], Some(sizes.threads))?[0];
    let options = || LoadOptions { device, precision, name: None };
    let mut generator = Generator::load(generator, options())?;
    let mut sampling = Sampling::paper(0);
    match kind {
        "paper" => {}
        "guided" => sampling.guidance.schedule = GuidanceSchedule::Constant {},
        "unguided" => sampling.guidance.scale = 1.0,
        other => return Err(format!("no kind of guidance: {other}").into()),
    }
    let classes = i32::try_from(generator.config().classes())?;
    let samples: Vec<u64> = (0..sizes.batch as u64).collect();
    let of_class = (0..classes).cycle().take(sizes.batch).collect();
    let batch = SampleBatch::try_new(samples, of_class, sizes.batch)?;
    // The first batch pays for caches.
    let codes = generator.sample(&batch, &sampling)?;
    let mut seconds = Vec::new();
    for _ in 0..sizes.repeats {
        let started = Instant::now();
        generator.sample(&batch, &sampling)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    let (sampled, times) = sampling_times(device, || generator.sample(&batch, &sampling));
    sampled?;
    let tokenizer = VisualTokenizer::load(tokenizer, options())?;
    let fits = tokenizer.codebook_size() == generator.config().codebook_size()
        && tokenizer.levels() == generator.config().levels();
    let mut parts = vec![
        ("attention", times.attention.as_secs_f64()),
        ("head", times.head.as_secs_f64()),
        ("rest", times.rest.as_secs_f64()),
    ];
    if fits {
        let all = tokenizer.levels().tokens_per_image();
        tokenizer.decode(&codes, all, Rounding::Truncate)?;
        let started = Instant::now();
        tokenizer.decode(&codes, all, Rounding::Truncate)?;
        parts.push(("decoder", started.elapsed().as_secs_f64()));
    }
    let counted = generator.config().sampling_operations(&sampling.guidance);
    let whole: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
    let fractions: serde_json::Map<String, Value> =
        parts.into_iter().map(|(part, seconds)| (part.to_owned(), json!(seconds / whole))).collect();
    Ok(json!({
        "seconds": seconds,
        "shares": fractions,
        "tokens_per_image": generator.config().tokens_per_image(),
        "operations": operations(precision, sizes.batch as i64 * counted, 0),
    }))
}

/// Time of the statistics of `samples` (float32, `[any number, 2048]`), and of their distance from those of `reference`.
fn fid(samples: &Path, reference: &Path, repeats: usize, threads: usize) -> Measured {
    /// Rows that are read at once, as a unit of features is.
    const ROWS: usize = 1_000;
    let device = initialise(&[DeviceChoice::Cpu], Some(threads))?[0];
    let read = |file: &Path| -> Result<Vec<f32>, std::io::Error> {
        Ok(fs::read(file)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    let statistics = |features: &[f32]| {
        let mut statistics = FeatureStatistics::new(ScoredImages::POOL, device)?;
        features.chunks(ROWS * ScoredImages::POOL).try_for_each(|rows| statistics.add(rows))?;
        statistics.finish()
    };
    let (samples, reference) = (read(samples)?, statistics(&read(reference)?)?);
    let (mut statistics_seconds, mut distance_seconds, mut distance) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..repeats {
        let started = Instant::now();
        let found = statistics(&samples)?;
        statistics_seconds.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        distance = frechet_distance(&found, &reference, device)?;
        distance_seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(json!({ "statistics": statistics_seconds, "distance": distance_seconds, "fid": distance }))
}

/// Time of a training step of random rows, with the published recipe.
fn train_generator(generator: &Path, precision: Precision, sizes: Sizes) -> Measured {
    /// Forward once, and backward at twice the cost.
    const PASSES: i64 = 3;
    let device = initialise(&[DeviceChoice::Cpu], Some(sizes.threads))?[0];
    let file = generator.join("config.json");
    let config = GeneratorConfig::from_json(&fs::read_to_string(&file)?, &file)?;
    let recipe = GeneratorRecipe { precision, ..GeneratorRecipe::published() };
    let batch = [random_rows(&config, sizes.batch)?];
    let counted = PASSES * sizes.batch as i64 * config.forward_operations();
    let mut trainer = GeneratorTrainer::new(config, recipe, device)?;
    // A step leaves its losses on the device; reading one waits for it.
    trainer.step(&batch)?.read()?;
    let mut seconds = Vec::new();
    for _ in 0..sizes.repeats {
        let started = Instant::now();
        trainer.step(&batch)?.read()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(json!({ "seconds": seconds, "operations": operations(precision, counted, 0) }))
}

/// Random codes, and the classes in turn.
fn random_rows(config: &GeneratorConfig, rows: usize) -> Result<(TokenBatch, Vec<i32>), Box<dyn Error>> {
    let (mut random, tokens) = (Random::new(1), config.tokens_per_image());
    let codes = (0..rows * tokens).map(|_| random.below(config.codebook_size() as u64) as i16).collect();
    let classes = (0..i32::try_from(config.classes())?).cycle().take(rows).collect();
    Ok((TokenBatch::try_new(codes, tokens)?, classes))
}

/// Time of a step of `batch` random rows on one thread, the mean over `steps`, in each repeat: in a group of processes, or without one.
fn train_group(config: &Path, batch: usize, steps: usize, repeats: usize, rendezvous: Option<Rendezvous>) -> Measured {
    let device = initialise(&[DeviceChoice::Cpu], Some(1))?[0];
    let config = GeneratorConfig::from_json(&fs::read_to_string(config)?, config)?;
    let rows = [random_rows(&config, batch)?];
    let mut trainer = GeneratorTrainer::new(config, GeneratorRecipe::published(), device)?;
    if let Some(rendezvous) = rendezvous {
        trainer.distribute(&ProcessGroup::meet(&rendezvous, device, Duration::from_secs(60))?, 0)?;
    }
    // The first steps pay for what is set up once.
    for _ in 0..2 {
        trainer.step(&rows)?;
    }
    let mut seconds = Vec::new();
    for _ in 0..repeats {
        let started = Instant::now();
        for _ in 0..steps {
            // On a processor a step has computed everything when it returns.
            trainer.step(&rows)?;
        }
        seconds.push(started.elapsed().as_secs_f64() / steps as f64);
    }
    Ok(json!({ "seconds": seconds }))
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

impl BatchNetwork<PixelBatch, TokenBatch> for RandomCodes {
    fn run(&mut self, batch: &PixelBatch) -> Result<TokenBatch, DeviceError> {
        let codes: Vec<i64> =
            (0..batch.filled() * TOKENS_PER_IMAGE).map(|_| self.0.below(CODEBOOK_SIZE as u64) as i64).collect();
        TokenBatch::try_from_codes(&codes, TOKENS_PER_IMAGE, CODEBOOK_SIZE).map_err(|error| DeviceError {
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
            source: listing.source.clone(),
            split: "train".to_owned(),
            tokenizer: TokenizerIdentity {
                name: "random".to_owned(),
                sha256: "0".repeat(64),
                codebook_size: CODEBOOK_SIZE,
                levels: TokenLevels::published(TOKENS_PER_IMAGE)?,
            },
            precision: "fp32".to_owned(),
            batch_size: 32,
            unit_size: 16_384,
            origin: Origin::Images(ImageOrigin {
                layout: listing.layout,
                image_id: ImageIdRule::Stem,
                crop,
                max_image_bytes: limits.max_image_bytes,
                max_image_pixels: limits.max_image_pixels,
                reading: SourceReading::default(),
            }),
        };
        let plan = Arc::new(plan_units(settings, listing)?);
        let encoder = || -> Result<Box<dyn BatchNetwork<PixelBatch, TokenBatch>>, DeviceError> {
            Ok(Box::new(RandomCodes(Random::new(0))))
        };
        let run = TokenizeRun {
            source: SourceReader::open(Arc::clone(&plan), &limits)?,
            encoders: vec![("cpu".to_owned(), Box::new(encoder))],
            common: Run {
                plan,
                output: Storage::open_output(output, &limits)?,
                libtorch: models::libtorch_version(),
                limits: limits.clone(),
                process: ProcessRank::ALONE,
                max_reject_rate: 0.0,
                start_jitter: Duration::ZERO,
                finalize: true,
                cancel: tokio_util::sync::CancellationToken::new(),
                telemetry: Arc::new(Telemetry::new()),
                left_out: SourceAccount::default(),
                engine: None,
            },
        };
        Ok::<_, Box<dyn Error>>(tokenize(run).await?)
    })?;
    Ok(json!({ "images": report.row_counts_here.written, "rows": report.row_counts_here.token_rows }))
}
