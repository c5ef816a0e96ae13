//! Every environment variable that the program reads, and the one place that reads them.
//!
//! The variables of flags are declared to the command line by these names, so that `--help` shows them; the cloud stores' own
//! variables (`AWS_*`, `GOOGLE_*`, `AZURE_*`) are read by the storage layer from each cloud's standard chain.

/// TOML file with settings (`--settings`).
pub(crate) const SETTINGS: &str = "RESTOK_SETTINGS";
/// Shape of log lines: `text` or `json`.
pub(crate) const LOG_FORMAT: &str = "RESTOK_LOG_FORMAT";
/// What is logged: a level, or directives such as `info,pipeline=debug`.
pub(crate) const LOG: &str = "RESTOK_LOG";
/// How progress is shown: `auto`, `bars`, `lines` or `none`.
pub(crate) const PROGRESS: &str = "RESTOK_PROGRESS";
/// Seconds between two progress lines.
pub(crate) const PROGRESS_SECONDS: &str = "RESTOK_PROGRESS_SECONDS";
/// Whether norms on CUDA are computed by fused kernels: `true` or `false`.
pub(crate) const FUSED_KERNELS: &str = "RESTOK_FUSED_KERNELS";
/// Shape of the report on standard output: `text` or `json`.
pub(crate) const FORMAT: &str = "RESTOK_FORMAT";

/// Where the images are.
pub(crate) const SOURCE: &str = "RESTOK_SOURCE";
/// Where the tables go, or are.
pub(crate) const OUTPUT: &str = "RESTOK_OUTPUT";
/// The tokenizer: a folder or `hf://owner/name[@revision]`.
pub(crate) const TOKENIZER: &str = "RESTOK_TOKENIZER";
/// How the images lie in the source.
pub(crate) const LAYOUT: &str = "RESTOK_LAYOUT";
/// Value of the `split=` partition.
pub(crate) const SPLIT: &str = "RESTOK_SPLIT";
/// The crop, by name.
pub(crate) const CROP: &str = "RESTOK_CROP";
/// Where labels come from.
pub(crate) const LABELS: &str = "RESTOK_LABELS";
/// Extensions of images.
pub(crate) const IMAGE_EXTENSIONS: &str = "RESTOK_IMAGE_EXTENSIONS";
/// Column of images.
pub(crate) const IMAGE_COLUMN: &str = "RESTOK_IMAGE_COLUMN";
/// Column of labels.
pub(crate) const LABEL_COLUMN: &str = "RESTOK_LABEL_COLUMN";
/// Column of keys.
pub(crate) const ID_COLUMN: &str = "RESTOK_ID_COLUMN";
/// How an image's key is made.
pub(crate) const IMAGE_ID: &str = "RESTOK_IMAGE_ID";
/// Take only the first images of the source.
pub(crate) const MAX_IMAGES: &str = "RESTOK_MAX_IMAGES";
/// Devices that encode.
pub(crate) const DEVICES: &str = "RESTOK_DEVICES";
/// The one device that decodes.
pub(crate) const DEVICE: &str = "RESTOK_DEVICE";
/// Threads that torch uses for one CPU worker.
pub(crate) const DEVICE_THREADS: &str = "RESTOK_DEVICE_THREADS";
/// Arithmetic of the networks.
pub(crate) const PRECISION: &str = "RESTOK_PRECISION";
/// Views of a batch.
pub(crate) const BATCH_SIZE: &str = "RESTOK_BATCH_SIZE";
/// Images of a unit.
pub(crate) const UNIT_SIZE: &str = "RESTOK_UNIT_SIZE";
/// Share of rejected images above which the job fails.
pub(crate) const MAX_REJECT_RATE: &str = "RESTOK_MAX_REJECT_RATE";
/// This process among those that share the work.
pub(crate) const RANK: &str = "RESTOK_RANK";
/// Processes that share the work.
pub(crate) const WORLD: &str = "RESTOK_WORLD";
/// Longest pause before the start.
pub(crate) const START_JITTER_SECONDS: &str = "RESTOK_START_JITTER_SECONDS";
/// Leave the output unfinished.
pub(crate) const NO_FINALIZE: &str = "RESTOK_NO_FINALIZE";

