//! The endpoint that a Prometheus server fetches from.

use super::{Kind, Metric, Metrics};
use crate::settings::SettingsError;
use axum::{Router, http::header, routing::get};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use std::{fmt, io, net::SocketAddr, sync::Arc};
use tokio::{net::TcpListener, task::JoinSet};

/// What an answer holds: the text format of OpenMetrics, which Prometheus asks for first.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers fetches until it is dropped.
#[derive(Debug)]
pub(super) struct Serving {
    _answering: JoinSet<()>,
}

impl Serving {
    /// Answers fetches of `metrics` at `address` from now on.
    ///
    /// # Errors
    /// When the address is not this machine's, or its port is taken.
    pub(super) fn start(metrics: Metrics, address: SocketAddr) -> Result<Self, SettingsError> {
        let (listener, address) = listen(address).map_err(|error| {
            let found = format!("{address}: {error}");
            SettingsError::invalid("--metrics-listen", found, "an address of this machine, and a port that is free")
        })?;
        tracing::info!("metrics are served at http://{address}/metrics");
        Ok(Self::at(listener, metrics))
    }

    /// The same at a port that is open.
    fn at(listener: TcpListener, metrics: Metrics) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics));
        let registry = Arc::new(registry);
        let answer = move || {
            let mut text = String::new();
            let encoded = encode(&mut text, &registry).map_err(|error| error.to_string());
            async move { encoded.map(|()| ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)) }
        };
        let mut answering = JoinSet::new();
        answering.spawn(async move {
            if let Err(error) = axum::serve(listener, Router::new().route("/metrics", get(answer))).await {
                tracing::warn!(%error, "metrics are not served any more");
            }
        });
        Self { _answering: answering }
    }
}

/// Opens the port, and says which one it is.
fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Metric { name, help, kind, values } in self.gather() {
            let kind_of_format = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, kind_of_format)?;
            for (labels, value) in values {
                match kind {
                    Kind::Counter => {
                        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&value, None)?;
                    }
                    Kind::Gauge if labels.is_empty() => metric.encode_gauge(&value)?,
                    Kind::Gauge => metric.encode_family(&labels)?.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::everything, *};
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fetch_gets_every_metric_in_the_format_that_its_header_names() {
        let metrics = everything();
        let (listener, address) = listen("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let error = Serving::start(metrics.clone(), address).expect_err("the port is taken").to_string();
        assert!(error.contains("--metrics-listen") && error.contains(&address.to_string()), "{error}");
        let _serving = Serving::at(listener, metrics);
        let answer = tokio::task::spawn_blocking(move || {
            let mut connection = TcpStream::connect(address).expect("a connection");
            connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").expect("asked");
            let mut answer = String::new();
            connection.read_to_string(&mut answer).expect("an answer");
            answer
        })
        .await
        .expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(CONTENT_TYPE), "{answer}");
        for line in [
            "# TYPE restok_units gauge\n",
            "restok_units{rank=\"3\",plan=\"0123456789ab\"} 10.0\n",
            "# TYPE restok_images_rejected counter\n",
            "restok_images_rejected_total{rank=\"3\",plan=\"0123456789ab\",reason=\"corrupt\"} 0.0\n",
            "restok_stage_busy_seconds_total{rank=\"3\",plan=\"0123456789ab\",stage=\"encode\"} 1.5\n",
            "restok_training_step 40.0\n",
            "restok_training_scalar{name=\"validation_psnr\"} 21.0\n",
            "# EOF\n",
        ] {
            assert!(answer.contains(line), "{line:?} is not in:\n{answer}");
        }
    }
}
