//! Writes the Inception network with random weights to the file that is named, for the tests in Python.

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(file) = std::env::args_os().nth(1).map(PathBuf::from) else { return ExitCode::from(2) };
    match tests::inception::save(&file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
