//! Standard output: what a command was asked for, and nothing else. Logs and progress go to standard error.

use serde::Serialize;
use std::io::{self, Write};

/// Writes `text` to standard output.
///
/// # Errors
/// When standard output cannot be written. A reader that closed the pipe (`restok inspect … | head`) is no error: it has what
/// it wanted.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_to_reader(text)?;
    Ok(())
}

/// Writes `text` to standard output, and says whether anybody still reads it: for what would write on and on.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_to_reader(text: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes `value` to standard output as indented JSON.
///
/// # Errors
/// When it cannot be written as JSON, or standard output cannot be written.
pub(crate) fn print_json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Writes `text` to standard error, whatever the log level: for errors, and for what must be seen.
pub(crate) fn complain(text: &str) {
    // Nothing is left to tell it to when standard error itself is gone.
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// `error:` and a `caused by:` line for each cause that the line above does not already hold.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut above = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !above.contains(&cause) {
            text.push_str(&format!("  caused by: {cause}\n"));
            above = cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_error_already_tells_is_not_told_twice() {
        let error = anyhow::anyhow!("disk full").context("write part-00000: disk full").context("unit 0 failed");
        assert_eq!(describe(&error), "error: unit 0 failed\n  caused by: write part-00000: disk full\n");
    }
}
