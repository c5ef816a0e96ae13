//! The environment, as far as it is not an option's: each option has a variable of its own name (`settings::variable`).

/// The model hub's endpoint, as all of its clients read it.
pub(crate) const HF_ENDPOINT: &str = "HF_ENDPOINT";
/// The model hub's access token; without it, the token file that its login writes.
pub(crate) const HF_TOKEN: &str = "HF_TOKEN";
/// The model hub's folder, which holds the cache `hub/` and the token file.
pub(crate) const HF_HOME: &str = "HF_HOME";
/// The model hub's cache, when it is not `hub/` below [`HF_HOME`].
pub(crate) const HF_HUB_CACHE: &str = "HF_HUB_CACHE";
/// Set to `1` to use only what the cache holds.
pub(crate) const HF_HUB_OFFLINE: &str = "HF_HUB_OFFLINE";
/// Variables of OpenTelemetry that name a collector for metrics, the one that goes before the other first.
pub(crate) const OTLP_ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// What OpenTelemetry calls the program.
pub(crate) const OTEL_SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// What OpenTelemetry says of the program besides.
pub(crate) const OTEL_RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// The name of the machine, as shells set it.
pub(crate) const HOSTNAME: &str = "HOSTNAME";

/// The value of a variable; an empty one counts as absent, as shells and job templates leave them.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn lookup(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The name of this machine, or of the container that takes its place; `unknown` where the system does not say.
pub(crate) fn host_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let told = told.filter(|name| !name.is_empty()).or_else(|| lookup(HOSTNAME));
    told.unwrap_or_else(|| "unknown".to_owned())
}
