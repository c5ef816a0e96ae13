//! Options and settings of `restok submit`.

use super::{
    SettingsError,
    shared::{at_least_one, at_least_one_if_given, required},
};

const JOB: &str = "Job";
const RESOURCES: &str = "Resources of each task";
const WORK: &str = "Tasks";
const CLUSTER: &str = "Cluster";

/// Options of `restok submit slurm`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SlurmOptions {
    /// Job with its options: tokenize, generate, evaluate, train-tokenizer or train-generator.
    ///
    /// Everything from here on is the job's. Options of the submission stand before it.
    #[arg(value_name = "JOB", required = true, trailing_var_arg = true, help_heading = JOB)]
    pub(crate) job: Vec<String>,

    /// Number of tasks, which share the work.
    ///
    /// Defaults to one per unit, at most MaxArraySize of the cluster. Where only the job itself finds out how many units
    /// there are (evaluate, generate --decode-only), and for trainings, it must be given.
    #[arg(long, value_name = "COUNT", help_heading = WORK)]
    pub(crate) tasks: Option<u32>,
    /// Queue a task again that drained before its time limit, failed for a reason that may pass, or lost its node
    #[arg(long, help_heading = WORK, default_value = "true")]
    pub(crate) requeue: Option<bool>,
    /// Maximum number of times that a task is queued again
    #[arg(long, value_name = "COUNT", help_heading = WORK, default_value = "100")]
    pub(crate) max_restarts: Option<u32>,
    /// Drain this many seconds before the time limit; 0 does not
    #[arg(long, value_name = "SECONDS", help_heading = WORK, default_value = "120")]
    pub(crate) signal_seconds: Option<u32>,

    /// GPUs of a task (default: the cluster's)
    #[arg(long, value_name = "COUNT", help_heading = RESOURCES)]
    pub(crate) gpus: Option<u32>,
    /// CPU cores of a task (default: the cluster's)
    #[arg(long, value_name = "COUNT", help_heading = RESOURCES)]
    pub(crate) cpus: Option<u32>,
    /// Memory of a task, such as 64G (default: the cluster's)
    #[arg(long, value_name = "SIZE", help_heading = RESOURCES)]
    pub(crate) memory: Option<String>,
    /// Time limit of a task, such as 08:00:00 or 2-00 (default: the partition's)
    #[arg(long, value_name = "TIME", help_heading = RESOURCES)]
    pub(crate) time: Option<String>,

    /// Partition to run in (default: the cluster's)
    #[arg(long, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) partition: Option<String>,
    /// Account to charge (default: yours)
    #[arg(long, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) account: Option<String>,
    /// Name of the job (default: restok-JOB)
    #[arg(long, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) job_name: Option<String>,
    /// Any other option of sbatch, without its dashes, such as constraint=h100; may be repeated
    #[arg(long, value_name = "OPTION", help_heading = CLUSTER)]
    pub(crate) sbatch_option: Option<Vec<String>>,
    /// Print the script, and submit nothing
    #[arg(long, help_heading = CLUSTER, default_value = "false")]
    pub(crate) print: Option<bool>,
}

/// Settings of `restok submit slurm`.
#[derive(Clone, Debug)]
pub(crate) struct SlurmSettings {
    /// Tasks; `None` for one per unit.
    pub(crate) tasks: Option<u32>,
    /// Whether tasks are queued again.
    pub(crate) requeue: bool,
    /// How often at most.
    pub(crate) max_restarts: u32,
    /// How long before the time limit tasks drain; `None` for never.
    pub(crate) signal_seconds: Option<u32>,
    /// GPUs of a task.
    pub(crate) gpus: Option<u32>,
    /// Cores of a task.
    pub(crate) cpus: Option<u32>,
    /// The job's name.
    pub(crate) job_name: Option<String>,
    /// Options of sbatch that are passed on as they are, without dashes.
    pub(crate) options: Vec<String>,
    /// Whether to print the script alone.
    pub(crate) print: bool,
}

