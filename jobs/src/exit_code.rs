//! How the program ends, for schedulers: whether the same command again may succeed.

use crate::{hub::HubError, settings::SettingsError, training::run_folder::RunFolderError};
use models::ModelError;
use pipeline::PipelineError;

/// The codes of the contract. A panic, which is a fault of the program, leaves with Rust's own 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// Done.
    Done = 0,
    /// Somebody must change something: settings, plan, data, checkpoint.
    Permanent = 42,
    /// Storage or a device failed; the same command again may succeed.
    Temporary = 75,
    /// Stopped by a signal after draining; the same command again goes on.
    Drained = 143,
}

/// What another program that was started reports: a scheduler, or this one with another command.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct OtherProgramError {
    /// What it reports, with its name.
    pub(crate) problem: String,
    /// What that means for who started it.
    pub(crate) code: ExitCode,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// The code for an error: that of the first cause that knows.
///
/// What nobody knows is permanent: a scheduler that tries again for ever is worse than one that asks.
pub(crate) fn of(error: &anyhow::Error) -> ExitCode {
    error.chain().find_map(of_cause).unwrap_or(ExitCode::Permanent)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<ExitCode> {
    let temporary = |temporary: bool| if temporary { ExitCode::Temporary } else { ExitCode::Permanent };
    if let Some(error) = cause.downcast_ref::<PipelineError>() {
        return Some(if error.is_drained() { ExitCode::Drained } else { temporary(error.is_temporary()) });
    }
    if let Some(error) = cause.downcast_ref::<HubError>() {
        return Some(temporary(error.is_temporary()));
    }
    if cause.downcast_ref::<RunFolderError>().is_some() {
        return Some(ExitCode::Temporary);
    }
    if let Some(error) = cause.downcast_ref::<ModelError>() {
        return Some(temporary(is_temporary(error)));
    }
    if let Some(error) = cause.downcast_ref::<OtherProgramError>() {
        return Some(error.code);
    }
    cause.downcast_ref::<SettingsError>().map(|_| ExitCode::Permanent)
}

/// Whether another attempt, perhaps on another machine, may mend it: a device that failed in use, yes; out of memory, no,
/// for the same batch would not fit again.
pub(crate) fn is_temporary(error: &ModelError) -> bool {
    // A process that was lost may be there at the next start.
    matches!(error, ModelError::ProcessGroup { .. } | ModelError::Torch { .. }) && !error.is_out_of_memory()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    fn code(error: impl Into<anyhow::Error>) -> ExitCode {
        of(&error.into())
    }

    #[test]
    fn each_kind_of_error_has_its_code() {
        let encoder =
            |temporary| PipelineError::Encoder { device: "cuda:0".to_owned(), problem: "lost".to_owned(), temporary };
        assert_eq!(code(PipelineError::Drained), ExitCode::Drained);
        assert_eq!(code(encoder(true)), ExitCode::Temporary);
        assert_eq!(code(encoder(false)), ExitCode::Permanent);
        assert_eq!(code(PipelineError::Stalled { seconds: 9, stages: String::new() }), ExitCode::Temporary);
        assert_eq!(code(SettingsError::invalid("--count", "0", "at least 1")), ExitCode::Permanent);
        assert_eq!(code(ModelError::Torch { message: "CUDA error: device lost".to_owned() }), ExitCode::Temporary);
        assert_eq!(code(ModelError::Torch { message: "CUDA out of memory".to_owned() }), ExitCode::Permanent);
        assert_eq!(code(HubError::Offline { repository: "a/b".to_owned() }), ExitCode::Permanent);
        let busy = OtherProgramError { problem: "sbatch: busy".to_owned(), code: ExitCode::Temporary };
        assert_eq!(code(busy), ExitCode::Temporary);
        assert_eq!(code(anyhow::anyhow!("anything")), ExitCode::Permanent);
    }

    #[test]
    fn context_does_not_hide_the_code() {
        let error: anyhow::Error = Err::<(), _>(PipelineError::Drained).context("unit 3").expect_err("an error");
        assert_eq!(of(&error), ExitCode::Drained);
    }

    #[test]
    fn numbers_are_those_of_the_contract() {
        let codes = [ExitCode::Done, ExitCode::Permanent, ExitCode::Temporary, ExitCode::Drained];
        assert_eq!(codes.map(|code| code as u8), [0, 42, 75, 143]);
    }
}
