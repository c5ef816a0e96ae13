//! `restok`, built again beside the tests so that they run the code as it is now.

use std::process::ExitCode;

fn main() -> ExitCode {
    jobs::main()
}
