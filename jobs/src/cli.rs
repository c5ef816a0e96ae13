//! The command line: what can be typed, and the help that teaches it.

use crate::environment;
use crate::settings::{
    CompareOptions, DoctorOptions, EvaluateOptions, FinalizeOptions, GeneralOptions, GenerateOptions, InspectOptions,
    KubernetesOptions, LimitOptions, ReconstructOptions, ReportOptions, STORAGE_HEADING, SlurmOptions, SweepOptions,
    TokenizeOptions, TrainGeneratorOptions, TrainTokenizerOptions, VerifyOptions, WORK_HEADING, WORKER, WatchOptions,
    find_command, variable,
};
use clap::{Arg, ArgAction, Args, CommandFactory, Parser, Subcommand};
use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

/// Encode images into Parquet tables of visual tokens, train tokenizers and generators, generate image sets and score them
#[derive(Debug, Parser)]
#[command(name = "restok", bin_name = "restok", version, long_about = LONG_ABOUT, after_help = AFTER_HELP, max_term_width = 120)]
#[command(disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Settings of every command.
    #[command(flatten)]
    pub(crate) shared: SharedArguments,
}

/// Arguments that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct SharedArguments {
    /// Read settings from this TOML file.
    ///
    /// The file has a section for each command, and `limits` and `general` for all; keys are option names without
    /// the leading `--`. Command-line options override environment variables, which override the file, which overrides defaults.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub(crate) settings: Option<PathBuf>,
    /// Print the effective settings as a settings file, with the origin of each, and exit
    #[arg(long, global = true, help_heading = "Settings")]
    pub(crate) show_settings: bool,
    /// Logs and progress.
    #[command(flatten)]
    pub(crate) general: GeneralOptions,
}

/// What can be done.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process, and no flag is worth a box")]
pub(crate) enum Command {
    /// Encode images into tables of tokens
    #[command(long_about = TOKENIZE_ABOUT, after_help = TOKENIZE_AFTER_HELP)]
    Tokenize(Arguments<TokenizeOptions>),
    /// Train a tokenizer on images
    #[command(long_about = TRAIN_TOKENIZER_ABOUT, after_help = TRAIN_TOKENIZER_AFTER_HELP)]
    TrainTokenizer(Box<Arguments<TrainTokenizerOptions>>),
    /// Train a generator on tables of tokens
    #[command(long_about = TRAIN_GENERATOR_ABOUT, after_help = TRAIN_GENERATOR_AFTER_HELP)]
    TrainGenerator(Box<Arguments<TrainGeneratorOptions>>),
    /// Generate class-conditional image sets with a trained generator
    #[command(long_about = GENERATE_ABOUT, after_help = GENERATE_AFTER_HELP)]
    Generate(Box<Arguments<GenerateOptions>>),
    /// Generate a small set at every point of a grid of sampling settings, and tabulate them
    #[command(long_about = SWEEP_ABOUT, after_help = SWEEP_AFTER_HELP)]
    Sweep(Box<Arguments<SweepOptions>>),
    /// Score a generated set or a tokenizer's reconstructions under a named protocol
    #[command(long_about = EVALUATE_ABOUT, after_help = EVALUATE_AFTER_HELP)]
    Evaluate(Box<Arguments<EvaluateOptions>>),
    /// Compare scored sets in one table: intervals, the best of each score, and what is not comparable
    #[command(long_about = COMPARE_ABOUT, after_help = COMPARE_AFTER_HELP)]
    Compare(Arguments<CompareOptions>),
    /// Check that every unit of an output is complete, and close it
    #[command(long_about = FINALIZE_ABOUT, after_help = FINALIZE_AFTER_HELP)]
    Finalize(Arguments<FinalizeOptions>),
    /// Check every file of an output: sizes, digests, row counts, ranges, unique keys
    #[command(long_about = VERIFY_ABOUT, after_help = VERIFY_AFTER_HELP)]
    Verify(Arguments<VerifyOptions>),
    /// Show the contents of an output: row counts, provenance, codebook use by level
    #[command(long_about = INSPECT_ABOUT, after_help = INSPECT_AFTER_HELP)]
    Inspect(Arguments<InspectOptions>),
    /// Watch a job over any number of workers: progress, speed, silent workers, slow units
    #[command(long_about = WATCH_ABOUT, after_help = WATCH_AFTER_HELP)]
    Watch(Arguments<WatchOptions>),
    /// Decode tokens back into images: PNG files and a contact sheet
    #[command(long_about = RECONSTRUCT_ABOUT, after_help = RECONSTRUCT_AFTER_HELP)]
    Reconstruct(Arguments<ReconstructOptions>),
    /// Write an HTML page about outputs, training runs, sweeps and scores
    #[command(long_about = REPORT_ABOUT, after_help = REPORT_AFTER_HELP)]
    Report(Arguments<ReportOptions>),
    /// Show what this machine has: devices, libtorch, credentials by name, stores that answer
    #[command(long_about = DOCTOR_ABOUT, after_help = DOCTOR_AFTER_HELP)]
    Doctor(Arguments<DoctorOptions>),
    /// Run a job for an engine: units from standard input, events to standard output
    #[command(long_about = WORKER_ABOUT, after_help = WORKER_AFTER_HELP)]
    Worker(WorkerArguments),
    /// Hand a job to the scheduler of a cluster: Slurm or Kubernetes
    #[command(long_about = SUBMIT_ABOUT, subcommand_required = true, arg_required_else_help = true)]
    Submit(SubmitArguments),
}

