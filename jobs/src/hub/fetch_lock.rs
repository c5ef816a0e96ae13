//! Of the processes that need the same repository, one fetches it into the cache, and the others wait for that.
//!
//! The hub's client has locks of its own, a file each, on which it waits for five seconds and then gives up. It also fetches again what another
//! process has fetched meanwhile.

use crate::environment;
use report::text::duration;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::Path,
    process,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Between two looks at whether the other process is done, and the longest wait for it: gigabytes over a slow line.
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Held while something of a repository is fetched. The system lets go of it when the process dies.
#[derive(Debug)]
pub(super) struct FetchLock {
    _file: File,
}

impl FetchLock {
    /// Waits until no other process fetches anything of `repository`, whose lock is this `file`. `None` on a file system without locks, and
    /// where the other one does not end: the client's own waiting must do then.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn wait(file: &Path, repository: &str) -> io::Result<Option<Self>> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)?;
        let mut waiting: Option<Instant> = None;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => {
                    tracing::debug!("{} cannot be locked: {error}", file.display());
                    return Ok(None);
                }
                Err(TryLockError::WouldBlock) => {}
            }
            let started = *waiting.get_or_insert_with(|| {
                let mut holder = String::new();
                // Whoever holds it may not have said so yet.
                drop(lock.read_to_string(&mut holder));
                tracing::warn!("hf://{repository}: {}: waiting for it", told(&holder, since_epoch()));
                Instant::now()
            });
            if started.elapsed() > PATIENCE {
                let waited = duration(started.elapsed().as_secs_f64());
                tracing::warn!("hf://{repository}: waited {waited} in vain: trying without");
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
        if let Some(started) = waiting {
            tracing::info!("hf://{repository}: waited {}", duration(started.elapsed().as_secs_f64()));
        }
        // For those who wait; that the disk has no room for it will show where the files are fetched.
        drop(write_holder(&mut lock));
        Ok(Some(Self { _file: lock }))
    }
}

/// Who fetches, and since when: what [`told`] reads.
fn write_holder(file: &mut File) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    let (process, since, host) = (process::id(), since_epoch().as_secs(), environment::host_name());
    file.write_all(format!("{process} {since} {host}\n").as_bytes())
}

/// A lock's file in words.
fn told(holder: &str, now: Duration) -> String {
    let mut words = holder.split_whitespace();
    match (words.next(), words.next().and_then(|since| since.parse().ok()), words.next()) {
        (Some(process), Some(since), Some(host)) => format!(
            "process {process} on {host} has been fetching it for {}",
            duration(now.saturating_sub(Duration::from_secs(since)).as_secs_f64()),
        ),
        _ => "another process is fetching it".to_owned(),
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_told_and_one_that_died_holds_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("models--owner--name/lock");
        drop(FetchLock::wait(&file, "owner/name").expect("a file").expect("a lock"));
        // What is left of it says who it was, and keeps nobody away.
        let held = FetchLock::wait(&file, "owner/name").expect("a file").expect("a lock");
        let said = fs::read_to_string(&file).expect("a file");
        let words = told(&said, since_epoch());
        assert!(
            words.starts_with(&format!("process {} on ", process::id())) && words.contains("fetching it for"),
            "{words}"
        );
        assert!(File::open(&file).expect("a file").try_lock().is_err(), "it is held");
        drop(held);
        assert!(File::open(&file).expect("a file").try_lock().is_ok());
    }

    #[test]
    fn how_long_it_was_held_follows_from_the_file() {
        let told = |holder| told(holder, Duration::from_secs(1_000));
        assert_eq!(told("7 900 node-3\n"), "process 7 on node-3 has been fetching it for 1 min 40 s");
        assert_eq!(told("7 1001 node-3\n"), "process 7 on node-3 has been fetching it for 0.0 s");
        // Whoever holds it has not said so yet, or was killed while it did.
        for torn in ["", "7 900"] {
            assert_eq!(told(torn), "another process is fetching it");
        }
    }
}