impl SlurmOptions {
    /// The settings.
    ///
    /// # Errors
    /// When a value cannot be, or an option of sbatch is one that the script sets itself.
    pub(crate) fn resolve(self) -> Result<SlurmSettings, SettingsError> {
        let mut options = Vec::new();
        for (name, value) in
            [("partition", self.partition), ("account", self.account), ("mem", self.memory), ("time", self.time)]
        {
            options.extend(value.map(|value| format!("{name}={value}")));
        }
        for option in self.sbatch_option.unwrap_or_default() {
            let option = option.trim_start_matches('-').to_owned();
            let name = option.split('=').next().unwrap_or_default();
            if !name.starts_with(|letter: char| letter.is_ascii_alphabetic()) {
                return Err(SettingsError::invalid(
                    "--sbatch-option",
                    format!("{option:?}"),
                    "such as constraint=h100",
                ));
            }
            // The long names and the short ones.
            let instead = match name {
                "array" | "a" | "ntasks" | "n" => "--tasks",
                "requeue" | "no-requeue" => "--requeue",
                "signal" => "--signal-seconds",
                "job-name" | "J" => "--job-name",
                _ => {
                    options.push(option);
                    continue;
                }
            };
            return Err(SettingsError::invalid(
                "--sbatch-option",
                format!("{option:?}"),
                format!("{instead} of restok"),
            ));
        }
        let is_more = |line: &&String| line.contains(['\n', '\r', '\0']);
        if let Some(line) = options.iter().chain(&self.job_name).find(is_more) {
            return Err(SettingsError::invalid("options of sbatch", format!("{line:?}"), "one line"));
        }
        Ok(SlurmSettings {
            tasks: at_least_one_if_given("--tasks", self.tasks)?,
            requeue: self.requeue == Some(true),
            max_restarts: self.max_restarts.unwrap_or_default(),
            signal_seconds: self.signal_seconds.filter(|seconds| *seconds > 0),
            gpus: at_least_one_if_given("--gpus", self.gpus)?,
            cpus: at_least_one_if_given("--cpus", self.cpus)?,
            job_name: self.job_name,
            options,
            print: self.print == Some(true),
        })
    }
}

/// Options of `restok submit kubernetes`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct KubernetesOptions {
    /// Job with its options: tokenize, generate or evaluate.
    ///
    /// Everything from here on is the job's. Options of the submission stand before it. Paths are those in the pod.
    #[arg(value_name = "JOB", required = true, trailing_var_arg = true, help_heading = JOB)]
    pub(crate) job: Vec<String>,

    /// Number of pods that share the work, at most 100,000.
    ///
    /// Defaults to one per unit. Where only the job itself finds out how many units there are (evaluate, generate
    /// --decode-only), it must be given.
    #[arg(long, value_name = "COUNT", help_heading = WORK)]
    pub(crate) completions: Option<u32>,
    /// Number of pods that run at the same time (default: all)
    #[arg(long, value_name = "COUNT", help_heading = WORK)]
    pub(crate) parallelism: Option<u32>,
    /// Maximum number of times that a pod is replaced after failures that may pass; evictions do not count
    #[arg(long, value_name = "COUNT", help_heading = WORK, default_value = "10")]
    pub(crate) max_restarts: Option<u32>,
    /// Seconds between SIGTERM and SIGKILL, in which a pod drains
    #[arg(long, value_name = "SECONDS", help_heading = WORK, default_value = "120")]
    pub(crate) grace_seconds: Option<u32>,

    /// NVIDIA GPUs of a pod (default: none)
    #[arg(long, value_name = "COUNT", help_heading = RESOURCES)]
    pub(crate) gpus: Option<u32>,
    /// CPU cores that a pod requests, such as 16 or 500m (default: the namespace's)
    #[arg(long, value_name = "QUANTITY", help_heading = RESOURCES)]
    pub(crate) cpu: Option<String>,
    /// Memory of a pod, request and limit, such as 64Gi (default: the namespace's)
    #[arg(long, value_name = "QUANTITY", help_heading = RESOURCES)]
    pub(crate) memory: Option<String>,

    /// Image that holds restok, as its entry point (Containerfile builds one)
    #[arg(long, value_name = "IMAGE", help_heading = CLUSTER)]
    pub(crate) image: Option<String>,
    /// Namespace (default: that of kubectl's context)
    #[arg(long, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) namespace: Option<String>,
    /// Name of the Job (default: restok-JOB)
    #[arg(long, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) name: Option<String>,
    /// Service account of the pods, for credentials of the cloud (default: the namespace's)
    #[arg(long, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) service_account: Option<String>,
    /// Secrets whose keys become environment variables of the pods, comma-separated; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = CLUSTER)]
    pub(crate) env_from_secret: Option<Vec<String>>,
    /// Persistent volume claims and where the pods see them, comma-separated; may be repeated
    #[arg(long, value_name = "NAME:PATH", value_delimiter = ',', help_heading = CLUSTER)]
    pub(crate) volume_claim: Option<Vec<String>>,
    /// Local queue of Kueue that admits the Job (default: none)
    #[arg(long, value_name = "NAME", help_heading = CLUSTER)]
    pub(crate) queue: Option<String>,
    /// Write a JobSet that holds the Job
    #[arg(long, help_heading = CLUSTER, default_value = "false")]
    pub(crate) job_set: Option<bool>,
}