/// A job with its own command line.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArguments {
    /// tokenize, generate or evaluate, and its options
    #[arg(value_name = "JOB", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) job: Vec<OsString>,
}

/// Which scheduler a job is handed to.
#[derive(Debug, Args)]
pub(crate) struct SubmitArguments {
    /// The scheduler.
    #[command(subcommand)]
    pub(crate) scheduler: Scheduler,
}

/// A scheduler with the options of a submission.
#[derive(Debug, Subcommand)]
pub(crate) enum Scheduler {
    /// Write and submit a batch script: an array of tasks, or the processes of a training
    #[command(long_about = SLURM_ABOUT, after_help = SLURM_AFTER_HELP)]
    Slurm(Box<SlurmOptions>),
    /// Print the manifest of an indexed Job, for kubectl
    #[command(long_about = KUBERNETES_ABOUT, after_help = KUBERNETES_AFTER_HELP)]
    Kubernetes(Box<KubernetesOptions>),
}

impl Scheduler {
    /// The job with its options, as typed.
    pub(crate) fn job(&self) -> &[String] {
        match self {
            Self::Slurm(options) => &options.job,
            Self::Kubernetes(options) => &options.job,
        }
    }
}

/// A command's own options and the limits.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments<O: Args> {
    /// The command's own options.
    #[command(flatten)]
    pub(crate) options: O,
    /// Limits.
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
}

/// The command line: every option with its environment variable, and only the limits that a command obeys in its help.
pub(crate) fn command() -> clap::Command {
    let version = format!(
        "{}\nlibtorch {}\ndecoders {}",
        env!("CARGO_PKG_VERSION"),
        models::libtorch_version(),
        pipeline::decoder_versions()
    );
    let mut program = Cli::command().long_version(version).mut_args(complete);
    // A worker's options are its job's.
    let names = program.get_subcommands().map(|command| command.get_name().to_owned());
    let names: Vec<String> = names.filter(|name| name != WORKER).collect();
    for name in names {
        program = program.mut_subcommand(&name, |command| {
            let command = command.mut_subcommands(|within| within.mut_args(complete));
            command.mut_args(|option| {
                // Every command obeys the limits on storage; those on work say nothing where nothing is encoded.
                let is_work = option.get_help_heading() == Some(WORK_HEADING);
                let is_limit = is_work || option.get_help_heading() == Some(STORAGE_HEADING);
                // Training has no units, no queue in front of many devices and no watchdog.
                let is_running = ["decode_threads", "units_in_flight", "queued_batches_per_device", "stall_seconds"];
                let is_tokenizing = ["units_in_flight", "queued_batches_per_device", "stall_seconds"];
                let unused = match name.as_str() {
                    "tokenize" | "evaluate" => false,
                    // Nothing is fetched and no image is decoded.
                    "generate" | "sweep" => is_work && !is_running.contains(&option.get_id().as_str()),
                    // Files of tables are decoded, but no image.
                    "train-generator" => is_work && option.get_id() != "decode_threads",
                    "train-tokenizer" => is_tokenizing.contains(&option.get_id().as_str()),
                    _ => is_work,
                };
                // The variable of that name is the rule by which `tokenize` makes keys.
                if (name.as_str(), option.get_id().as_str()) == ("reconstruct", "image_id") {
                    return option;
                }
                complete(option).hide(unused).hide_short_help(is_limit)
            })
        });
    }
    program
}

