//! Tokenizers from the model hub: `hf://owner/name[@revision]`.
//!
//! The hub's own client does the work, so that cache, endpoint and token are where all its other clients have them. A branch
//! is first resolved to the commit it points at, and all files are taken from that commit: a push between two downloads
//! cannot mix two versions. A commit that is in the cache already is not downloaded again, and of several processes one downloads.

mod fetch_lock;

use crate::environment;
use fetch_lock::FetchLock;
use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError},
};
use models::ModelError;
use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
};

/// The file of a model that is fetched first, because it is small: a wrong address costs no gigabyte.
const CONFIG: &str = "config.json";
/// The weights, if they are in one file.
const WEIGHTS: &str = "model.safetensors";
/// What says in which files they are if they are in several.
const SHARD_INDEX: &str = "model.safetensors.index.json";
/// What older repositories hold instead.
const PICKLED_WEIGHTS: &str = "pytorch_model.bin";
/// Branch of a repository when none is named.
const DEFAULT_REVISION: &str = "main";
/// Times that a broken download is taken up again where it broke.
const DOWNLOAD_RETRIES: usize = 5;

/// How to reach the hub.
#[derive(Clone)]
pub(crate) struct HubSettings {
    /// Where the hub is; its public address when absent.
    pub(crate) endpoint: Option<String>,
    /// Access token, for private and gated repositories.
    pub(crate) token: Option<String>,
    /// The cache; absent where there is no place for one.
    pub(crate) cache: Option<PathBuf>,
    /// Whether to use only what the cache holds.
    pub(crate) offline: bool,
}

impl std::fmt::Debug for HubSettings {
    /// Without the token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    /// From the environment variables that all clients of the hub read.
    pub(crate) fn from_environment() -> Self {
        let home = environment::lookup(environment::HF_HOME).map(PathBuf::from);
        // Where the hub's clients keep everything unless told otherwise; absent for a user without a home folder.
        let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("huggingface")));
        let hub = home.map(|home| home.join("hub"));
        Self {
            endpoint: environment::lookup(environment::HF_ENDPOINT)
                .map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            // The token file lies in the home, even where the cache is elsewhere.
            token: environment::lookup(environment::HF_TOKEN)
                .map(|token| token.trim().to_owned())
                .or_else(|| Cache::new(hub.clone()?).token()),
            cache: environment::lookup(environment::HF_HUB_CACHE).map(PathBuf::from).or(hub),
            offline: environment::lookup(environment::HF_HUB_OFFLINE)
                .is_some_and(|value| !matches!(value.to_lowercase().as_str(), "0" | "false" | "no" | "off")),
        }
    }
}

/// Why a repository of the hub cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// No such repository or revision, or a private one.
    #[error(
        "hf://{repository}: the hub at {endpoint} has no {file} at revision {revision} ({status}). Check owner, name and revision; \
         a private or gated repository needs HF_TOKEN"
    )]
    NotFound {
        /// `owner/name`.
        repository: String,
        /// Branch, tag or commit.
        revision: String,
        /// The file that was asked for.
        file: String,
        /// Where it was asked for.
        endpoint: String,
        /// What the hub answered.
        status: String,
    },
    /// Weights in Python's pickle format only.
    #[error(
        "hf://{repository}: has {PICKLED_WEIGHTS} but no model.safetensors, and restok reads no pickles. Convert it once, where \
         PyTorch is installed, and pass the folder as --tokenizer:\n  {command}"
    )]
    PickledWeights {
        /// `owner/name`.
        repository: String,
        /// The command that converts it.
        command: String,
    },
    /// Not in the cache, and the hub may not be asked.
    #[error(
        "hf://{repository}: not in the cache, and HF_HUB_OFFLINE is set: unset it, or pass a local folder as --tokenizer"
    )]
    Offline {
        /// `owner/name`.
        repository: String,
    },
    /// The hub cannot be reached or fails.
    #[error("hf://{repository}: {endpoint} failed on {file}: {problem}")]
    Unreachable {
        /// `owner/name`.
        repository: String,
        /// The file that was asked for.
        file: String,
        /// Where it was asked for.
        endpoint: String,
        /// What happened.
        problem: String,
    },
    /// The index of the shards does not read, or names what is no shard.
    #[error("hf://{repository}: {problem}")]
    Index {
        /// `owner/name`.
        repository: String,
        /// What is wrong with it.
        problem: ModelError,
    },
    /// A file came, but not as long as it should be.
    #[error("hf://{repository}: {file} has {found} bytes in the cache, the hub says {expected}; remove {} and try again", path.display())]
    Incomplete {
        /// `owner/name`.
        repository: String,
        /// The file.
        file: String,
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be.
        expected: u64,
        /// Where it lies.
        path: PathBuf,
    },
    /// The cache cannot be written.
    #[error("the hub's cache: {problem}; set HF_HOME to a folder that can be written")]
    Cache {
        /// What happened.
        problem: String,
    },
}

