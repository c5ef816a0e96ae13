//! Waiting in tests for what must come: without end nowhere, so that a hang says within a minute what was waited for.
//!
//! A test waits for an event, never for a length of time. The limit here only turns a hang into a failure, and is long enough for a
//! machine that has much else to do; nothing may depend on how long it is. `cargo nextest` has limits of its own
//! (`.config/nextest.toml`), which are longer, so that the words of these functions come first.

use futures::{
    FutureExt,
    future::{Either, select},
};
use std::{
    io::{Write, stderr},
    pin::pin,
    process::abort,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long a test waits for one thing. What is waited for takes milliseconds on a machine that is free.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Waits until `holds` says so, on a thread that may block.
///
/// # Panics
/// After [`PATIENCE`], with `what` was waited for.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{}", in_vain(what));
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// The same in a runtime, whose tasks go on meanwhile. The limit is one of the machine's clock, also where the runtime's is paused.
///
/// # Panics
/// As [`wait_until`].
pub async fn wait_until_async(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{}", in_vain(what));
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Waits for a future. The limit is one of the machine's clock, also where the runtime's is paused.
///
/// # Panics
/// As [`wait_until`].
pub async fn arrives<T>(what: &str, future: impl Future<Output = T>) -> T {
    arrives_within(PATIENCE, what, future).await
}

async fn arrives_within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let (expired, expiry) = oneshot::channel();
    // Ends the timer's thread when this future is done or dropped.
    let _armed = after(limit, move || {
        // Nobody listens when the future was done at that very instant.
        expired.send(()).ok();
    });
    match select(pin!(future), pin!(expiry.fuse())).await {
        Either::Left((value, _)) => value,
        Either::Right(_) => panic!("{}", in_vain(what)),
    }
}

/// Calls what blocks until it has its answer.
///
/// Nothing can make a thread return that is blocked, so that after [`PATIENCE`] the whole process is aborted, once standard error says
/// in which test `what` was waited for. Under `cargo nextest` a process is a test; under `cargo test` the other tests of the binary end
/// with it, and the reason is on the screen.
pub fn returns<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let what = what.to_owned();
    let _armed = after(PATIENCE, move || {
        // Not by a macro: what those print is kept by `cargo test` until the test ends, and this one does not.
        drop(writeln!(stderr(), "{test}: {}; the process is aborted", in_vain(&what)));
        abort();
    });
    work()
}

/// Calls `act` on another thread after `limit`, unless what is returned is dropped before.
fn after(limit: Duration, act: impl FnOnce() + Send + 'static) -> Sender<()> {
    let (armed, disarmed): (Sender<()>, Receiver<()>) = channel();
    thread::spawn(move || {
        if disarmed.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            act();
        }
    });
    armed
}

fn in_vain(what: &str) -> String {
    format!("waited {} seconds in vain for {what}", PATIENCE.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    /// A paused clock, in a runtime that has nothing to do, jumps over every sleep: the limit must not be one of that clock.
    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain for what never comes")]
    async fn a_future_that_never_comes_is_named() {
        arrives_within(Duration::from_millis(1), "what never comes", pending::<()>()).await;
    }

    #[tokio::test]
    async fn what_comes_is_handed_on() {
        assert_eq!(arrives("a number", async { 7 }).await, 7);
        assert_eq!(returns("a number", || 7), 7);
        let mut looks = 0..3;
        wait_until("the third look", || looks.next().is_none());
        let mut looks = 0..3;
        wait_until_async("the third look", || looks.next().is_none()).await;
    }
}
