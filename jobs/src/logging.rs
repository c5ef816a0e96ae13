//! Log lines on standard error, as text or JSON, around progress bars.

use crate::settings::{LogFormat, SettingsError};
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging for the process; a second call is an error of the program and ignored.
///
/// `bars` are lifted out of the way while a line is written.
///
/// # Errors
/// When `level` is no level and no list of directives.
pub(crate) fn start(level: &str, format: LogFormat, bars: indicatif::MultiProgress) -> Result<(), SettingsError> {
    // `try_new` takes a mistyped level for the name of a crate and would log nothing at all.
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    let directives = level.split(',').map(str::trim);
    if directives.clone().any(|part| !part.contains('=') && !known.contains(&part.to_lowercase().as_str())) {
        return Err(wrong_level(level));
    }
    // Its own lines about attempts name neither the store nor the request; those of `pipeline` do.
    // Ahead of the operator's own directives, of which the last one counts.
    let at_info = directives.clone().any(|part| part.eq_ignore_ascii_case("info"));
    let quiet = if at_info { "object_store=warn," } else { "" };
    let filter = EnvFilter::try_new(format!("{quiet}{level}")).map_err(|_| wrong_level(level))?;
    let registry = tracing_subscriber::registry().with(filter);
    let writer = AroundBars { bars };
    let started = match format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(writer)
                    .with_target(false)
                    .with_ansi(io::stderr().is_terminal()),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer))
            .try_init(),
    };
    drop(started);
    Ok(())
}

fn wrong_level(level: &str) -> SettingsError {
    SettingsError::invalid(
        "--log-level",
        format!("{level:?}"),
        "off, error, warn, info, debug, trace, or directives such as info,pipeline=debug",
    )
}

/// Writes to standard error while the bars are away.
#[derive(Clone, Debug)]
struct AroundBars {
    bars: indicatif::MultiProgress,
}

impl Write for AroundBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AroundBars {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused() {
        for level in ["inof", "", "info,pipline:debug"] {
            let error = start(level, LogFormat::Text, indicatif::MultiProgress::new()).expect_err(level).to_string();
            assert!(error.contains("info,pipeline=debug"), "{error}");
        }
    }
}