impl HubError {
    /// Whether the same command again may succeed.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Incomplete { .. })
    }
}

/// The local folder with the files of a repository, downloaded if the cache lacks them.
///
/// # Errors
/// When there is no such repository, revision or file, or the hub or the cache fails.
pub(crate) fn fetch(settings: &HubSettings, repository: &str, revision: Option<&str>) -> Result<PathBuf, HubError> {
    let revision = revision.unwrap_or(DEFAULT_REVISION);
    let no_place = || HubError::Cache { problem: "there is no home folder to keep it in".to_owned() };
    let cache = Cache::new(settings.cache.clone().ok_or_else(no_place)?);
    let hub = Hub::open(settings, &cache, repository, revision)?;
    if settings.offline {
        return hub.cached().ok_or_else(|| HubError::Offline { repository: repository.to_owned() });
    }
    let commit = match hub.commit() {
        Ok(commit) => commit,
        // A hub that is down does not stop who has the files; a wrong name does.
        Err(error) if error.is_temporary() => {
            return match hub.cached() {
                Some(folder) => {
                    tracing::warn!("{error}; using the cached files in {}", folder.display());
                    Ok(folder)
                }
                None => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    hub.fetch_commit(&commit)
}

/// One repository at one revision.
struct Hub<'a> {
    api: Api,
    cache: &'a Cache,
    endpoint: String,
    repository: &'a str,
    revision: &'a str,
    /// From the first file that must be fetched to the end; `None` where there are no locks.
    lock: OnceCell<Option<FetchLock>>,
}

impl<'a> Hub<'a> {
    fn open(
        settings: &HubSettings,
        cache: &'a Cache,
        repository: &'a str,
        revision: &'a str,
    ) -> Result<Self, HubError> {
        let endpoint = settings.endpoint.clone().unwrap_or_else(|| "https://huggingface.co".to_owned());
        let builder = ApiBuilder::from_cache(cache.clone())
            .with_progress(false)
            .with_retries(DOWNLOAD_RETRIES)
            .with_user_agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .with_endpoint(endpoint.clone())
            .with_token(settings.token.clone());
        let api = builder.build().map_err(|error| HubError::Cache { problem: error.to_string() })?;
        Ok(Self { api, cache, endpoint, repository, revision, lock: OnceCell::new() })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.repository.to_owned(), RepoType::Model, revision.to_owned())
    }

    /// The folder of the revision that the cache saw last, if it has all files.
    fn cached(&self) -> Option<PathBuf> {
        let repo = self.cache.repo(self.repo(self.revision));
        let folder = repo.get(CONFIG)?.parent()?.to_owned();
        has_weights(&folder).then_some(folder)
    }

    /// The commit that the revision points at now.
    fn commit(&self) -> Result<String, HubError> {
        let url = self.api.repo(self.repo(self.revision)).url(CONFIG);
        let metadata = self.api.metadata(&url).map_err(|error| self.explain(CONFIG, &error))?;
        let commit = metadata.commit_hash().to_owned();
        // It becomes a folder's name.
        match commit.is_empty() || !commit.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            true => Err(self.unreachable(CONFIG, format!("the hub names the commit {commit:?}"))),
            false => Ok(commit),
        }
    }

    fn fetch_commit(&self, commit: &str) -> Result<PathBuf, HubError> {
        let folder = self.cache.repo(self.repo(commit)).pointer_path(commit);
        self.fetch_file(CONFIG, commit)?;
        self.fetch_weights(commit)?;
        // So that the next start finds the commit by its branch even when the hub is down.
        self.cache
            .repo(self.repo(self.revision))
            .create_ref(commit)
            .map_err(|error| HubError::Cache { problem: error.to_string() })?;
        Ok(folder)
    }

    /// Fetches the one file of the weights, or where there is none, the index of the shards and what it names.
    fn fetch_weights(&self, commit: &str) -> Result<(), HubError> {
        let folder = self.cache.repo(self.repo(commit)).pointer_path(commit);
        // Asked for even where the index is in the cache: what a model is known by must not depend on what else was fetched here.
        match self.fetch_file(WEIGHTS, commit) {
            // A hub that fails now does not stop who has all shards of this commit.
            Err(error @ HubError::Unreachable { .. }) if has_weights(&folder) => {
                tracing::warn!("{error}; using the cached shards in {}", folder.display());
                return Ok(());
            }
            Err(missing @ HubError::NotFound { .. }) => match self.fetch_file(SHARD_INDEX, commit) {
                Err(HubError::NotFound { .. }) => return Err(self.explain_missing_weights(commit, missing)),
                fetched => fetched?,
            },
            fetched => return fetched,
        }
        let shards = models::shards_of_index(&folder.join(SHARD_INDEX))
            .map_err(|problem| HubError::Index { repository: self.repository.to_owned(), problem })?;
        shards.iter().try_for_each(|shard| self.fetch_file(shard, commit))
    }

    /// Fetches one file, unless the cache has it.
    fn fetch_file(&self, file: &str, commit: &str) -> Result<(), HubError> {
        let place = self.cache.repo(self.repo(commit)).pointer_path(commit).join(file);
        if place.exists() {
            return Ok(());
        }
        let api = self.api.repo(self.repo(commit));
        let metadata = self.api.metadata(&api.url(file)).map_err(|error| self.explain(file, &error))?;
        self.lock()?;
        if place.exists() {
            // Fetched by another process meanwhile.
            return Ok(());
        }
        tracing::info!("fetching {file} ({} bytes) of hf://{} at {commit}", metadata.size(), self.repository);
        let path = api.download(file).map_err(|error| self.explain(file, &error))?;
        let found = std::fs::metadata(&path).map_err(|error| HubError::Cache { problem: error.to_string() })?.len();
        if found != metadata.size() as u64 {
            return Err(HubError::Incomplete {
                repository: self.repository.to_owned(),
                file: file.to_owned(),
                found,
                expected: metadata.size() as u64,
                path: path.canonicalize().unwrap_or(path),
            });
        }
        Ok(())
    }

    /// Waits until no other process fetches into the repository's part of the cache, and keeps the others waiting until this is dropped.
    fn lock(&self) -> Result<(), HubError> {
        if self.lock.get().is_none() {
            // Beside the locks of Python's client, where no client looks for models.
            let folder = self.cache.path().join(".locks").join(self.repo(self.revision).folder_name());
            let lock = FetchLock::wait(&folder.join("restok.lock"), self.repository);
            let lock = lock.map_err(|error| HubError::Cache { problem: error.to_string() })?;
            self.lock.get_or_init(|| lock);
        }
        Ok(())
    }

    /// A repository without weights in safetensors may have them as a pickle, which has another remedy than `missing`.
    fn explain_missing_weights(&self, commit: &str, missing: HubError) -> HubError {
        let pickle = self.api.repo(self.repo(commit)).url(PICKLED_WEIGHTS);
        if self.api.metadata(&pickle).is_err() {
            return missing;
        }
        HubError::PickledWeights {
            repository: self.repository.to_owned(),
            command: conversion_command(self.repository, self.revision),
        }
    }

    fn explain(&self, file: &str, error: &ApiError) -> HubError {
        match status(error) {
            Some(code @ (401 | 403 | 404)) => HubError::NotFound {
                repository: self.repository.to_owned(),
                revision: self.revision.to_owned(),
                file: file.to_owned(),
                endpoint: self.endpoint.clone(),
                status: format!("status {code}"),
            },
            _ => match error {
                ApiError::IoError(error) => HubError::Cache { problem: error.to_string() },
                ApiError::LockAcquisition(path) => {
                    self.unreachable(file, format!("another process holds {}", path.display()))
                }
                error => self.unreachable(file, error.to_string()),
            },
        }
    }

    fn unreachable(&self, file: &str, problem: String) -> HubError {
        HubError::Unreachable {
            repository: self.repository.to_owned(),
            file: file.to_owned(),
            endpoint: self.endpoint.clone(),
            problem,
        }
    }
}

/// Whether a folder has the one file of the weights, or all shards of its index.
fn has_weights(folder: &Path) -> bool {
    folder.join(WEIGHTS).exists()
        || models::shards_of_index(&folder.join(SHARD_INDEX))
            .is_ok_and(|shards| shards.iter().all(|shard| folder.join(shard).exists()))
}

/// The status that the hub answered with, if it answered.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match error.as_ref() {
            ureq::Error::StatusCode(code) => Some(*code),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// A command that makes a local folder that restok reads from a repository with a pickle.
fn conversion_command(repository: &str, revision: &str) -> String {
    let folder = repository.rsplit('/').next().unwrap_or(repository);
    format!(
        "hf download {repository} {CONFIG} {PICKLED_WEIGHTS} --revision {revision} --local-dir {folder} && {}",
        models::pickle_conversion_command(
            &[&Path::new(folder).join(PICKLED_WEIGHTS)],
            &Path::new(folder).join(WEIGHTS),
        )
    )
}

#[cfg(test)]
mod tests;
