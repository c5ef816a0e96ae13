//! `restok doctor`: what this machine has that restok uses, for the first run and for a bug report. Credentials by name, never by value.

use crate::{
    environment, hub,
    settings::{DoctorSettings, ReportFormat},
    workers::available_cores,
};
use anyhow::Result;
use models::{Device, DeviceChoice};
use pipeline::{Limits, ProcessRank, Reached};
use report::text::{bytes, count, counted, named};
use serde::Serialize;
use std::collections::BTreeMap;

/// Variables that hold credentials or say where they are, by what they are for. Only whether they are set is told.
const VARIABLES: [(&str, &[&str]); 5] = [
    (
        "AWS",
        &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "AWS_ENDPOINT",
            "AWS_ENDPOINT_URL",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_SKIP_SIGNATURE",
            "AWS_ALLOW_HTTP",
        ],
    ),
    (
        "Google",
        &["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "SERVICE_ACCOUNT"],
    ),
    (
        "Azure",
        &[
            "AZURE_STORAGE_ACCOUNT_NAME",
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_CLIENT_ID",
            "AZURE_CLIENT_SECRET",
            "AZURE_TENANT_ID",
            "AZURE_FEDERATED_TOKEN_FILE",
        ],
    ),
    (
        "model hub",
        &[
            environment::HF_TOKEN,
            environment::HF_ENDPOINT,
            environment::HF_HOME,
            environment::HF_HUB_CACHE,
            environment::HF_HUB_OFFLINE,
        ],
    ),
    (
        "proxy",
        &["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"],
    ),
];

/// What was found.
#[derive(Debug, Serialize)]
struct Findings {
    restok: &'static str,
    libtorch: String,
    libtorch_folder: Option<String>,
    decoders: &'static str,
    system: String,
    processors: usize,
    devices: Vec<FoundDevice>,
    /// Why there is no CUDA device, if there is none.
    no_cuda: Option<String>,
    /// Variables that are set, by what they are for.
    variables: BTreeMap<&'static str, Vec<&'static str>>,
    hub_cache: Option<String>,
    /// This process among those that would share an output.
    process: String,
    stores: Vec<FoundStore>,
}

#[derive(Debug, Serialize)]
struct FoundDevice {
    device: String,
    kind: String,
    memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct FoundStore {
    url: String,
    found: Option<String>,
    problem: Option<String>,
}

/// Looks, and prints what it found.
///
/// # Errors
/// The error of the first store that cannot be reached, after everything was printed.
pub(crate) async fn run(settings: DoctorSettings, limits: &Limits) -> Result<()> {
    let mut findings = look();
    if settings.format == ReportFormat::Text {
        // First: a store may take its time.
        crate::output::print(&text(&findings))?;
    }
    let mut first_error = None;
    let mut stores = Vec::new();
    for url in &settings.urls {
        let shown = pipeline::without_secrets(url);
        let (found, error) = match pipeline::reach(url, limits).await {
            Ok(reached) => (Some(told(&reached)), None),
            Err(error) => (None, Some(error)),
        };
        let store = FoundStore { url: shown, found, problem: error.as_ref().map(ToString::to_string) };
        if settings.format == ReportFormat::Text {
            crate::output::print(&line(&store))?;
        }
        stores.push(store);
        first_error = first_error.or(error);
    }
    findings.stores = stores;
    if settings.format == ReportFormat::Json {
        crate::output::print_json(&findings)?;
    }
    first_error.map_or(Ok(()), |error| Err(error.into()))
}

/// What an address answered with, in words.
fn told(reached: &Reached) -> String {
    match reached {
        Reached::Folder { objects: 0, cut_at: None } => "reached; there is nothing there".to_owned(),
        Reached::Folder { objects, cut_at: None } => format!("reached, {}", counted(*objects as u64, "object")),
        Reached::Folder { objects, cut_at: Some(listed) } => {
            format!("reached, {} among the first {}", counted(*objects as u64, "object"), count(*listed as u64))
        }
        Reached::File { uri, bytes: Some(size) } => format!("reached, {uri} has {}", bytes(*size)),
        Reached::File { uri, bytes: None } => format!("reached; there is no {uri}"),
    }
}

fn look() -> Findings {
    // CUDA first: torch decides at its first use whether it is there.
    let (cuda, no_cuda) = match models::initialise(&[DeviceChoice::AllCuda], None) {
        Ok(devices) => (devices, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let devices = std::iter::once(Device::Cpu).chain(cuda);
    let devices = devices.map(|device| FoundDevice {
        device: device.to_string(),
        kind: device.kind(),
        memory_bytes: models::memory_limit(device).ok(),
    });
    let devices: Vec<_> = devices.collect();
    let set =
        |names: &&[&'static str]| names.iter().copied().filter(|name| environment::lookup(name).is_some()).collect();
    Findings {
        restok: env!("CARGO_PKG_VERSION"),
        libtorch: models::libtorch_version(),
        libtorch_folder: models::libtorch_folder().map(|folder| folder.display().to_string()),
        decoders: pipeline::decoder_versions(),
        system: system(),
        processors: available_cores(),
        devices,
        no_cuda,
        variables: VARIABLES.iter().map(|(purpose, names)| (*purpose, set(names))).collect(),
        hub_cache: hub::HubSettings::from_environment().cache.map(|cache| cache.display().to_string()),
        process: ProcessRank::detect(None, None, environment::lookup)
            .map_or_else(|error| error.to_string(), |process| process.to_string()),
        stores: Vec::new(),
    }
}

/// Kernel and C library, as far as the system says.
fn system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let known = [name.unwrap_or(std::env::consts::OS), std::env::consts::ARCH, kernel.trim()];
    known.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
}

fn text(found: &Findings) -> String {
    let memory =
        |bytes_free: Option<u64>| bytes_free.map_or_else(String::new, |free| format!(", {} free", bytes(free)));
    let program = named(
        2,
        &[
            ("version", found.restok.to_owned()),
            (
                "libtorch",
                format!("{} in {}", found.libtorch, found.libtorch_folder.as_deref().unwrap_or("an unknown folder")),
            ),
            ("decoders", found.decoders.to_owned()),
        ],
    );
    let machine = named(
        2,
        &[
            ("system", found.system.clone()),
            ("processors", found.processors.to_string()),
            ("processes", found.process.clone()),
        ],
    );
    let mut devices: Vec<(&str, String)> = found
        .devices
        .iter()
        .map(|device| (device.device.as_str(), format!("{}{}", device.kind, memory(device.memory_bytes))))
        .collect();
    if let Some(problem) = &found.no_cuda {
        devices.push(("cuda", format!("none: {problem}")));
    }
    let devices = named(2, &devices);
    let mut variables: Vec<(&str, String)> = found
        .variables
        .iter()
        .map(|(purpose, names)| (*purpose, if names.is_empty() { "none".to_owned() } else { names.join(", ") }))
        .collect();
    variables.push(("hub cache", found.hub_cache.clone().unwrap_or_else(|| "none: no home folder".to_owned())));
    let variables = named(2, &variables);
    format!(
        "Program\n{program}Machine\n{machine}Devices\n{devices}Variables that are set (values are not shown)\n{variables}"
    )
}

/// What was found of a store, as a line.
fn line(store: &FoundStore) -> String {
    let found = store.problem.as_ref().map(|problem| format!("not reached: {problem}"));
    let found = found.or_else(|| store.found.clone()).unwrap_or_default();
    format!("{}\n  {found}\n", store.url)
}