/// Plan only.
pub(crate) const DRY_RUN: &str = "RESTOK_DRY_RUN";
/// The generator: a folder or `hf://owner/name[@revision]`.
pub(crate) const GENERATOR: &str = "RESTOK_GENERATOR";
/// Decode tokens that are there.
pub(crate) const DECODE_ONLY: &str = "RESTOK_DECODE_ONLY";
/// The output whose tokens are decoded.
pub(crate) const TOKENS: &str = "RESTOK_TOKENS";
/// Samples to generate.
pub(crate) const COUNT: &str = "RESTOK_COUNT";
/// Their classes, the number of classes of a generator that is trained, or the file that names those of images.
pub(crate) const CLASSES: &str = "RESTOK_CLASSES";
/// Everything that a set depends on, by name.
pub(crate) const RECIPE: &str = "RESTOK_RECIPE";
/// Scale of guidance.
pub(crate) const GUIDANCE: &str = "RESTOK_GUIDANCE";
/// How the scale moves.
pub(crate) const SCHEDULE: &str = "RESTOK_SCHEDULE";
/// Where the schedule begins.
pub(crate) const SCHEDULE_START: &str = "RESTOK_SCHEDULE_START";
/// Where the schedule ends.
pub(crate) const SCHEDULE_END: &str = "RESTOK_SCHEDULE_END";
/// Where the schedule has its peak.
pub(crate) const SCHEDULE_PEAK: &str = "RESTOK_SCHEDULE_PEAK";
/// Scale outside of the schedule.
pub(crate) const SCHEDULE_FLOOR: &str = "RESTOK_SCHEDULE_FLOOR";
/// Last token before a guided step.
pub(crate) const GUIDANCE_INTERVAL: &str = "RESTOK_GUIDANCE_INTERVAL";
/// Probability of the codes that are drawn from.
pub(crate) const TOP_P: &str = "RESTOK_TOP_P";
/// Number of the codes that are drawn from.
pub(crate) const TOP_K: &str = "RESTOK_TOP_K";
/// Divisor of logits.
pub(crate) const TEMPERATURE: &str = "RESTOK_TEMPERATURE";
/// Forms of pictures.
pub(crate) const PICTURES: &str = "RESTOK_PICTURES";
/// From values to bytes.
pub(crate) const ROUNDING: &str = "RESTOK_ROUNDING";
/// Arithmetic of the decoder.
pub(crate) const DECODER_PRECISION: &str = "RESTOK_DECODER_PRECISION";
/// File of a sheet of samples.
pub(crate) const GRID: &str = "RESTOK_GRID";
/// Samples of a class on the sheet.
pub(crate) const GRID_COLUMNS: &str = "RESTOK_GRID_COLUMNS";
/// File of a sheet of steps.
pub(crate) const REVEAL: &str = "RESTOK_REVEAL";
/// Names of the classes.
pub(crate) const CLASS_NAMES: &str = "RESTOK_CLASS_NAMES";

/// Which numbers are meant.
pub(crate) const PROTOCOL: &str = "RESTOK_PROTOCOL";
/// What a set is compared with.
pub(crate) const REFERENCE: &str = "RESTOK_REFERENCE";
/// The reference to make.
pub(crate) const MAKE_REFERENCE: &str = "RESTOK_MAKE_REFERENCE";
/// Rules of the protocol that may be broken.
pub(crate) const ALLOW: &str = "RESTOK_ALLOW";
/// The Inception network's weights.
pub(crate) const INCEPTION: &str = "RESTOK_INCEPTION";
/// AlexNet's weights.
pub(crate) const ALEXNET: &str = "RESTOK_ALEXNET";

/// Check sizes, not digests and rows.
pub(crate) const FAST: &str = "RESTOK_FAST";
/// Example rows to show.
pub(crate) const ROWS: &str = "RESTOK_ROWS";
/// Images to rebuild.
pub(crate) const IMAGES: &str = "RESTOK_IMAGES";
/// The view to rebuild.
pub(crate) const VIEW: &str = "RESTOK_VIEW";
/// Tokens to rebuild from.
pub(crate) const KEEP: &str = "RESTOK_KEEP";
/// Folder for rebuilt images.
pub(crate) const TO: &str = "RESTOK_TO";
/// The page of a report.
pub(crate) const REPORT: &str = "RESTOK_REPORT";
/// Leave the originals out of the contact sheet.
pub(crate) const NO_ORIGINALS: &str = "RESTOK_NO_ORIGINALS";
/// Decode with a tokenizer that did not make the tokens.
pub(crate) const ALLOW_OTHER_TOKENIZER: &str = "RESTOK_ALLOW_OTHER_TOKENIZER";

