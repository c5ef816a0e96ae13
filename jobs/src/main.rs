//! The binary `restok`. Everything is in the library, so that the tests across crates run the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobs::main()
}