/// An option with its environment variable, where it has none of another name. Switches take `true` and `false`, so that one that a file
/// turned on can be turned off.
fn complete(option: Arg) -> Arg {
    // A whole command line is no setting.
    if !matches!(option.get_action(), ArgAction::Set | ArgAction::Append) || option.is_trailing_var_arg_set() {
        return option;
    }
    let option = match option.get_env() {
        Some(_) => option,
        None => {
            let name = variable(option.get_id().as_str());
            // The variable of an older name, where only that is set.
            let aliases = option.get_all_aliases().unwrap_or_default();
            let mut older = aliases.into_iter().map(variable).filter(|_| environment::lookup(&name).is_none());
            let older = older.find(|older| environment::lookup(older).is_some());
            option.env(older.unwrap_or(name))
        }
    };
    // A variable's value may be a signed URL, and help is pasted into tickets.
    let option = option.hide_env_values(true);
    if option.get_value_parser().type_id() != TypeId::of::<bool>() {
        return option;
    }
    option
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .hide_possible_values(true)
        .hide_default_value(true)
        .value_name("BOOL")
}

/// A text in which the library names options, as `` `image_id` ``, with the flags of a command in their place. What the command has no flag
/// for stays as it is.
pub(crate) fn with_flags(text: &str, program: &clap::Command, command: &str) -> String {
    let command = find_command(program, command);
    let flag = |name: &str| command?.get_arguments().find(|option| option.get_id() == name)?.get_long();
    let mut parts = text.split('`');
    let mut shown = parts.next().unwrap_or_default().to_owned();
    let mut is_name = true;
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        match flag(part) {
            // Between two backticks.
            Some(flag) if is_name && parts.peek().is_some() => {
                shown.push_str(&format!("--{flag}"));
                shown.push_str(parts.next().unwrap_or_default());
            }
            _ => {
                shown.push('`');
                shown.push_str(part);
                is_name = !is_name;
            }
        }
    }
    shown
}

// Paragraphs are one line each, for the terminal's width decides where they break; examples are written to fit in 100 columns.

const LONG_ABOUT: &str = "\
Encode images in object storage into Parquet tables of ResTok's hierarchical visual tokens, train tokenizers and generators on them, \
generate image sets and score them.

The published tokenizer encodes an image into 128 tokens from a codebook of 8,192, in levels of 1, 1, 2, 4, 8, 16, 32 and 64 tokens from \
coarse to fine. `restok train-tokenizer` trains others. DuckDB, Polars, pandas and Spark read the tables as they are.";

const AFTER_HELP: &str = "\
Examples:
  restok tokenize --source ./images --output ./tokens --tokenizer ./tokenizer
  restok inspect ./tokens
  restok reconstruct --tokens ./tokens --tokenizer ./tokenizer --to ./reconstructions

Exit codes:
  0    success
  42   permanent error: bad settings, another plan in the output, too many rejects, damage
  75   temporary error: storage or a device failed; retrying the same command may succeed
  143  stopped by SIGTERM or SIGINT after draining; the same command resumes";

const TOKENIZE_ABOUT: &str = "\
Encode images into tables of tokens.

Lists the source once, freezes it as a plan, and processes it in units: fetch, decode, crop, encode, write. The files of a unit \
are written once and never overwritten, and a unit counts only once its marker exists. A job that was killed resumes with the same \
command, on one machine or many, and ends with the same tables: byte for byte on the same kind of device. An image that cannot be \
read does not stop the job: it becomes a row of the images table with the reason.";

