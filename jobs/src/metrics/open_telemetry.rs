//! Metrics pushed to an OpenTelemetry collector, where and how often its own environment variables say.

use super::{Kind, Labels, Metrics};
use crate::{
    environment::{self, OTLP_ENDPOINTS},
    settings::SettingsError,
};
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, MeterProvider},
};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
};

/// What the metrics are of, where nobody says otherwise.
const SERVICE: &str = "restok";

/// Pushes until it is dropped, and once more then.
#[derive(Debug)]
pub(super) struct Pushing(SdkMeterProvider);

impl Pushing {
    /// Pushes `metrics` from now on; `None` where no variable names a collector.
    ///
    /// # Errors
    /// When a variable names none that can be.
    pub(super) fn start(metrics: &Metrics) -> Result<Option<Self>, SettingsError> {
        let named = OTLP_ENDPOINTS.into_iter().find_map(|name| Some((name, environment::lookup(name)?)));
        let Some((variable, collector)) = named else { return Ok(None) };
        // The first to install ciphers wins, and all of us install the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let exporter = MetricExporter::builder().with_http().build().map_err(|_| {
            let found = format!("{:?}", pipeline::without_secrets(&collector));
            SettingsError::invalid(variable, found, "the address of a collector, such as http://collector:4318")
        })?;
        let reader = PeriodicReader::builder(exporter).build();
        let provider = SdkMeterProvider::builder().with_reader(reader).with_resource(resource()).build();
        let meter = provider.meter(SERVICE);
        for metric in Metrics::catalogue() {
            let (metrics, name) = (metrics.clone(), metric.name);
            let observe = move |observer: &dyn AsyncInstrument<f64>| {
                for (labels, value) in metrics.values_of(name) {
                    observer.observe(value, &attributes(labels));
                }
            };
            // The meter keeps what it asks; the handles are for nothing else.
            match metric.kind {
                Kind::Counter => {
                    let counter = meter.f64_observable_counter(name).with_description(metric.help);
                    let _ = counter.with_callback(observe).build();
                }
                Kind::Gauge => {
                    let gauge = meter.f64_observable_gauge(name).with_description(metric.help);
                    let _ = gauge.with_callback(observe).build();
                }
            }
        }
        tracing::info!(collector = pipeline::without_secrets(&collector), "metrics are pushed");
        Ok(Some(Self(provider)))
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last metrics did not reach the collector");
        }
    }
}

/// What pushes: by the environment, and by us as far as that says nothing.
fn resource() -> Resource {
    let is_named = environment::lookup(environment::OTEL_SERVICE_NAME).is_some()
        || environment::lookup(environment::OTEL_RESOURCE_ATTRIBUTES)
            .is_some_and(|told| told.contains("service.name="));
    let resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{}:{}", environment::host_name(), std::process::id())),
    ]);
    if is_named { resource.build() } else { resource.with_service_name(SERVICE).build() }
}

fn attributes(labels: Labels) -> Vec<KeyValue> {
    labels.into_iter().map(|(label, value)| KeyValue::new(label, value)).collect()
}
