//! Signals, leaving at once, and where the process runs.

use crate::exit_code::ExitCode;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// What a command says when it is asked to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    /// What it still does after the first signal.
    finishing: &'static str,
    /// Where the same command goes on after the second.
    goes_on: &'static str,
    /// Whether it stops as well when the program that started it ends.
    with_parent: bool,
}

impl Stopping {
    /// Of a command that commits units.
    pub(crate) const TABLES: Self = Self {
        finishing: "finishing what is being committed, dropping the rest",
        goes_on: "from here",
        with_parent: false,
    };
    /// Of one whose units an engine hands out.
    pub(crate) const WORKER: Self = Self { with_parent: true, ..Self::TABLES };
    /// Of a command that trains.
    pub(crate) const TRAINING: Self = Self {
        finishing: "finishing this step and writing a checkpoint",
        goes_on: "from the last checkpoint",
        with_parent: false,
    };
}

/// Listens for SIGTERM and SIGINT as long as the returned task set lives: the first cancels `cancel`, the second leaves at once.
///
/// # Errors
/// When the system refuses a handler.
pub(crate) fn cancel_on_signals(cancel: CancellationToken, stopping: Stopping) -> std::io::Result<JoinSet<()>> {
    let Stopping { finishing, goes_on, with_parent } = stopping;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut listening = JoinSet::new();
    if with_parent {
        // A signal of its own: a parent that sends SIGTERM and ends has not asked twice.
        let mut parent_ended = signal(SignalKind::user_defined1())?;
        end_with_parent();
        let cancel = cancel.clone();
        listening.spawn(async move {
            parent_ended.recv().await;
            tracing::warn!("the program that started this one has ended: {finishing}");
            cancel.cancel();
        });
    }
    listening.spawn(async move {
        let name = either(&mut terminate, &mut interrupt).await;
        tracing::warn!("{name}: {finishing}; a second signal stops at once");
        cancel.cancel();
        let name = either(&mut terminate, &mut interrupt).await;
        crate::output::complain(&format!("{name} again: stopped at once; the same command goes on {goes_on}\n"));
        leave_at_once(ExitCode::Drained);
    });
    Ok(listening)
}

/// Has the system send SIGUSR1 when the thread that started this process ends, on Linux.
fn end_with_parent() {
    #[cfg(target_os = "linux")]
    #[expect(
        unsafe_code,
        reason = "PR_SET_PDEATHSIG takes a number and sets a flag of this process; a refusal changes nothing"
    )]
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Ends the process without running the destructors of libraries: a device thread may still be inside libtorch, and torn down
/// under it, libtorch crashes with a code of its own. Nothing that is written is
/// lost: tables are put whole, checkpoints are renamed into place, and output is flushed line by line.
pub(crate) fn leave_at_once(code: ExitCode) -> ! {
    #[expect(unsafe_code, reason = "_exit has no preconditions; it only ends the process")]
    unsafe {
        libc::_exit(code as i32)
    }
}