const TOKENIZE_AFTER_HELP: &str = "\
Examples:
  A local folder with one subfolder per class:
    restok tokenize --source ./images --output ./tokens --tokenizer ./tokenizer

  ImageNet in tar shards, two views per image, on all GPUs, with the published checkpoint:
    restok tokenize --source 's3://bucket/train-{0000..1023}.tar' --output s3://bucket/tokens \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k --crop adm-center-256-flip \\
      --precision bf16

  Print the plan only:
    restok tokenize --settings job.toml --dry-run

  One of eight processes (Slurm and torchrun need neither option, Kubernetes only --world-size):
    restok tokenize --settings job.toml --rank 3 --world-size 8

Credentials come from each cloud's standard chain (AWS_*, GOOGLE_*, AZURE_* variables, instance roles) and are never printed. The \
model hub is configured by HF_TOKEN, HF_ENDPOINT and HF_HOME.

SIGTERM or Ctrl-C drains the job: commits in progress finish, the rest is left for the next start (exit code 143). A second signal \
stops at once. `restok tokenize --help` also lists the storage and processing limits.";

const TRAIN_TOKENIZER_ABOUT: &str = "\
Train a tokenizer on images.

Reads images from any source that `restok tokenize` reads, reshuffled every epoch, and trains the tokenizer of a preset or a \
config.json with the published objective. The output folder holds checkpoints, metrics.csv, TensorBoard event files, contact sheets, \
the best tokenizer so far by validation PSNR (best/) and finally the trained one (tokenizer/), for `restok tokenize --tokenizer`.

A run that was stopped or killed resumes with the same command. On a CPU with the same number of threads, the weights are then \
bit for bit those of an uninterrupted run. Every loss with a frozen network needs its file; weight 0 disables the loss.";

const TRAIN_TOKENIZER_AFTER_HELP: &str = "\
Examples:
  A small tokenizer for images of 32x32 pixels, on a CPU, without frozen networks:
    restok train-tokenizer --preset tiny --source './data/train-{000000..000005}.tar' \\
      --validation-source ./data/test-000000.tar --output ./run

  The published recipe on a GPU, with eight batches of 32 per step:
    restok train-tokenizer --source 's3://bucket/train-{0000..1023}.tar' --output ./run \\
      --validation-source 's3://bucket/validation-{00..63}.tar' --gradient-accumulation 8 \\
      --vgg16 vgg16.safetensors --lpips lpips.safetensors --dino dino.safetensors \\
      --foundation-model dinov3.safetensors

SIGTERM or Ctrl-C stops after the current step and saves a checkpoint (exit code 143). docs/train-on-your-images.md is the guide; \
docs/frozen-networks.md says where to get the frozen networks.";

const TRAIN_GENERATOR_ABOUT: &str = "\
Train a generator on tables of tokens.

Reads the token tables of finished outputs of `restok tokenize` in place, and trains the hierarchical autoregressive generator \
that `restok generate` samples from. Startup reads manifests only; if all tokens fit --memory-bytes, each file is read once. An epoch sees \
every image in one of its views, drawn anew each epoch. The output folder holds checkpoints, metrics.csv, TensorBoard event files, sheets of \
samples, the best generator so far by validation loss (best/) and finally the trained one (generator/).

A run that was stopped or killed resumes with the same command. On a CPU with the same number of threads, the weights are then \
bit for bit those of an uninterrupted run.";

const TRAIN_GENERATOR_AFTER_HELP: &str = "\
Examples:
  The published recipe on ImageNet in ten crops, with eight batches of 32 per step:
    restok train-generator --source s3://bucket/tokens/train --output ./run --classes 1000 \\
      --validation-source s3://bucket/tokens/validation --gradient-accumulation 8 \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k

  A small generator for images of 32x32 pixels, on a CPU:
    restok train-generator --preset tiny --source ./tokens --output ./run --tokenizer ./tokenizer

SIGTERM or Ctrl-C stops after the current step and saves a checkpoint (exit code 143). docs/train-a-generator.md is the guide.";

const GENERATE_ABOUT: &str = "\
Generate class-conditional image sets with a trained generator.

Samples tokens, writes them as a table, and decodes them into images: the evaluation archive samples.npz, PNG files, Parquet or \
tar shards. The work is planned, divided into units and committed as in `restok tokenize`: a job that was killed resumes with the \
same command, on one machine or many, and ends with the same set. A sample depends only on the seed and its number. Classes \
alternate, so that any part of the set is mixed.";