/// Images to validate on.
pub(crate) const VALIDATION_SOURCE: &str = "RESTOK_VALIDATION_SOURCE";
/// Recipe by name.
pub(crate) const PRESET: &str = "RESTOK_PRESET";
/// Configuration of the tokenizer.
pub(crate) const TOKENIZER_CONFIG: &str = "RESTOK_TOKENIZER_CONFIG";
/// Configuration of the generator.
pub(crate) const GENERATOR_CONFIG: &str = "RESTOK_GENERATOR_CONFIG";
/// One token a step.
pub(crate) const TOKEN_BY_TOKEN: &str = "RESTOK_TOKEN_BY_TOKEN";
/// How often a class is left out.
pub(crate) const CLASS_DROPOUT: &str = "RESTOK_CLASS_DROPOUT";
/// Other dropouts.
pub(crate) const DROPOUT: &str = "RESTOK_DROPOUT";
/// Passes over the images.
pub(crate) const EPOCHS: &str = "RESTOK_EPOCHS";
/// Updates of a training.
pub(crate) const STEPS: &str = "RESTOK_STEPS";
/// Batches of an update.
pub(crate) const ACCUMULATION: &str = "RESTOK_ACCUMULATION";
/// Where random numbers start.
pub(crate) const SEED: &str = "RESTOK_SEED";
/// Rate after the warm-up.
pub(crate) const LEARNING_RATE: &str = "RESTOK_LEARNING_RATE";
/// Rate at the end.
pub(crate) const END_LEARNING_RATE: &str = "RESTOK_END_LEARNING_RATE";
/// Updates of the warm-up.
pub(crate) const WARMUP_STEPS: &str = "RESTOK_WARMUP_STEPS";
/// AdamW's first decay.
pub(crate) const BETA1: &str = "RESTOK_BETA1";
/// AdamW's second decay.
pub(crate) const BETA2: &str = "RESTOK_BETA2";
/// Weight decay.
pub(crate) const WEIGHT_DECAY: &str = "RESTOK_WEIGHT_DECAY";
/// Largest gradient.
pub(crate) const GRADIENT_NORM: &str = "RESTOK_GRADIENT_NORM";
/// Decay of the average of weights.
pub(crate) const AVERAGE_DECAY: &str = "RESTOK_AVERAGE_DECAY";
/// Distance of pixels.
pub(crate) const RECONSTRUCTION: &str = "RESTOK_RECONSTRUCTION";
/// Weight of the distance of pixels.
pub(crate) const RECONSTRUCTION_WEIGHT: &str = "RESTOK_RECONSTRUCTION_WEIGHT";
/// Weight of the quantizer's losses.
pub(crate) const QUANTIZER_WEIGHT: &str = "RESTOK_QUANTIZER_WEIGHT";
/// Weight of LPIPS.
pub(crate) const PERCEPTUAL_WEIGHT: &str = "RESTOK_PERCEPTUAL_WEIGHT";
/// Weight of the alignment.
pub(crate) const ALIGNMENT_WEIGHT: &str = "RESTOK_ALIGNMENT_WEIGHT";
/// Margin of the alignment.
pub(crate) const ALIGNMENT_MARGIN: &str = "RESTOK_ALIGNMENT_MARGIN";
/// Which discriminator.
pub(crate) const ADVERSARY: &str = "RESTOK_ADVERSARY";
/// Weight of the discriminator.
pub(crate) const ADVERSARIAL_WEIGHT: &str = "RESTOK_ADVERSARIAL_WEIGHT";
/// First step with a discriminator.
pub(crate) const ADVERSARIAL_START: &str = "RESTOK_ADVERSARIAL_START";
/// Weight of LeCam.
pub(crate) const LECAM_WEIGHT: &str = "RESTOK_LECAM_WEIGHT";
/// VGG16's weights.
pub(crate) const VGG16: &str = "RESTOK_VGG16";
/// LPIPS' layers.
pub(crate) const LPIPS: &str = "RESTOK_LPIPS";
/// DINO's weights.
pub(crate) const DINO: &str = "RESTOK_DINO";
/// The vision foundation model's weights.
pub(crate) const FOUNDATION_MODEL: &str = "RESTOK_FOUNDATION_MODEL";
/// Smallest random crop.
pub(crate) const SMALLEST_SCALE: &str = "RESTOK_SMALLEST_SCALE";
/// Largest random crop.
pub(crate) const LARGEST_SCALE: &str = "RESTOK_LARGEST_SCALE";
/// No mirroring.
pub(crate) const NO_FLIP: &str = "RESTOK_NO_FLIP";
/// Images shuffled together.
pub(crate) const SHUFFLE_IMAGES: &str = "RESTOK_SHUFFLE_IMAGES";
/// Steps between metrics.
pub(crate) const LOG_EVERY: &str = "RESTOK_LOG_EVERY";
/// Steps between checkpoints.
pub(crate) const SAVE_EVERY: &str = "RESTOK_SAVE_EVERY";
/// Checkpoints kept.
pub(crate) const KEEP_CHECKPOINTS: &str = "RESTOK_KEEP_CHECKPOINTS";
/// Steps between validations.
pub(crate) const VALIDATE_EVERY: &str = "RESTOK_VALIDATE_EVERY";
/// Images of a validation.
pub(crate) const VALIDATION_IMAGES: &str = "RESTOK_VALIDATION_IMAGES";
/// Steps between contact sheets.
pub(crate) const SHEET_EVERY: &str = "RESTOK_SHEET_EVERY";
/// Guidance of samples on sheets.
pub(crate) const SHEET_GUIDANCE: &str = "RESTOK_SHEET_GUIDANCE";
/// Bytes of tokens in memory.
pub(crate) const MEMORY_BYTES: &str = "RESTOK_MEMORY_BYTES";
/// Stop early.
pub(crate) const STOP_AFTER: &str = "RESTOK_STOP_AFTER";

