//! Writes `fixtures/older` anew with the program that is named, one of an older version.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(program) = std::env::args().nth(1) else { return ExitCode::from(2) };
    tests::older::write(&program);
    ExitCode::SUCCESS
}
