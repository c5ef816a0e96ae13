//! A job as a manifest of Kubernetes: an indexed Job, alone or in a JobSet.

use super::{
    Job,
    job::{Kind, refuse_credentials},
};
use crate::{
    exit_code::ExitCode,
    settings::{KubernetesSettings, SettingsError, ToldBy, VolumeClaim},
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

/// Name of the container, which the failure policy speaks of.
const CONTAINER: &str = "restok";
/// The group of the image's user (Containerfile), so that it may write to volumes.
const GROUP: u32 = 10001;

/// The manifest.
///
/// # Errors
/// As [`words`].
pub(super) fn manifest(settings: &KubernetesSettings, job: &Job, completions: u32) -> Result<String> {
    let mut args = words(settings, job)?;
    args.push(format!("--world-size={completions}"));
    let name = settings.name.clone().unwrap_or_else(|| format!("restok-{}", job.name));
    let labels = [("app.kubernetes.io/name", Some("restok")), ("kueue.x-k8s.io/queue-name", settings.queue.as_deref())];
    let labels = labels.into_iter().filter_map(|(label, value)| Some((label, value?.to_owned()))).collect();
    let metadata = Metadata { name, namespace: settings.namespace.clone(), labels };
    // Kueue starts it when there is room.
    let suspend = settings.queue.is_some().then_some(true);
    let spec = job_spec(settings, args, completions);
    let text = if settings.job_set {
        let jobs = vec![ReplicatedJob { name: "workers", replicas: 1, template: JobTemplate { spec } }];
        yaml(&Manifest {
            api_version: "jobset.x-k8s.io/v1alpha2",
            kind: "JobSet",
            metadata,
            spec: JobSetSpec { suspend, replicated_jobs: jobs },
        })
    } else {
        yaml(&Manifest { api_version: "batch/v1", kind: "Job", metadata, spec: JobSpec { suspend, ..spec } })
    };
    Ok(format!(
        "# Written by `restok submit kubernetes`; `kubectl create -f` starts it. docs/many-machines.md says how it behaves.\n{}",
        text?
    ))
}

fn yaml(manifest: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(manifest).context("the manifest cannot be written as YAML")
}

/// The job as the container's arguments. What the environment and the settings file say here, no pod knows: it is typed.
///
/// # Errors
/// When the job is none of independent processes, holds credentials, cannot be typed, or would leave its output in a pod.
pub(super) fn words(settings: &KubernetesSettings, job: &Job) -> Result<Vec<String>, SettingsError> {
    if job.kind == Kind::TrainsTogether {
        let expected = "tokenize, generate or evaluate; a training needs an operator that tells the pods where they meet \
                        (docs/train-on-many-gpus.md)";
        return Err(SettingsError::invalid("the job to submit", job.name.clone(), expected));
    }
    let mut words = vec![job.name.clone()];
    for told in &job.told {
        let secret = "put VARIABLE into a Secret, and name that in --env-from-secret; pods have it in their environment, and no \
                      manifest shows it";
        match refuse_credentials(told, secret) {
            // It is in the environment of the pods as it is in this one.
            Err(_) if told.by == ToldBy::Variable && !settings.secrets.is_empty() => continue,
            checked => checked?,
        }
        if told.is_untypable() {
            let found = format!("{} with a comma in one of its values", told.flag);
            return Err(SettingsError::invalid("the job to submit", found, "values that can be typed"));
        }
        if told.flag == "output" {
            let is_lost = |output: &&String| !is_kept(output, &settings.volume_claims);
            if let Some(output) = told.values.iter().find(is_lost) {
                let expected =
                    "a URL, or an absolute path below that of a --volume-claim: what is in a pod goes with it";
                return Err(SettingsError::invalid("--output", format!("{output:?}"), expected));
            }
        }
        words.extend(told.words());
    }
    Ok(words)
}

/// Whether what is written there outlives a pod.
fn is_kept(output: &str, claims: &[VolumeClaim]) -> bool {
    let path = match output.split_once("://") {
        Some(("file", path)) => path,
        Some((scheme, _)) => return scheme != "memory",
        None => output,
    };
    let path = Path::new(path);
    let climbs = path.components().any(|component| component == Component::ParentDir);
    !climbs && claims.iter().any(|claim| path.starts_with(&claim.path))
}

fn job_spec(settings: &KubernetesSettings, args: Vec<String>, completions: u32) -> JobSpec {
    let claims = settings.volume_claims.iter().enumerate();
    let volume = |number: usize| format!("claim-{number}");
    let limits = [("memory", settings.memory.clone()), ("nvidia.com/gpu", settings.gpus.map(|gpus| gpus.to_string()))];
    let requests = [("cpu", settings.cpu.clone()), ("memory", settings.memory.clone())];
    let container = Container {
        name: CONTAINER,
        image: settings.image.clone(),
        args,
        env_from: settings
            .secrets
            .iter()
            .map(|name| EnvFrom { secret_ref: Reference { name: name.clone() } })
            .collect(),
        resources: Resources { requests: given(requests), limits: given(limits) },
        volume_mounts: claims
            .clone()
            .map(|(number, claim)| VolumeMount { name: volume(number), mount_path: claim.path.clone() })
            .collect(),
    };
    let volumes: Vec<Volume> = claims
        .map(|(number, claim)| Volume {
            name: volume(number),
            persistent_volume_claim: ClaimReference { claim_name: claim.name.clone() },
        })
        .collect();
    JobSpec {
        suspend: None,
        completion_mode: "Indexed",
        completions,
        parallelism: settings.parallelism.unwrap_or(completions).min(completions),
        backoff_limit_per_index: settings.max_restarts,
        pod_failure_policy: PodFailurePolicy {
            rules: vec![
                // All pods share settings, plan and data: what is wrong for one is wrong for all. FailIndex would let the others fail one by
                // one, and the job seem to be under way.
                Rule::exit_code("FailJob", ExitCode::Permanent),
                // Evicted, preempted, its node lost: no fault of the job, however often.
                Rule {
                    action: "Ignore",
                    on_exit_codes: None,
                    on_pod_conditions: Some(vec![Condition { r#type: "DisruptionTarget", status: "True" }]),
                },
                // Told to stop in another way.
                Rule::exit_code("Ignore", ExitCode::Drained),
                // May pass, but not for ever: each failure delays the next attempt.
                Rule::exit_code("Count", ExitCode::Temporary),
            ],
        },
        template: PodTemplate {
            spec: PodSpec {
                restart_policy: "Never",
                termination_grace_period_seconds: settings.grace_seconds,
                service_account_name: settings.service_account.clone(),
                security_context: (!volumes.is_empty()).then_some(SecurityContext { fs_group: GROUP }),
                containers: vec![container],
                volumes,
            },
        },
    }
}

/// The quantities that somebody gave.
fn given<const COUNT: usize>(quantities: [(&'static str, Option<String>); COUNT]) -> BTreeMap<&'static str, String> {
    quantities.into_iter().filter_map(|(name, quantity)| Some((name, quantity?))).collect()
}

// The part of Kubernetes' objects that is written here. The schemas that they are checked against are in tests/python/test_kubernetes.py.

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<S> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    spec: S,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    labels: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JobSetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    suspend: Option<bool>,
    replicated_jobs: Vec<ReplicatedJob>,
}

#[derive(Debug, Serialize)]
struct ReplicatedJob {
    name: &'static str,
    replicas: u32,
    template: JobTemplate,
}

#[derive(Debug, Serialize)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JobSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    suspend: Option<bool>,
    completion_mode: &'static str,
    completions: u32,
    parallelism: u32,
    backoff_limit_per_index: u32,
    pod_failure_policy: PodFailurePolicy,
    template: PodTemplate,
}

#[derive(Debug, Serialize)]
struct PodFailurePolicy {
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_exit_codes: Option<OnExitCodes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_pod_conditions: Option<Vec<Condition>>,
}

impl Rule {
    fn exit_code(action: &'static str, code: ExitCode) -> Self {
        let codes = OnExitCodes { container_name: CONTAINER, operator: "In", values: vec![code as u8] };
        Self { action, on_exit_codes: Some(codes), on_pod_conditions: None }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OnExitCodes {
    container_name: &'static str,
    operator: &'static str,
    values: Vec<u8>,
}

#[derive(Debug, Serialize)]
struct Condition {
    r#type: &'static str,
    status: &'static str,
}

#[derive(Debug, Serialize)]
struct PodTemplate {
    spec: PodSpec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    restart_policy: &'static str,
    termination_grace_period_seconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    security_context: Option<SecurityContext>,
    containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    fs_group: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: &'static str,
    image: String,
    args: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env_from: Vec<EnvFrom>,
    resources: Resources,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EnvFrom {
    secret_ref: Reference,
}

#[derive(Debug, Serialize)]
struct Reference {
    name: String,
}

#[derive(Debug, Serialize)]
struct Resources {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    requests: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limits: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    mount_path: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    persistent_volume_claim: ClaimReference,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimReference {
    claim_name: String,
}

#[cfg(test)]
mod tests {
    use super::{
        super::job::tests::{job, job_of},
        *,
    };
    use crate::settings::KubernetesOptions;
    use clap::{Args, FromArgMatches};

    const TOKENIZE: &str = "tokenize --source s3://b/in --output s3://b/out --tokenizer hf://a/b";

    fn settings(line: &str) -> KubernetesSettings {
        let command = KubernetesOptions::augment_args(clap::Command::new("kubernetes").no_binary_name(true));
        let words = ["--image", "i"].into_iter().chain(line.split_whitespace()).chain(["tokenize"]);
        let matches = command.try_get_matches_from(words).expect("right arguments");
        KubernetesOptions::from_arg_matches(&matches).expect("options").resolve().expect("settings")
    }

    fn text(line: &str) -> String {
        manifest(&settings(line), &job(TOKENIZE).expect("a job"), 8).expect("a manifest")
    }

    #[test]
    fn the_manifest_is_what_was_reviewed() {
        let all = "--parallelism 4 --gpus 1 --cpu 16 --memory 64Gi --namespace n --name set --service-account a \
                   --env-from-secret s --volume-claim data:/data";
        insta::with_settings!({ omit_expression => true }, {
            insta::assert_snapshot!("job", text(all));
            insta::assert_snapshot!("job_set", text("--queue q --job-set=true"));
        });
    }

    #[test]
    fn kueue_starts_the_outermost_object() {
        let alone = text("--queue q");
        assert!(alone.contains("\n  suspend: true\n") && alone.contains("kueue.x-k8s.io/queue-name: q"), "{alone}");
        assert_eq!(text("--queue q --job-set=true").matches("suspend").count(), 1);
        assert!(!text("").contains("suspend") && !text("").contains("kueue"));
    }

    #[test]
    fn an_output_that_would_go_with_the_pod_is_refused() {
        let claims = settings("--volume-claim data:/data").volume_claims;
        for kept in ["s3://b/out", "/data/out", "file:///data/out", "/data"] {
            assert!(is_kept(kept, &claims), "{kept}");
        }
        for lost in ["out", "./data", "/database", "/data/../out", "file:///out", "memory:///out"] {
            assert!(!is_kept(lost, &claims), "{lost}");
        }
        let local = job("tokenize --source s --output out --tokenizer t").expect("a job");
        let error = manifest(&settings(""), &local, 1).expect_err("lost").to_string();
        assert!(error.contains("--output") && error.contains("--volume-claim"), "{error}");
    }

    #[test]
    fn credentials_are_in_no_manifest() {
        let words = ["tokenize", "--source", "https://h/a?sig=secret", "--output", "s3://b/o", "--tokenizer", "t"];
        let mut signed = job_of(&words).expect("a job");
        let error = manifest(&settings("--env-from-secret s"), &signed, 1).expect_err("typed").to_string();
        assert!(
            error.contains("RESTOK_SOURCE") && error.contains("--env-from-secret") && !error.contains("sig"),
            "{error}"
        );
        signed.told.iter_mut().for_each(|told| told.by = ToldBy::Variable);
        assert!(manifest(&settings(""), &signed, 1).is_err());
        let text = manifest(&settings("--env-from-secret s"), &signed, 1).expect("it comes with the Secret");
        assert!(!text.contains("https://h/a") && text.contains("--output=s3://b/o"), "{text}");
    }

    #[test]
    fn a_training_is_refused_with_where_to_read_on() {
        let training = job("train-generator --source s --output o").expect("a job");
        let error = manifest(&settings(""), &training, 2).expect_err("a training").to_string();
        assert!(error.contains("train-on-many-gpus"), "{error}");
    }
}