/// Numbers of the trained tokenizer's weights.
pub(crate) const PUBLISH_PRECISION: &str = "RESTOK_PUBLISH_PRECISION";
/// Go on with a run that was begun with other settings.
pub(crate) const ALLOW_OTHER_SETTINGS: &str = "RESTOK_ALLOW_OTHER_SETTINGS";

/// Objects being fetched at once.
pub(crate) const FETCH_REQUESTS: &str = "RESTOK_FETCH_REQUESTS";
/// Encoded bytes waiting to be decoded.
pub(crate) const FETCH_BUFFER_BYTES: &str = "RESTOK_FETCH_BUFFER_BYTES";
/// Largest encoded image.
pub(crate) const MAX_IMAGE_BYTES: &str = "RESTOK_MAX_IMAGE_BYTES";
/// Largest image in pixels.
pub(crate) const MAX_IMAGE_PIXELS: &str = "RESTOK_MAX_IMAGE_PIXELS";
/// Threads that decode and crop.
pub(crate) const DECODE_THREADS: &str = "RESTOK_DECODE_THREADS";
/// Images of a unit that decode ahead.
pub(crate) const DECODE_AHEAD_IMAGES: &str = "RESTOK_DECODE_AHEAD_IMAGES";
/// Batches waiting in front of each device.
pub(crate) const QUEUED_BATCHES_PER_DEVICE: &str = "RESTOK_QUEUED_BATCHES_PER_DEVICE";
/// Units worked on at once.
pub(crate) const UNITS_IN_FLIGHT: &str = "RESTOK_UNITS_IN_FLIGHT";
/// Attempts at a request.
pub(crate) const RETRY_ATTEMPTS: &str = "RESTOK_RETRY_ATTEMPTS";
/// First pause between attempts.
pub(crate) const RETRY_PAUSE_FIRST_MILLISECONDS: &str = "RESTOK_RETRY_PAUSE_FIRST_MILLISECONDS";
/// Longest pause between attempts.
pub(crate) const RETRY_PAUSE_MAX_SECONDS: &str = "RESTOK_RETRY_PAUSE_MAX_SECONDS";
/// Time after which a request is given up.
pub(crate) const RETRY_TOTAL_SECONDS: &str = "RESTOK_RETRY_TOTAL_SECONDS";
/// Time to open a connection.
pub(crate) const CONNECT_TIMEOUT_SECONDS: &str = "RESTOK_CONNECT_TIMEOUT_SECONDS";
/// Longest silence in the middle of a body.
pub(crate) const READ_TIMEOUT_SECONDS: &str = "RESTOK_READ_TIMEOUT_SECONDS";
/// Time without progress after which the run ends.
pub(crate) const STALL_SECONDS: &str = "RESTOK_STALL_SECONDS";

/// The model hub's endpoint, as all of its clients read it.
pub(crate) const HF_ENDPOINT: &str = "HF_ENDPOINT";
/// The model hub's access token; without it, the token file that its login writes.
pub(crate) const HF_TOKEN: &str = "HF_TOKEN";
/// The model hub's folder, which holds the cache `hub/` and the token file.
pub(crate) const HF_HOME: &str = "HF_HOME";
/// The model hub's cache, when it is not `hub/` below [`HF_HOME`].
pub(crate) const HF_HUB_CACHE: &str = "HF_HUB_CACHE";
/// Set to `1` to use only what the cache holds.
pub(crate) const HF_HUB_OFFLINE: &str = "HF_HUB_OFFLINE";

/// The value of a variable; an empty one counts as absent, as shells and job templates leave them.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn lookup(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