const GENERATE_AFTER_HELP: &str = "\
Examples:
  The set of the paper's gFID:
    restok generate --generator hf://xushu-me/llamagen_l_c2i_restok_l_128.r256_in1k \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k --output ./samples --recipe paper

  A preview sheet, ten samples of each of three classes:
    restok generate --generator ./generator --tokenizer ./tokenizer --classes 0,3,7 --grid sheet.png

  Tokens first, images later:
    restok generate --generator ./generator --tokenizer ./tokenizer --output ./tokens \\
      --count 10000 --pictures none
    restok generate --decode-only --tokens ./tokens --tokenizer ./tokenizer --output ./images \\
      --pictures npz,webdataset";

const SWEEP_ABOUT: &str = "\
Generate a small set at every point of a grid of sampling settings, and tabulate them.

The grid combines every guidance scale, schedule, top-p and temperature. Each point is an output of its own below --output, as from \
`restok generate`; the networks are loaded once. Finished points are only read, so that the same command resumes. All points \
share the seed and differ by the grid alone.";

const SWEEP_AFTER_HELP: &str = "\
Examples:
  Twelve sets of 1,000 samples:
    restok sweep --generator ./generator --tokenizer ./tokenizer --output ./sweep \\
      --guidance-scale 1,2,3,4 --top-p 0.9,0.95,1";

const EVALUATE_ABOUT: &str = "\
Score a generated set or a tokenizer's reconstructions under a named protocol.

gfid-adm computes the published metrics of generated sets: gFID, sFID, inception score, precision and recall. --scores chooses others, \
such as KID and coverage, and --confidence adds intervals. rfid computes the metrics of reconstructions. Scores of different protocols \
are not comparable. A set that breaks a rule of its protocol (another count or size, images sorted by class, JPEG files, a reference of \
unknown origin) is refused, unless --allow names the rule; the result then names it too.

Features are committed in units below --output, so that a job that was killed resumes with the same command, on one machine or many. \
The result is printed and added to --output/scores (Parquet) and --output/scores.csv, with its full provenance.";

const EVALUATE_AFTER_HELP: &str = "\
Examples:
  The paper's gFID of an output of restok generate:
    restok evaluate --source ./samples --reference VIRTUAL_imagenet256_labeled.npz \\
      --inception inception.safetensors --output ./evaluation

  Reconstructions of the validation set from 1, 16 and all 128 tokens:
    restok evaluate --protocol rfid --source 's3://bucket/validation-{00..63}.tar' \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k --keep 1,16,128 \\
      --inception inception.safetensors --output ./evaluation

  A reference from your own images, and a small set scored against it:
    restok evaluate --make-reference ./cats.npz --source ./cats --crop adm-center-256 \\
      --inception inception.safetensors --output ./evaluation
    restok evaluate --source ./samples --reference ./cats.npz --allow count \\
      --inception inception.safetensors --output ./evaluation

docs/evaluating.md lists the rules of the protocols and says where to get the networks.";

const COMPARE_ABOUT: &str = "\
Compare scored sets in one table: intervals, the best of each score, and what is not comparable.

Reads what `restok evaluate` and `restok sweep` wrote, one row per set or number of kept tokens. Scores are only comparable if protocol, \
number of images, size, crop, reference, extractor and broken rules agree. Sets are compared on the terms that most of them share; where \
one differs, the scores that depend on the difference carry a note with what was found and expected, and are not ranked. If FID has \
intervals, a sentence says whether the best set differs from the next by more than chance.";

const COMPARE_AFTER_HELP: &str = "\
Examples:
  restok compare ./evaluation
  restok compare ./evaluation s3://bucket/sweep --scores fid,recall --sort recall
  restok compare ./evaluation --format latex > table.tex

docs/evaluating.md says what is compared.";

const FINALIZE_ABOUT: &str = "\
Check that every unit of an output is complete, and close it.

Checks the marker of every unit against the store, and writes _manifest.json and then _SUCCESS. `restok tokenize` and \
`restok generate` do this when the last unit is done, unless run with --no-finalize. Repeating it changes nothing.";

