//! Numbers of a run for a monitoring system: to fetch ([`prometheus`]), or pushed to it ([`open_telemetry`]).
//!
//! Nothing is counted for it: each fetch or push looks at the counters that progress and logs are made of. Where nobody asked for it,
//! nothing is looked at, and no connection is open.

mod open_telemetry;
mod prometheus;

use crate::settings::SettingsError;
use open_telemetry::Pushing;
use pipeline::{StageSnapshot, Telemetry};
use prometheus::Serving;
use schemas::RejectReason;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What there is to tell. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    run: Option<Run>,
    training: Option<Training>,
}

/// A run over units.
#[derive(Debug)]
struct Run {
    telemetry: Arc<Telemetry>,
    rank: u32,
    plan: String,
}

/// A training at its last logged step.
#[derive(Debug)]
struct Training {
    step: u64,
    steps: u64,
    values: Vec<(String, f64)>,
}

/// What a number is of: label and value.
type Labels = Vec<(&'static str, String)>;

/// One metric, with its numbers now.
#[derive(Debug)]
struct Metric {
    /// Without the `_total` that counters have behind it.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    values: Vec<(Labels, f64)>,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Up.
    Counter,
    /// Up and down.
    Gauge,
}

/// Tells a monitoring system until it is dropped.
#[derive(Debug)]
pub(crate) struct Exporting {
    _serving: Option<Serving>,
    _pushing: Option<Pushing>,
}

/// Numbers that every training has: column of `metrics.csv`, metric, what it is.
const OF_EVERY_TRAINING: [(&str, &str, &str); 6] = [
    ("epoch", "restok_training_epoch", "Epoch of the last batch"),
    ("images_seen", "restok_training_images_seen", "Images trained on"),
    ("images_rejected", "restok_training_images_rejected", "Images that could not be used"),
    ("learning_rate", "restok_training_learning_rate", "Learning rate"),
    ("images_per_second", "restok_training_images_per_second", "Images a second since the step that was logged before"),
    ("data_wait_share", "restok_training_data_wait_share", "Fraction of the time spent waiting for data, 0 to 1"),
];

impl Metrics {
    /// Shows a run from now on, in the place of one before. `plan` names what it makes, shortly.
    pub(crate) fn show_run(&self, telemetry: &Arc<Telemetry>, rank: u32, plan: &str) {
        self.lock().run = Some(Run { telemetry: Arc::clone(telemetry), rank, plan: plan.to_owned() });
    }

    /// Shows the numbers of a step of a training of `steps`. A number that this step does not have stays as it was.
    pub(crate) fn show_step(&self, step: u64, steps: u64, values: &[(&str, f64)]) {
        let mut shown = self.lock();
        let training = shown.training.get_or_insert_with(|| Training { step, steps, values: Vec::new() });
        (training.step, training.steps) = (step, steps);
        for (name, value) in values {
            match training.values.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => *known = *value,
                None => training.values.push(((*name).to_owned(), *value)),
            }
        }
    }

    /// Answers fetches at `listen` from now on, if that is given, and pushes to the collector that the environment names, if it does. To
    /// be called in a tokio runtime.
    ///
    /// # Errors
    /// When the address is not this machine's or its port is taken, or the collector's address is none.
    pub(crate) fn export(&self, listen: Option<SocketAddr>) -> Result<Exporting, SettingsError> {
        let serving = listen.map(|address| Serving::start(self.clone(), address)).transpose()?;
        Ok(Exporting { _serving: serving, _pushing: Pushing::start(self)? })
    }

    /// Every number, now.
    fn gather(&self) -> Vec<Metric> {
        let shown = self.lock();
        let mut metrics = shown.run.as_ref().map_or_else(Vec::new, Run::gather);
        metrics.extend(shown.training.iter().flat_map(Training::gather));
        metrics
    }

    /// The numbers of one metric, now; none where there is nothing to tell.
    fn values_of(&self, name: &str) -> Vec<(Labels, f64)> {
        self.gather().into_iter().find(|metric| metric.name == name).map_or_else(Vec::new, |metric| metric.values)
    }

    /// Every metric that there can be, with numbers of nothing.
    fn catalogue() -> Vec<Metric> {
        let run = Run { telemetry: Arc::new(Telemetry::new()), rank: 0, plan: String::new() };
        let values = OF_EVERY_TRAINING.map(|(column, ..)| (column.to_owned(), 0.0)).into();
        run.gather().into_iter().chain(Training { step: 0, steps: 0, values }.gather()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metric {
    fn counter(name: &'static str, help: &'static str, values: Vec<(Labels, f64)>) -> Self {
        Self { name, help, kind: Kind::Counter, values }
    }

    fn gauge(name: &'static str, help: &'static str, values: Vec<(Labels, f64)>) -> Self {
        Self { name, help, kind: Kind::Gauge, values }
    }
}

impl Run {
    fn gather(&self) -> Vec<Metric> {
        let snapshot = self.telemetry.snapshot();
        let own = || vec![("rank", self.rank.to_string()), ("plan", self.plan.clone())];
        let alone = |number: u64| vec![(own(), number as f64)];
        let with = |label: &'static str, value: &str| {
            let mut labels = own();
            labels.push((label, value.to_owned()));
            labels
        };
        let of_reasons = RejectReason::ALL.map(|reason| {
            (with("reason", reason.name()), snapshot.rejected.get(&reason).copied().unwrap_or_default() as f64)
        });
        let of_stages = |number: fn(&StageSnapshot) -> f64| {
            snapshot.stages.iter().map(|stage| (with("stage", stage.stage.name()), number(stage))).collect()
        };
        vec![
            Metric::gauge("restok_units", "Units of the plan", alone(snapshot.units_total)),
            Metric::gauge(
                "restok_units_complete",
                "Units of the output that are complete, as far as this process knows",
                alone(snapshot.units_done),
            ),
            Metric::gauge(
                "restok_units_in_work",
                "Units that this process works on",
                alone(snapshot.in_work.len() as u64),
            ),
            Metric::counter("restok_units_done", "Units that this process stored", alone(snapshot.units_here)),
            Metric::counter("restok_images_read", "Images that this process read", alone(snapshot.images_listed)),
            Metric::counter(
                "restok_images_written",
                "Images that this process encoded, or samples that it made",
                alone(snapshot.images_written),
            ),
            Metric::counter(
                "restok_images_rejected",
                "Images that this process rejected, by reason",
                of_reasons.into(),
            ),
            Metric::counter(
                "restok_stage_items",
                "Things that went through a stage",
                of_stages(|stage| stage.items as f64),
            ),
            Metric::counter(
                "restok_stage_busy_seconds",
                "Time that a stage was at work, summed over all that works at once in it",
                of_stages(|stage| stage.busy.as_secs_f64()),
            ),
            Metric::counter(
                "restok_stage_wait_seconds",
                "Time that a stage waited for another, summed likewise",
                of_stages(|stage| stage.wait.as_secs_f64()),
            ),
            Metric::gauge(
                "restok_stage_capacity",
                "Things that can be at work in a stage at once",
                of_stages(|stage| stage.capacity as f64),
            ),
        ]
    }
}

impl Training {
    fn gather(&self) -> Vec<Metric> {
        let alone = |number: f64| vec![(Labels::new(), number)];
        let mut metrics = vec![
            Metric::gauge("restok_training_step", "Steps made", alone(self.step as f64)),
            Metric::gauge("restok_training_steps", "Steps in all", alone(self.steps as f64)),
        ];
        let mut others = Vec::new();
        for (name, value) in &self.values {
            match OF_EVERY_TRAINING.iter().find(|(column, ..)| column == name) {
                Some((_, metric, help)) => metrics.push(Metric::gauge(metric, help, alone(*value))),
                None => others.push((vec![("name", name.clone())], *value)),
            }
        }
        let help = "Losses and other numbers of the last logged step, and scores of the last validation, by name";
        metrics.push(Metric::gauge("restok_training_scalar", help, others));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, time::Duration};

    /// A run and a training with every number that there can be.
    pub(super) fn everything() -> Metrics {
        let metrics = Metrics::default();
        let telemetry = Arc::new(Telemetry::new());
        telemetry.set_totals(10, 4, Some(1_000));
        telemetry.set_capacity(pipeline::Stage::Encode, 2);
        telemetry.record(pipeline::Stage::Encode, 32, 0, Duration::from_millis(1_500));
        metrics.show_run(&telemetry, 3, "0123456789ab");
        let common = OF_EVERY_TRAINING.map(|(column, ..)| (column, 0.5));
        metrics.show_step(20, 100, &common);
        metrics.show_step(30, 100, &[("loss", 1.25), ("validation_psnr", 21.0)]);
        metrics.show_step(40, 100, &[("loss", 1.0)]);
        metrics
    }

    fn value(metrics: &[Metric], name: &str, label: Option<&str>) -> Option<f64> {
        let metric = metrics.iter().find(|metric| metric.name == name)?;
        let is_it = |labels: &Labels| label.is_none_or(|label| labels.iter().any(|(_, value)| value == label));
        metric.values.iter().find(|(labels, _)| is_it(labels)).map(|(_, value)| *value)
    }

    #[test]
    fn numbers_are_those_of_the_counters_and_of_the_last_step_that_had_them() {
        let metrics = everything().gather();
        for (name, label, expected) in [
            ("restok_units", Some("0123456789ab"), 10.0),
            ("restok_units_complete", Some("3"), 4.0),
            ("restok_stage_items", Some("encode"), 32.0),
            ("restok_stage_busy_seconds", Some("encode"), 1.5),
            ("restok_stage_capacity", Some("encode"), 2.0),
            ("restok_images_rejected", Some("too_large"), 0.0),
            ("restok_training_step", None, 40.0),
            ("restok_training_learning_rate", None, 0.5),
            ("restok_training_scalar", Some("loss"), 1.0),
            ("restok_training_scalar", Some("validation_psnr"), 21.0),
        ] {
            assert_eq!(value(&metrics, name, label), Some(expected), "{name} {label:?}");
        }
        assert!(Metrics::default().gather().is_empty());
        let names = |metrics: &[Metric]| metrics.iter().map(|metric| metric.name).collect::<Vec<_>>();
        assert_eq!(names(&metrics), names(&Metrics::catalogue()));
    }

    /// Every word of a text that begins as our metrics do.
    fn named(text: &str) -> BTreeSet<&str> {
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        words.filter(|word| word.starts_with("restok_") && *word != "restok_").collect()
    }

    #[test]
    fn the_dashboard_and_the_guide_name_metrics_that_there_are() {
        let metrics = Metrics::catalogue();
        let names: BTreeSet<String> = metrics
            .iter()
            .map(|metric| match metric.kind {
                Kind::Counter => format!("{}_total", metric.name),
                Kind::Gauge => metric.name.to_owned(),
            })
            .collect();
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/grafana-dashboard.json")).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        let targets: Vec<&serde_json::Value> =
            panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten().collect();
        let expressions: Vec<&str> = targets.iter().filter_map(|target| target["expr"].as_str()).collect();
        assert!(expressions.len() == targets.len() && expressions.len() >= 8, "{expressions:?}");
        for expression in expressions {
            let found = named(expression);
            assert!(!found.is_empty(), "{expression}");
            assert_eq!(found.iter().find(|name| !names.contains(**name)), None, "{expression}");
        }
        let variables = dashboard["templating"]["list"].to_string();
        assert_eq!(named(&variables).iter().find(|name| !names.contains(**name)), None);
        // The guide names each of them.
        let guide = named(include_str!("../../../docs/watching.md"));
        let told: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(guide, told);
    }
}