/// A persistent volume claim in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeClaim {
    /// Name of the claim.
    pub(crate) name: String,
    /// Where the pod sees it.
    pub(crate) path: String,
}

/// Settings of `restok submit kubernetes`.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesSettings {
    /// The image.
    pub(crate) image: String,
    /// Pods; `None` for one per unit.
    pub(crate) completions: Option<u32>,
    /// Pods at the same time; `None` for all.
    pub(crate) parallelism: Option<u32>,
    /// How often a pod is replaced.
    pub(crate) max_restarts: u32,
    /// Between SIGTERM and SIGKILL.
    pub(crate) grace_seconds: u32,
    /// GPUs of a pod.
    pub(crate) gpus: Option<u32>,
    /// Cores of a pod.
    pub(crate) cpu: Option<String>,
    /// Memory of a pod.
    pub(crate) memory: Option<String>,
    /// The namespace.
    pub(crate) namespace: Option<String>,
    /// The Job's name.
    pub(crate) name: Option<String>,
    /// The service account.
    pub(crate) service_account: Option<String>,
    /// Names of Secrets.
    pub(crate) secrets: Vec<String>,
    /// Volumes.
    pub(crate) volume_claims: Vec<VolumeClaim>,
    /// Kueue's queue.
    pub(crate) queue: Option<String>,
    /// Whether the Job stands in a JobSet.
    pub(crate) job_set: bool,
}

/// Completions of an indexed Job above which Kubernetes asks for more than is written here, and can tell less.
const MOST_COMPLETIONS: u32 = 100_000;
/// Letters of a name, so that `NAME-workers-0-99999`, a pod's, has no more than the 63 of a host's.
const NAME_LETTERS: usize = 47;
/// Letters of other names.
const OTHER_LETTERS: usize = 253;

impl KubernetesOptions {
    /// The settings.
    ///
    /// # Errors
    /// When something needed is absent, or a value cannot be.
    pub(crate) fn resolve(self) -> Result<KubernetesSettings, SettingsError> {
        const SECTION: &str = "submit.kubernetes";
        let image = required(self.image, "image", "--image IMAGE", SECTION)?;
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(SettingsError::invalid(
                "--image",
                format!("{image:?}"),
                "such as registry.example.com/restok:0.1.0",
            ));
        }
        let claim = |text: String| {
            let expected = "NAME:/PATH, a claim's name and an absolute path, such as data:/data";
            let parts = text.split_once(':').filter(|(_, path)| path.starts_with('/') && !path.contains(':'));
            let (claim, path) =
                parts.ok_or_else(|| SettingsError::invalid("--volume-claim", format!("{text:?}"), expected))?;
            Ok(VolumeClaim { name: name("--volume-claim", claim, OTHER_LETTERS)?, path: path.to_owned() })
        };
        let named = |key, text: Option<String>, letters| text.map(|text| name(key, &text, letters)).transpose();
        let completions = at_least_one_if_given("--completions", self.completions)?;
        if let Some(found) = completions.filter(|completions| *completions > MOST_COMPLETIONS) {
            return Err(too_many_completions(u64::from(found)));
        }
        let secrets = self.env_from_secret.unwrap_or_default();
        Ok(KubernetesSettings {
            image,
            completions,
            parallelism: at_least_one_if_given("--parallelism", self.parallelism)?,
            max_restarts: self.max_restarts.unwrap_or_default(),
            grace_seconds: at_least_one("--grace-seconds", self.grace_seconds)?,
            gpus: at_least_one_if_given("--gpus", self.gpus)?,
            cpu: quantity("--cpu", self.cpu)?,
            memory: quantity("--memory", self.memory)?,
            namespace: named("--namespace", self.namespace, 63)?,
            name: named("--name", self.name, NAME_LETTERS)?,
            service_account: named("--service-account", self.service_account, OTHER_LETTERS)?,
            secrets: secrets
                .iter()
                .map(|secret| name("--env-from-secret", secret, OTHER_LETTERS))
                .collect::<Result<_, _>>()?,
            volume_claims: self
                .volume_claim
                .unwrap_or_default()
                .into_iter()
                .map(claim)
                .collect::<Result<_, SettingsError>>()?,
            queue: named("--queue", self.queue, 63)?,
            job_set: self.job_set == Some(true),
        })
    }
}

impl KubernetesSettings {
    /// The pods that share `units`.
    ///
    /// # Errors
    /// When there are more units than an indexed Job has completions.
    pub(crate) fn completions_for(units: u64) -> Result<u32, SettingsError> {
        let completions = u32::try_from(units).ok().filter(|completions| *completions <= MOST_COMPLETIONS);
        completions.map(|completions| completions.max(1)).ok_or_else(|| too_many_completions(units))
    }
}