const FINALIZE_AFTER_HELP: &str = "\
Example:
  restok finalize s3://bucket/tokens";

const VERIFY_ABOUT: &str = "\
Check every file of an output: sizes, digests, row counts, ranges, unique keys.

Reads a finished or unfinished output and reports every problem, not only the first. Exits with 42 if there is any.";

const VERIFY_AFTER_HELP: &str = "\
Examples:
  restok verify ./tokens
  restok verify s3://bucket/tokens --fast --format json";

const INSPECT_ABOUT: &str = "\
Show the contents of an output: row counts, provenance, codebook use by level.

Reads the tokens of a finished or unfinished output unit by unit, and reports for each level how many codes of the codebook are used \
and their entropy in bits.";

const INSPECT_AFTER_HELP: &str = "\
Examples:
  restok inspect ./tokens
  restok inspect ./tokens --format json | jq .levels";

const WATCH_ABOUT: &str = "\
Watch a job over any number of workers: progress, speed, silent workers, slow units.

Reads what the workers of `restok tokenize` and `restok generate` leave below their output, from any machine, and writes nothing: \
markers of complete units, and the heartbeats that each worker writes while it works. Shows what is done, who works on which units, \
the images per second of all workers together, the time left, rejects by reason, units that were begun long ago, and workers whose \
heartbeat is overdue. Redraws on a terminal, and prints a log line every --progress-seconds otherwise. Ends with exit code 0 when the \
output is finished.";

const WATCH_AFTER_HELP: &str = "\
Examples:
  restok watch s3://bucket/tokens
  restok watch s3://bucket/tokens --once --format json | jq '.workers[] | select(.state == \"silent\")'

docs/watching.md says what is read and when a worker counts as silent.";

const RECONSTRUCT_ABOUT: &str = "\
Decode tokens back into images: PNG files and a contact sheet.

Reconstructs each image from its first 1, 2, 4 … tokens to show the hierarchy: the first tokens hold the layout, the last the \
detail. The contact sheet shows the originals on top, read again from the source with the same crop if it is still available.";

const RECONSTRUCT_AFTER_HELP: &str = "\
Examples:
  restok reconstruct --tokens ./tokens --tokenizer ./tokenizer --to ./reconstructions
  restok reconstruct --tokens ./tokens --tokenizer ./tokenizer --to ./reconstructions \\
    --image-id n01440764_10026 --keep 1,16,128";

const REPORT_ABOUT: &str = "\
Write an HTML page about outputs, training runs, sweeps and scores.

Takes any mix of outputs of `restok tokenize` and `restok generate` (finished or not), training folders, folders of \
`restok sweep`, evaluation results and contact sheets (PNG). The page shows provenance, row counts and rejects, the throughput of each stage, \
codebook use by level, images, training curves and scores. It is self-contained: it opens from a local disk without a network.";

const REPORT_AFTER_HELP: &str = "\
Examples:
  restok report ./tokens
  restok report ./generator-run ./samples s3://bucket/sweep --to report.html";

const DOCTOR_ABOUT: &str = "\
Show what this machine has: devices, libtorch, credentials by name, stores that answer.

Run it first when something does not work, and paste its output into bug reports: credentials are shown by name, never by value. \
With addresses, it looks at each and says what the store answered.";

const DOCTOR_AFTER_HELP: &str = "\
Examples:
  restok doctor
  restok doctor s3://bucket/imagenet/train s3://bucket/tokens";

const WORKER_ABOUT: &str = "\
Run a job for an engine such as Ray: units from standard input, events to standard output.

Loads the networks once, then reads unit numbers, one per line, and answers with one JSON object per line: ready, begun, done, progress, \
refused, ended, drained, failed. docs/worker-protocol.md describes them. The options are those of the job; --rank and --world-size are \
refused. The files of a unit are put create-only, so an engine may give a unit to two workers. The worker drains on SIGTERM, and when \
its parent ends.";

const WORKER_AFTER_HELP: &str = "\
Examples:
  Units 0 and 7 of a set:
    printf '0\\n7\\n' | restok worker tokenize --source ./images --output ./tokens --tokenizer ./tokenizer";

