//! The folder of a run: checkpoints that are whole or absent, the best weights so far, and the finished ones.
//!
//! ```text
//! checkpoints/step-00005000/   config.json, model, ema and optimizer tensors, state.json: all that the next step depends on
//! best -> best-step-00004000/  the average of the weights with the best validation score, as others load it
//! tokenizer/ or generator/     the finished ones, with training.json: their settings and scores
//! metrics.csv, tensorboard/, sheets/
//! ```
//! Everything is written under another name and renamed when it is on the disk. One process at a time works in a folder.

use anyhow::{Context, Result, bail};
use models::Precision;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

const CHECKPOINTS: &str = "checkpoints";
const STATE_FILE: &str = "state.json";
const STEP_PREFIX: &str = "step-";
const BEST: &str = "best";
const BEST_PREFIX: &str = "best-step-";
/// What is not finished begins with this, and is cleared away at the next start.
const PARTIAL_PREFIX: &str = ".partial-";

/// What `state.json` says besides the tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State<P> {
    /// Version of this file.
    format: u32,
    /// Updates made.
    pub(crate) steps_done: u64,
    /// Where the data stands.
    pub(crate) position: P,
    /// The settings that must not change within a run.
    settings: serde_json::Value,
    /// What was changed in the middle of the run.
    #[serde(default)]
    changes: Vec<Change>,
    /// What it ran on last: the last bits of the weights depend on it.
    #[serde(default)]
    machine: String,
    best: Option<Best>,
}

/// Settings that a run was told to go on with although it had begun with others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Steps made before.
    after_step: u64,
    /// A line each.
    settings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    step: u64,
    score: f64,
    /// What it was scored on: scores on other images are not compared.
    #[serde(default)]
    validated_on: String,
}

/// Why a run folder cannot be used now; later it may be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunFolderError {
    /// Another process trains there.
    #[error("{} is in use by another process: a run is trained by one at a time", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// Something cannot be written: the disk is full, or gone.
    #[error("{} cannot be written", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: anyhow::Error,
    },
}

/// How the finished weights were trained, and what they score.
const ABOUT_FILE: &str = "training.json";
const FORMAT: u32 = 1;

/// The folder, open for one process.
#[derive(Debug)]
pub(crate) struct RunFolder {
    root: PathBuf,
    keep: usize,
    settings: serde_json::Value,
    changes: Vec<Change>,
    machine: String,
    best: Option<Best>,
    /// Held as long as this lives; the system lets go of it when the process dies.
    _lock: File,
}

