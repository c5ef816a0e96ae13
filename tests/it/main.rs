//! What must stay true across crates, one module a promise. Every test has a folder of its own and runs the program as an
//! operator would; no test depends on how long something takes.

/// Wrong settings, wrong data and broken machines: an error that says what to do, and exit code 42 or 75.
mod bad_settings;
/// The help of every command, the end report and `--show-settings`, word for word.
mod cli_help;
/// Scored sets beside each other: what compares, what does not and why, in every format.
mod compare;
/// CUDA asked for on a machine without it.
mod cuda_absent;
/// A tokens file with codes that no codebook has, and other damage: `verify` finds each.
mod damage;
/// What a machine has, and no secret of it.
mod doctor;
/// SIGTERM: what is being committed is committed, and the next start ends with the same bytes.
mod drain;
/// Scores: restarts, sharing, refusals, references, reconstructions, sweeps.
mod evaluate;
/// Disks that are full, outputs that cannot be written.
mod full_disk;
/// Generated sets: the same after any death and with any number of workers, tokens to pictures, sheets, sweeps.
mod generate;
/// Damaged weights and configurations: a model, or an error that names the file.
mod hostile_models;
/// Checkpoints from the model hub.
mod hub;
/// What an older version wrote: read, finished and gone on with.
mod older_versions;
/// The page about outputs, and the logs that runs leave for it.
mod report;
/// Killed twenty times at random instants: the tables of an undisturbed run, byte for byte.
mod resume_after_kill;
/// Flags over environment over file over defaults.
mod settings_precedence;
/// Addresses of web servers: signed URLs, servers that answer GET alone, servers that list nothing.
mod storage_addresses;
/// An S3 store that fails in every way it can: nothing lost, nothing twice.
mod storage_faults;
/// Images to tables to images, in three layouts.
mod tokenize_end_to_end;
/// Training a generator: exact resume, refusals, and a generator at its end.
mod train_generator;
/// Several processes train one network: as one would, with deaths and signals among them.
mod train_together;
/// Training: exact resume, whole checkpoints, refusals, and a tokenizer at its end.
mod train_tokenizer;
/// Two processes on one output.
mod two_writers;
/// A job over several workers, seen from outside: a look, heartbeats, metrics.
mod watch;
/// Units from an engine: the protocol of a worker.
mod worker;

use tests::workspace::Workspace;

fn workspace() -> Workspace {
    Workspace::new(env!("CARGO_BIN_EXE_restok-under-test"))
}
