//! The command line: what can be typed, and the help that teaches it.

use crate::environment;
use crate::settings::{
    EvaluateOptions, FinalizeOptions, GeneralOptions, GenerateOptions, InspectOptions, LimitOptions,
    ReconstructOptions, ReportOptions, STORAGE_HEADING, SweepOptions, TokenizeOptions, TrainGeneratorOptions,
    TrainTokenizerOptions, VerifyOptions, WORK_HEADING, variable,
};
use clap::{Arg, ArgAction, Args, CommandFactory, Parser, Subcommand};
use std::any::TypeId;
use std::path::PathBuf;

/// Turns images in object storage into Parquet tables of visual tokens, and tables back into images; trains the tokenizer for it
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
    /// Read settings from this TOML file: a section for each command, `limits` and `general` for all; keys are flags
    /// without dashes. Flags win over environment variables, they over the file, the file over defaults
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    pub(crate) settings: Option<PathBuf>,
    /// Print the settings that would be used, and where each came from, as a settings file; then exit
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
    /// Turn images into tables of tokens
    #[command(long_about = TOKENIZE_ABOUT, after_help = TOKENIZE_AFTER_HELP)]
    Tokenize(Arguments<TokenizeOptions>),
    /// Train a tokenizer on images
    #[command(long_about = TRAIN_TOKENIZER_ABOUT, after_help = TRAIN_TOKENIZER_AFTER_HELP)]
    TrainTokenizer(Box<Arguments<TrainTokenizerOptions>>),
    /// Train a generator on tables of tokens
    #[command(long_about = TRAIN_GENERATOR_ABOUT, after_help = TRAIN_GENERATOR_AFTER_HELP)]
    TrainGenerator(Box<Arguments<TrainGeneratorOptions>>),
    /// Make class-conditional sets in bulk with a trained generator
    #[command(long_about = GENERATE_ABOUT, after_help = GENERATE_AFTER_HELP)]
    Generate(Box<Arguments<GenerateOptions>>),
    /// Make a small set at every point of a grid of sampling settings, and tabulate them
    #[command(long_about = SWEEP_ABOUT, after_help = SWEEP_AFTER_HELP)]
    Sweep(Box<Arguments<SweepOptions>>),
    /// Score a generated set or a tokenizer's reconstructions under a named protocol
    #[command(long_about = EVALUATE_ABOUT, after_help = EVALUATE_AFTER_HELP)]
    Evaluate(Box<Arguments<EvaluateOptions>>),
    /// Check that every unit of an output is there and whole, and close it
    #[command(long_about = FINALIZE_ABOUT, after_help = FINALIZE_AFTER_HELP)]
    Finalize(Arguments<FinalizeOptions>),
    /// Check an output against its books: sizes, digests, rows, ranges, uniqueness
    #[command(long_about = VERIFY_ABOUT, after_help = VERIFY_AFTER_HELP)]
    Verify(Arguments<VerifyOptions>),
    /// Show what is in an output: books, provenance, codebook use by level
    #[command(long_about = INSPECT_ABOUT, after_help = INSPECT_AFTER_HELP)]
    Inspect(Arguments<InspectOptions>),
    /// Turn tokens back into images: PNG files and a contact sheet
    #[command(long_about = RECONSTRUCT_ABOUT, after_help = RECONSTRUCT_AFTER_HELP)]
    Reconstruct(Arguments<ReconstructOptions>),
    /// Write one page about outputs, trainings, sweeps and scores, to look at and to hand on
    #[command(long_about = REPORT_ABOUT, after_help = REPORT_AFTER_HELP)]
    Report(Arguments<ReportOptions>),
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
    let names: Vec<String> = program.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        program = program.mut_subcommand(&name, |command| {
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
    if !matches!(option.get_action(), ArgAction::Set | ArgAction::Append) {
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
    let command = program.find_subcommand(command);
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
Turns images in object storage into Parquet tables of ResTok's hierarchical visual tokens, and tables back into images.

An image becomes 128 codes of 8,192, in levels of 1, 1, 2, 4, 8, 16, 32 and 64 tokens from coarse to fine. The tables are plain \
Parquet: DuckDB, Polars, pandas and Spark read them as they are. The tokenizer is a published checkpoint or one that \
`restok train-tokenizer` has trained.";

const AFTER_HELP: &str = "\
Examples:
  restok tokenize --source ./images --output ./tokens --tokenizer ./tokenizer
  restok inspect ./tokens
  restok reconstruct --tokens ./tokens --tokenizer ./tokenizer --to ./pictures

Exit codes:
  0    done
  42   permanent: bad settings, another plan in the output, too many rejects, damage
  75   temporary: storage or a device failed; the same command again may succeed
  143  stopped by SIGTERM or SIGINT after draining; the same command again goes on";

const TOKENIZE_ABOUT: &str = "\
Turn images into tables of tokens.

Lists the source once, freezes it as a plan, and works through it in units: fetch, decode, crop, encode, write. Each unit's files \
are put once and never overwritten, and a unit counts only when its marker is there. Killed at any instant and started again with \
the same command, on one machine or on many, the job ends with the same tables, byte for byte on the same kind of device. An image \
that cannot be read is a row with its reason in the images table, not the end of the job.";

const TOKENIZE_AFTER_HELP: &str = "\
Examples:
  A folder of classes, on this machine:
    restok tokenize --source ./images --output ./tokens --tokenizer ./tokenizer

  ImageNet in tar shards, two views an image, on all GPUs, with the published checkpoint:
    restok tokenize --source 's3://bucket/train-{0000..1023}.tar' --output s3://bucket/tokens \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k --crop adm-center-256-flip \\
      --precision bf16

  What would be done, without doing it:
    restok tokenize --settings job.toml --dry-run

  One of eight processes (Slurm, Kubernetes and torchrun are recognised without flags):
    restok tokenize --settings job.toml --rank 3 --world 8

Credentials come from each cloud's standard chain (AWS_*, GOOGLE_*, AZURE_* variables, instance roles) and are never printed; the \
model hub's from HF_TOKEN, HF_ENDPOINT and HF_HOME.

SIGTERM or Ctrl-C drains: what is being committed is committed, the rest is left for the next start (exit code 143). A second one \
stops at once. `restok tokenize --help` also shows the limits on storage and work.";

const TRAIN_TOKENIZER_ABOUT: &str = "\
Train a tokenizer on images.

Reads images from any source that `restok tokenize` reads, shuffled anew in every epoch, and trains the tokenizer of a preset or of a \
config.json with the published objective. The output folder holds checkpoints, metrics.csv, TensorBoard's event files, contact sheets, \
the best tokenizer so far by validation (best/) and in the end the trained one (tokenizer/), which `restok tokenize --tokenizer` takes.

A run that was stopped, killed or drained goes on with the same command; on a processor, with the same number of threads, it ends with \
the very weights of one that was not. A term of the objective whose frozen network has no file is an error; its \
weight 0 switches it off.";

const TRAIN_TOKENIZER_AFTER_HELP: &str = "\
Examples:
  A small tokenizer for images of 32 by 32 pixels, on a processor, without any frozen network:
    restok train-tokenizer --preset tiny --source './data/train-{000000..000005}.tar' \\
      --validation-source ./data/test-000000.tar --output ./run

  The published recipe on a GPU, in eight batches of 32 an update:
    restok train-tokenizer --source 's3://bucket/train-{0000..1023}.tar' --output ./run \\
      --validation-source 's3://bucket/validation-{00..63}.tar' --gradient-accumulation 8 \\
      --vgg16 vgg16.safetensors --lpips lpips.safetensors --dino dino.safetensors \\
      --foundation-model dinov3.safetensors

SIGTERM or Ctrl-C stops after the step with a checkpoint (exit code 143). docs/train-on-your-images.md goes through it all; \
docs/frozen-networks.md says where each frozen network is from.";

const TRAIN_GENERATOR_ABOUT: &str = "\
Train a generator on tables of tokens.

Reads the tokens tables of finished outputs of `restok tokenize`, where they lie, and trains the hierarchical autoregressive generator \
that `restok generate` draws with. Opening reads manifests only; where all codes fit --memory-bytes, each file is read once. An epoch sees \
every image in one of its views, drawn anew in each. The output folder holds checkpoints, metrics.csv, TensorBoard's event files, sheets of \
samples, the best generator so far by validation loss (best/) and in the end the trained one (generator/).

A run that was stopped, killed or drained goes on with the same command; on a processor, with the same number of threads, it ends with \
the very weights of one that was not.";

const TRAIN_GENERATOR_AFTER_HELP: &str = "\
Examples:
  The published recipe, on ImageNet in ten crops, in eight batches of 32 an update:
    restok train-generator --source s3://bucket/tokens/train --output ./run --classes 1000 \\
      --validation-source s3://bucket/tokens/validation --gradient-accumulation 8 \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k

  A small generator for images of 32 by 32 pixels, on a processor:
    restok train-generator --preset tiny --source ./tokens --output ./run --tokenizer ./tokenizer

SIGTERM or Ctrl-C stops after the step with a checkpoint (exit code 143). docs/train-a-generator.md goes through it all.";

const GENERATE_ABOUT: &str = "\
Make class-conditional sets in bulk with a trained generator.

Draws tokens and writes them as a table, and turns them into pictures: the evaluation archive samples.npz, PNG files, Parquet or \
tars. The work is planned, divided into units, committed and taken up again exactly as in `restok tokenize`: killed at any instant \
and started again, on one machine or on many, it ends with the same set. A sample follows from the seed and its number alone. \
Classes take turns, so that any part of the set is mixed.";

const GENERATE_AFTER_HELP: &str = "\
Examples:
  The set of the paper's gFID, to the letter:
    restok generate --generator hf://xushu-me/llamagen_l_c2i_restok_l_128.r256_in1k \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k --output ./samples --recipe paper

  A sheet to look at, ten samples of each of three classes:
    restok generate --generator ./generator --tokenizer ./tokenizer --classes 0,3,7 --grid sheet.png

  Tokens first, pictures later:
    restok generate --generator ./generator --tokenizer ./tokenizer --output ./tokens --count 10000 --pictures none
    restok generate --decode-only --tokens ./tokens --tokenizer ./tokenizer --output ./pictures --pictures npz,webdataset";

const SWEEP_ABOUT: &str = "\
Make a small set at every point of a grid of sampling settings, and tabulate them.

Every scale of guidance meets every schedule, every share of top-p and every temperature. Each point is an output of its own, \
as `restok generate` makes it, below --output; the networks are loaded once for all. Points that are finished are only read, so \
that the same command goes on where it was stopped. All points draw with the same seed: they differ by the grid alone.";

const SWEEP_AFTER_HELP: &str = "\
Examples:
  Twelve sets of a thousand samples:
    restok sweep --generator ./generator --tokenizer ./tokenizer --output ./sweep \\
      --guidance 1,2,3,4 --top-p 0.9,0.95,1";

const EVALUATE_ABOUT: &str = "\
Score a generated set or a tokenizer's reconstructions under a named protocol.

gfid-adm gives the numbers that papers call gFID, sFID, inception score, precision and recall; rfid those of reconstructions. Numbers of two \
protocols do not compare, and what breaks a protocol (another count, another size, a class-sorted order, JPEG files, a reference of unknown \
origin) is refused, or allowed by name and then said in the result.

What networks say of the images is committed in units below --output: killed at any instant and started again, on one machine or on many, \
the same command goes on. The result is printed, and is a line in --output/scores (Parquet) and in --output/scores.csv, with everything \
that made it.";

const EVALUATE_AFTER_HELP: &str = "\
Examples:
  The paper's gFID, of an output of restok generate:
    restok evaluate --source ./samples --reference VIRTUAL_imagenet256_labeled.npz \\
      --inception inception.safetensors --output ./evaluation

  Reconstructions of the validation set from 1, 16 and all 128 tokens:
    restok evaluate --protocol rfid --source 's3://bucket/validation-{00..63}.tar' --output ./evaluation \\
      --tokenizer hf://xushu-me/restok_l_128.r256_in1k --keep 1,16,128 --inception inception.safetensors

  A reference of your own images, and a small set scored against it:
    restok evaluate --make-reference ./cats.npz --source ./cats --crop adm-center-256 \\
      --inception inception.safetensors --output ./evaluation
    restok evaluate --source ./samples --reference ./cats.npz --allow count \\
      --inception inception.safetensors --output ./evaluation

docs/evaluating.md has the protocols rule by rule, and says where the networks are from.";

const FINALIZE_ABOUT: &str = "\
Check that every unit of an output is there and whole, and close it.

Checks every unit's marker against the store, writes _manifest.json and then _SUCCESS. `restok tokenize` does this by itself when \
the last unit is done, unless it ran with --no-finalize. Doing it twice changes nothing.";

const FINALIZE_AFTER_HELP: &str = "\
Example:
  restok finalize s3://bucket/tokens";

const VERIFY_ABOUT: &str = "\
Check an output against its books: sizes, digests, rows, ranges, uniqueness.

Reads every file of a finished or unfinished output and reports everything that is wrong, not only the first. Exits with 42 if \
anything is.";

const VERIFY_AFTER_HELP: &str = "\
Examples:
  restok verify ./tokens
  restok verify s3://bucket/tokens --fast --format json";

const INSPECT_ABOUT: &str = "\
Show what is in an output: books, provenance, codebook use by level.

Reads the tokens of a finished or unfinished output, unit by unit, and counts for each level how many codes of the codebook are used \
and their entropy in bits.";

const INSPECT_AFTER_HELP: &str = "\
Examples:
  restok inspect ./tokens
  restok inspect ./tokens --format json | jq .levels";

const RECONSTRUCT_ABOUT: &str = "\
Turn tokens back into images: PNG files and a contact sheet.

Decodes each image from its first 1, 2, 4 … tokens, so that the hierarchy can be seen: the first tokens hold the layout, the last \
the detail. The contact sheet shows the originals above, read again from the source through the same crop where it is still there.";

const RECONSTRUCT_AFTER_HELP: &str = "\
Examples:
  restok reconstruct --tokens ./tokens --tokenizer ./tokenizer --to ./pictures
  restok reconstruct --tokens ./tokens --tokenizer ./tokenizer --to ./pictures \\
    --image-id n01440764_10026 --keep 1,16,128";

const REPORT_ABOUT: &str = "\
Write one page about outputs, trainings, sweeps and scores, to look at and to hand on.

Takes, in any mixture, outputs of `restok tokenize` and `restok generate`, finished or not, folders of trainings, folders of \
`restok sweep`, results of evaluations and sheets of pictures (PNG), and writes one HTML file: what made them, books and rejects, how fast each stage was, use of \
the codebook by level, pictures, curves of trainings, scores. The file holds all that it shows: it opens from a disk, without a network.";

const REPORT_AFTER_HELP: &str = "\
Examples:
  restok report ./tokens
  restok report ./generator-run ./samples s3://bucket/sweep --to report.html";

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
        for command in command().get_subcommands() {
            for option in command.get_arguments() {
                let id = option.get_id().as_str();
                assert!(option.get_help().is_some(), "{id} has no help");
                let expected = match (command.get_name(), id) {
                    // Said for one run, not for a machine.
                    ("reconstruct", "image_id") => None,
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