impl RunFolder {
    /// Opens `root`, making it if need be. `settings` is what every checkpoint of the run must agree on.
    ///
    /// # Errors
    /// When the folder cannot be made, or another process works in it.
    pub(crate) fn open(root: &Path, keep: usize, settings: serde_json::Value) -> Result<Self> {
        let made = fs::create_dir_all(root.join(CHECKPOINTS));
        made.with_context(|| format!("{} cannot be made", root.join(CHECKPOINTS).display()))?;
        let path = root.join(".lock");
        let lock = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(RunFolderError::InUse { folder: root.to_owned() }.into());
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
            }
        }
        let folder = Self {
            root: root.to_owned(),
            keep,
            settings,
            changes: Vec::new(),
            machine: String::new(),
            best: None,
            _lock: lock,
        };
        folder.clear_partial(root)?;
        folder.clear_partial(&root.join(CHECKPOINTS))?;
        Ok(folder)
    }

    /// Notes on what the run goes on; says so if it is something else than before.
    fn compare_machine(then: &str, now: &str) {
        if !then.is_empty() && then != now {
            tracing::warn!(
                "the run was last on {then} and is now on {now}: it goes on well, but not with the very bits that it would have had"
            );
        }
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The newest checkpoint, if there is one: its folder and what its state says.
    ///
    /// # Errors
    /// When it does not read, or was made with other settings and `allow_other_settings` is not said; those that differ are named.
    pub(crate) fn newest<P: DeserializeOwned>(
        &mut self,
        allow_other_settings: bool,
        machine: &str,
    ) -> Result<Option<(PathBuf, State<P>)>> {
        self.machine = machine.to_owned();
        let Some((_, folder)) = self.checkpoints()?.pop() else { return Ok(None) };
        let file = folder.join(STATE_FILE);
        let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let state: State<P> = serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: this is no state of a run by this version; delete the checkpoint to go on from the one before",
                file.display()
            )
        })?;
        if state.format != FORMAT {
            bail!("{}: found format {}, expected {FORMAT}", file.display(), state.format);
        }
        self.best.clone_from(&state.best);
        Self::compare_machine(&state.machine, machine);
        self.changes.clone_from(&state.changes);
        let differences = differences(&state.settings, &self.settings);
        if !differences.is_empty() {
            let listed = differences.join("\n");
            if !allow_other_settings {
                bail!(
                    "{} holds a run with other settings:\n{listed}\nGo on with the settings it was begun with, train into another \
                     --output, or say --allow-other-settings",
                    self.root.display(),
                );
            }
            tracing::warn!("going on with other settings:\n{listed}");
            self.changes.push(Change { after_step: state.steps_done, settings: differences });
        }
        Ok(Some((folder, state)))
    }

    /// Writes a checkpoint that `fill` fills with tensors, whole or not at all, and clears away those that are too many.
    ///
    /// # Errors
    /// When it cannot be written; the checkpoints that are there stay.
    pub(crate) fn save<P: Serialize>(
        &mut self,
        steps_done: u64,
        position: P,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let name = format!("{STEP_PREFIX}{steps_done:08}");
        let folder = self.root.join(CHECKPOINTS);
        if folder.join(&name).exists() {
            return Ok(());
        }
        let state = State {
            format: FORMAT,
            steps_done,
            position,
            settings: self.settings.clone(),
            changes: self.changes.clone(),
            machine: self.machine.clone(),
            best: self.best.clone(),
        };
        place(&folder, &name, |partial| {
            fill(partial)?;
            Ok(fs::write(partial.join(STATE_FILE), serde_json::to_string_pretty(&state)? + "\n")?)
        })?;
        tracing::info!(step = steps_done, "checkpoint written");
        let all = self.checkpoints()?;
        for (_, old) in &all[..all.len().saturating_sub(self.keep)] {
            remove(old)?;
        }
        Ok(())
    }

    /// Keeps what `fill` writes if the score, which is better the lower it is or the higher, is the best of the run so far.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep_best(
        &mut self,
        step: u64,
        (score, lower_is_better): (f64, bool),
        validated_on: String,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let comparable = self.best.as_ref().filter(|best| best.validated_on == validated_on);
        let better = score.is_finite()
            && comparable.is_none_or(|best| match lower_is_better {
                true => score < best.score,
                false => score > best.score,
            });
        if !better {
            return Ok(());
        }
        let name = format!("{BEST_PREFIX}{step:08}");
        place(&self.root, &name, fill)?;
        // A link is replaced in one step; a folder is not.
        let (link, partial) = (self.root.join(BEST), self.root.join(format!("{PARTIAL_PREFIX}{BEST}")));
        std::os::unix::fs::symlink(&name, &partial)
            .and_then(|()| fs::rename(&partial, &link))
            .with_context(|| format!("{} cannot be written", link.display()))?;
        self.best = Some(Best { step, score, validated_on });
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let found = entry.file_name();
            if found.to_str().is_some_and(|found| found.starts_with(BEST_PREFIX) && found != name) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What a published folder says of the weights of `steps` updates, without their scores.
    fn about(&self, steps: u64, stored: Precision) -> serde_json::Value {
        serde_json::json!({
            "steps": steps,
            "settings": self.settings,
            "changes": self.changes,
            "weights": stored.to_string(),
        })
    }

    /// Whether the finished weights of `steps` updates are in the folder of this name.
    pub(crate) fn has_published(&self, (name, steps, stored): (&str, u64, Precision)) -> bool {
        let there = fs::read(self.root.join(name).join(ABOUT_FILE)).ok();
        let there = there.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        let about = self.about(steps, stored);
        let is_same = |there: serde_json::Value| {
            about.as_object().is_some_and(|about| about.iter().all(|(key, value)| there[key] == *value))
        };
        there.is_some_and(is_same)
    }

    /// Writes the finished weights of `steps` updates, and what they score, into a folder of this name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn publish(
        &self,
        (name, steps, stored): (&str, u64, Precision),
        scores: serde_json::Value,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let mut about = self.about(steps, stored);
        about["scores"] = scores;
        place(&self.root, name, |partial| {
            fill(partial)?;
            Ok(fs::write(partial.join(ABOUT_FILE), serde_json::to_string_pretty(&about)? + "\n")?)
        })
    }

    /// Step and folder of every checkpoint, oldest first.
    fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.root.join(CHECKPOINTS))? {
            let entry = entry?;
            let step = entry.file_name().to_str().and_then(|name| name.strip_prefix(STEP_PREFIX)?.parse().ok());
            found.extend(step.map(|step| (step, entry.path())));
        }
        found.sort();
        Ok(found)
    }

    fn clear_partial(&self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(PARTIAL_PREFIX)) {
                let path = entry.path();
                let cleared =
                    if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                cleared.with_context(|| format!("{} cannot be cleared away", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Fills a folder under another name, brings it to the disk, and gives it its own name; one that has the name already goes then.
fn place(parent: &Path, name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (partial, target) = (parent.join(format!("{PARTIAL_PREFIX}{name}")), parent.join(name));
    let written = (|| {
        fs::create_dir(&partial)?;
        fill(&partial)?;
        for entry in fs::read_dir(&partial)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&partial)?.sync_all()?;
        if target.exists() {
            remove(&target)?;
        }
        fs::rename(&partial, &target)?;
        File::open(parent)?.sync_all()?;
        Ok(())
    })();
    written.map_err(|source: anyhow::Error| {
        // A full disk needs the room more than anyone needs half of a checkpoint.
        drop(fs::remove_dir_all(&partial));
        RunFolderError::Write { path: target, source }.into()
    })
}

/// Removes a folder so that it is never seen half removed under its own name.
fn remove(folder: &Path) -> Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let going = folder.with_file_name(format!("{PARTIAL_PREFIX}removed-{name}"));
    fs::rename(folder, &going)
        .and_then(|()| fs::remove_dir_all(&going))
        .with_context(|| format!("{} cannot be removed", folder.display()))
}

/// Every setting that differs, a line each. Another number of processes may divide the same images of an update otherwise.
pub(super) fn differences(then: &serde_json::Value, now: &serde_json::Value) -> Vec<String> {
    const DIVISION: [&str; 3] = ["batch_size", "accumulation", "processes"];
    let processes = |of: &serde_json::Value| of["processes"].as_u64().unwrap_or(1);
    let images =
        |of: &serde_json::Value| Some(of["batch_size"].as_u64()? * of["accumulation"].as_u64()? * processes(of));
    let (mut then, mut now) = (then.clone(), now.clone());
    if processes(&then) != processes(&now) && images(&then).is_some() && images(&then) == images(&now) {
        for settings in [&mut then, &mut now].into_iter().filter_map(serde_json::Value::as_object_mut) {
            DIVISION.iter().for_each(|key| drop(settings.remove(*key)));
        }
    }
    let (then, now) = (&then, &now);
    fn collect(path: &str, then: &serde_json::Value, now: &serde_json::Value, found: &mut Vec<String>) {
        match (then, now) {
            (serde_json::Value::Object(left), serde_json::Value::Object(right)) => {
                let keys: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
                for key in keys {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    let absent = &serde_json::Value::Null;
                    collect(&path, left.get(key).unwrap_or(absent), right.get(key).unwrap_or(absent), found);
                }
            }
            // A setting that an older version did not have, and that says nothing.
            (serde_json::Value::Null, serde_json::Value::Object(empty)) if empty.is_empty() => {}
            (then, now) if then != now => found.push(format!("  {path}: {then} then, {now} now")),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect("", then, now, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_seventeen_digits_are_the_same_when_read_back() {
        // What the tiny preset's final rate becomes at a rate of 1e-5.
        let settings = serde_json::json!({ "end": 1e-5 * (5e-5 / 1.5e-3), "peak": 0.1 + 0.2 });
        let read = serde_json::from_str(&settings.to_string()).expect("JSON");
        assert_eq!(differences(&read, &settings), [""; 0]);
    }

    #[test]
    fn other_processes_may_divide_the_same_images_otherwise() {
        let of = |batch_size: u64, accumulation: u64, processes: Option<u64>| {
            let mut settings = serde_json::json!({ "batch_size": batch_size, "accumulation": accumulation, "seed": 1 });
            let object = settings.as_object_mut().expect("an object");
            object.extend(processes.map(|count| ("processes".to_owned(), count.into())));
            settings
        };
        let differ = |then, now| differences(&then, &now).len();
        assert_eq!(differ(of(4, 4, None), of(4, 2, Some(2))), 0);
        assert_eq!(differ(of(4, 2, Some(2)), of(8, 1, Some(2))), 2, "among as many, it is a choice");
        assert_eq!(differ(of(4, 4, None), of(4, 4, Some(2))), 1, "twice as many images");
        assert_eq!(differ(of(4, 4, None), of(8, 2, None)), 2);
    }
}