const SUBMIT_ABOUT: &str = "\
Hand a job to the scheduler of a cluster: Slurm or Kubernetes.

The job stands last, with the options that it has on its own. It is checked before anything waits in a queue. Processes of tokenize, \
generate and evaluate share the units of one output: each may die, be evicted or start again. Those of a training (Slurm only) run \
together.";

const SLURM_ABOUT: &str = "\
Write a batch script and submit it to Slurm.

tokenize, generate and evaluate become an array of tasks, trainings a job whose processes srun starts. A task drains before its time \
limit and is queued again, as is one whose exit code is 75 or whose node is lost. Exit code 42 cancels the tasks of the array that \
wait. The script is kept as slurm-ID.sh. What is exported here (credentials, RESTOK_… variables) Slurm passes on to the tasks; the \
script holds none of it.";

const SLURM_AFTER_HELP: &str = "\
Examples:
  ImageNet on at most 16 GPUs, eight hours at a time:
    restok submit slurm --partition gpu --gpus 1 --cpus 16 --memory 64G --time 08:00:00 --tasks 16 \\
      tokenize --source 's3://bucket/train-{0000..1023}.tar' --output s3://bucket/tokens \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k

  See the script first:
    restok submit slurm --tasks 16 --print tokenize --settings job.toml

  A training by eight processes:
    restok submit slurm --tasks 8 --gpus 1 --cpus 16 --time 24:00:00 --sbatch-option nodes=1 \\
      --sbatch-option ntasks-per-node=8 train-generator --source s3://bucket/tokens --output ./run

Options of the submission may stand under [submit.slurm] in the settings file. docs/many-machines.md is the guide.";

const KUBERNETES_ABOUT: &str = "\
Print the manifest of an indexed Job, for kubectl.

Exit code 42 fails the Job; a pod that is evicted, or whose exit code is 143, is replaced; one with another exit code is replaced \
--max-restarts times. What is exported here or written in a settings file is written into the manifest as options. Credentials never are: \
pods have them from a service account or a Secret.";

const KUBERNETES_AFTER_HELP: &str = "\
Examples:
  Eight pods with a GPU each, and credentials from the Secret bucket:
    restok submit kubernetes --image registry.example.com/restok:0.1.0 --completions 8 --gpus 1 \\
      --env-from-secret bucket tokenize --source 's3://bucket/train-{0000..1023}.tar' \\
      --output s3://bucket/tokens --tokenizer hf://xushu-me/restok_l_128.r256_in1k > job.yaml
    kubectl create -f job.yaml

Options of the submission may stand under [submit.kubernetes] in the settings file. docs/many-machines.md is the guide.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn options_in_errors_are_shown_as_flags_of_the_command_that_has_them() {
        let program = command();
        let told = "a and b would be one: use `image_id` position; `restok verify` and `nothing`, a ` and `layout`";
        for (command, expected) in [
            (
                "tokenize",
                "a and b would be one: use --image-id position; `restok verify` and `nothing`, a ` and `layout`",
            ),
            ("evaluate", told),
        ] {
            assert_eq!(with_flags(told, &program, command), expected);
        }
        assert_eq!(with_flags("`layout` folder", &program, "evaluate"), "--layout folder");
    }

    #[test]
    fn every_option_is_explained_and_has_a_variable_of_its_name() {
        let program = command();
        let within = program.get_subcommands().flat_map(clap::Command::get_subcommands);
        let commands = program.get_subcommands().chain(within).filter(|command| command.get_name() != WORKER);
        for command in commands {
            for option in command.get_arguments() {
                let id = option.get_id().as_str();
                assert!(option.get_help().is_some(), "{id} has no help");
                let expected = match (command.get_name(), id) {
                    // Said for one run, not for a machine.
                    ("reconstruct", "image_id") | ("slurm" | "kubernetes", "job") => None,
                    // The output is one thing under two names, and a page is not an output.
                    ("reconstruct", "tokens") => Some("RESTOK_OUTPUT".to_owned()),
                    ("report", "to") => Some("RESTOK_REPORT".to_owned()),
                    (_, id) => Some(variable(id)),
                };
                let found = option.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(found, expected, "{} {id}", command.get_name());
            }
        }
    }
}