fn too_many_completions(found: u64) -> SettingsError {
    let expected =
        format!("at most {MOST_COMPLETIONS}, the limit of an indexed Job; a pod takes as many units as it can");
    SettingsError::invalid("--completions", found.to_string(), expected)
}

/// A name of Kubernetes, of labels that dots part where it may be long.
fn name(key: &'static str, text: &str, letters: usize) -> Result<String, SettingsError> {
    let is_label = |label: &str| {
        let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
        label.starts_with(is_letter)
            && label.ends_with(is_letter)
            && label.chars().all(|letter| is_letter(letter) || letter == '-')
    };
    let fits = match letters {
        OTHER_LETTERS => text.split('.').all(is_label),
        _ => is_label(text),
    };
    if fits && text.len() <= letters {
        return Ok(text.to_owned());
    }
    let expected = format!("a name of at most {letters} lower-case letters, digits and '-' between them");
    Err(SettingsError::invalid(key, format!("{text:?}"), expected))
}

/// A quantity of Kubernetes.
fn quantity(key: &'static str, text: Option<String>) -> Result<Option<String>, SettingsError> {
    let fits = |text: &String| {
        let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let number = text.strip_suffix(unit).unwrap_or_default();
        number.parse::<f64>().is_ok_and(|number| number > 0.0)
            && ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&unit)
    };
    match text {
        Some(text) if !fits(&text) => {
            Err(SettingsError::invalid(key, format!("{text:?}"), "a quantity such as 16, 500m or 64Gi"))
        }
        text => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    fn slurm(line: &str) -> Result<SlurmSettings, SettingsError> {
        parsed::<SlurmOptions>(&format!("{line} tokenize")).resolve()
    }

    fn kubernetes(line: &str) -> Result<KubernetesSettings, SettingsError> {
        parsed::<KubernetesOptions>(&format!("{line} tokenize")).resolve()
    }

    #[test]
    fn what_stands_after_the_job_is_the_jobs() {
        let options: SlurmOptions = parsed("--tasks 3 tokenize --tasks 4 --source x");
        assert_eq!(options.job, ["tokenize", "--tasks", "4", "--source", "x"]);
        assert_eq!(options.tasks, Some(3));
    }

    #[test]
    fn options_of_sbatch_are_passed_on_but_for_those_that_the_script_sets() {
        let settings =
            slurm("--partition gpu --memory 64G --sbatch-option constraint=h100 --sbatch-option=--exclusive");
        assert_eq!(settings.expect("options").options, ["partition=gpu", "mem=64G", "constraint=h100", "exclusive"]);
        for (line, word) in [
            ("--sbatch-option array=0-9", "--tasks"),
            ("--sbatch-option=--signal=TERM@60", "--signal-seconds"),
            ("--sbatch-option =x", "constraint=h100"),
            ("--tasks 0", "--tasks"),
        ] {
            let error = slurm(line).expect_err(line).to_string();
            assert!(error.contains(word), "{error}");
        }
        let broken = SlurmOptions { account: Some("a\n#SBATCH --wrap=x".to_owned()), ..parsed("tokenize") };
        let error = broken.resolve().expect_err("two lines").to_string();
        assert!(error.contains("one line"), "{error}");
    }

    #[test]
    fn names_quantities_and_claims_are_those_of_kubernetes() {
        let settings =
            kubernetes("--image i --cpu 500m --memory 1.5Gi --volume-claim data:/data,b.c:/b --env-from-secret a");
        let settings = settings.expect("sound");
        let claim = |name: &str, path: &str| VolumeClaim { name: name.to_owned(), path: path.to_owned() };
        assert_eq!(settings.volume_claims, [claim("data", "/data"), claim("b.c", "/b")]);
        for (line, flag) in [
            ("", "--image"),
            ("--image i --name Restok", "--name"),
            ("--image i --name a.b", "--name"),
            ("--image i --namespace=-a", "--namespace"),
            ("--image i --queue a_b", "--queue"),
            ("--image i --cpu many", "--cpu"),
            ("--image i --cpu .", "--cpu"),
            ("--image i --memory 64GB", "--memory"),
            ("--image i --memory 0", "--memory"),
            ("--image i --volume-claim data", "--volume-claim"),
            ("--image i --volume-claim data:relative", "--volume-claim"),
            ("--image i --completions 100001", "--completions"),
            ("--image i --grace-seconds 0", "--grace-seconds"),
        ] {
            let error = kubernetes(line).expect_err(line).to_string();
            assert!(error.contains(flag), "{error}");
        }
        assert_eq!(KubernetesSettings::completions_for(100_000).expect("as many as may be"), 100_000);
        assert!(KubernetesSettings::completions_for(100_001).is_err());
    }
}
