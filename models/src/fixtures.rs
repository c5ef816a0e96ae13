//! Where the fixtures of unit tests lie.

use std::path::PathBuf;

/// The file or folder `name` of tests/fixtures, which `RESTOK_TEST_FIXTURES` may name for a binary that runs away from its sources.
#[expect(clippy::disallowed_methods, reason = "a test has no settings but its environment")]
pub(crate) fn fixture(name: &str) -> PathBuf {
    let here = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"));
    std::env::var_os("RESTOK_TEST_FIXTURES").map_or_else(here, PathBuf::from).join(name)
}
