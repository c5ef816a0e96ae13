//! Opens the store that an address names, with our retries and timeouts and the cloud's own credentials.
//!
//! The only place of this crate that reads the environment: each builder's `from_env` takes the variables of its cloud
//! (`AWS_*`, `GOOGLE_*` and `SERVICE_ACCOUNT`, `AZURE_*`), and ignores those that it does not know.

use super::{
    address::Address,
    transport::{StoreClock, Transport},
};
use crate::Limits;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreScheme, Result, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    http::HttpBuilder,
    local::LocalFileSystem,
    memory::InMemory,
};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// One store for all `memory://` addresses of a process, so that what one part writes another can read.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(Arc::default);

/// Opens the store of `address`, and its clock. No request is made yet.
///
/// # Errors
/// When the store's builder refuses its settings: no region, credentials that do not parse.
pub(super) fn open_store(address: &Address, limits: &Limits) -> Result<(Arc<dyn ObjectStore>, StoreClock)> {
    let url = &address.secret_url;
    let transport = Transport::new(address.shown_url.as_str(), address.scheme == ObjectStoreScheme::Http);
    let clock = transport.clock();
    let store: Arc<dyn ObjectStore> = match address.scheme {
        // With fsync, a marker can never outlive the files that it vouches for.
        ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new().with_fsync(true)),
        ObjectStoreScheme::Memory => {
            let memory: Arc<InMemory> = Arc::clone(&MEMORY);
            memory
        }
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_retry(retry_config(limits))
                .with_http_connector(transport);
            let with =
                |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            Arc::new(timeouts(limits).into_iter().fold(builder, with).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retry_config(limits))
                .with_http_connector(transport);
            let with = |builder: GoogleCloudStorageBuilder, (key, value)| {
                builder.with_config(GoogleConfigKey::Client(key), value)
            };
            Arc::new(timeouts(limits).into_iter().fold(builder, with).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_retry(retry_config(limits))
                .with_http_connector(transport);
            let with =
                |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Arc::new(timeouts(limits).into_iter().fold(builder, with).build()?)
        }
        _ => {
            let options = timeouts(limits)
                .into_iter()
                .fold(ClientOptions::new(), |options, (key, value)| options.with_config(key, value));
            // Who writes http:// means it.
            let options = options.with_allow_http(url.scheme() == "http");
            // The store's own address is the host; a signed query goes with every request below it.
            let mut host = url.clone();
            host.set_path("/");
            let builder = HttpBuilder::new().with_url(host).with_client_options(options).with_http_connector(transport);
            Arc::new(builder.with_retry(retry_config(limits)).build()?)
        }
    };
    Ok((store, clock))
}

fn retry_config(limits: &Limits) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(limits.retry_pause_first_milliseconds),
            max_backoff: Duration::from_secs(limits.retry_pause_max_seconds),
            base: super::retry::PAUSE_GROWTH,
        },
        max_retries: limits.retry_attempts.saturating_sub(1),
        retry_timeout: Duration::from_secs(limits.retry_total_seconds),
    }
}

/// Timeouts as settings, so that whatever else the environment says of the client (proxy, plain HTTP) stays.
fn timeouts(limits: &Limits) -> [(ClientConfigKey, String); 3] {
    [
        (ClientConfigKey::ConnectTimeout, format!("{}s", limits.connect_timeout_seconds)),
        (ClientConfigKey::ReadTimeout, format!("{}s", limits.read_timeout_seconds)),
        // The library's 30 seconds for a whole body would kill slow ones that move; a silent one ends by the read timeout.
        // There is no word for "never" in a setting.
        (ClientConfigKey::Timeout, "365days".to_owned()),
    ]
}
