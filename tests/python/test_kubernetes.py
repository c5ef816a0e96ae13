"""`restok submit kubernetes`: its manifests against the published schemas, and against a kubelet that is played here.

There is no cluster. What a pod sees and what becomes of its exit code is decided by the manifest alone: the test starts the container's
arguments with the variables that Kubernetes sets, and asks the failure policy as the Job controller does.
"""

import copy
import os
import signal
import subprocess
import time

import kubernetes_validate
import pytest
import yaml
from conftest import SAMPLES, SECONDS_TO_END, binary, restok

TOKENIZER = SAMPLES / "fashion-mnist" / "tokenizer"
IMAGE = "registry.example.com/restok:0.1.0"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RESTOK_")}
JOB = ["tokenize", "--source=s3://b/in", "--output=s3://b/out", "--tokenizer=hf://a/b"]
EVERYTHING = [
    *("--parallelism", 4, "--gpus", 1, "--cpu", "500m", "--memory", "64Gi", "--namespace", "images", "--name", "on"),
    *("--service-account", "restok", "--env-from-secret", "bucket,hub", "--volume-claim", "data:/data", "--queue", "night"),
]


def submit(options, job, code=0, **variables):
    command = [binary(), "submit", "kubernetes", "--image", IMAGE, *options, *job]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env={**ENVIRONMENT, **variables}, timeout=SECONDS_TO_END, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def manifest(*options, job=JOB, **variables):
    return yaml.safe_load(submit(["--completions", 8, *options], job, **variables).stdout)


def check(job):
    """Fails where the published schema of the newest Kubernetes is not met; unknown fields count."""
    kubernetes_validate.validate(job, "1.37", strict=True)


def job_of(job_set):
    """The Job that a controller makes of a JobSet."""
    (replicated,) = job_set["spec"]["replicatedJobs"]
    assert set(replicated) == {"name", "replicas", "template"} and replicated["replicas"] == 1
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": job_set["metadata"], **replicated["template"]}


@pytest.mark.parametrize("options", [[], EVERYTHING], ids=["least", "everything"])
def test_a_job_is_one_by_the_published_schema(options):
    job = manifest(*options)
    check(job)
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == 8


def test_a_job_set_holds_such_a_job():
    job_set = manifest(*EVERYTHING, "--job-set")
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(job_set["spec"]) == {"suspend", "replicatedJobs"}
    check(job_of(job_set))


def misspelt(job):
    """The job with one of its fields misspelt, for each field of it that has a schema."""

    def paths(value, path=()):
        entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in entries:
            # Names of resources and labels are free.
            if isinstance(key, str) and path[-1:] not in (("limits",), ("requests",), ("labels",)):
                yield *path, key
            yield from paths(inner, (*path, key))

    for path in paths({"metadata": job["metadata"], "spec": job["spec"]}):
        changed = copy.deepcopy(job)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1] + "x"] = parent.pop(path[-1])
        yield path, changed


def test_the_check_finds_every_misspelt_field():
    job = manifest(*EVERYTHING)
    found = 0
    for path, changed in misspelt(job):
        try:
            check(changed)
        except kubernetes_validate.ValidationError:
            found += 1
        else:
            pytest.fail(f"{'.'.join(map(str, path))} may be misspelt")
    assert found > 40


def test_what_is_set_here_and_unknown_to_pods_is_written_down(tmp_path):
    (tmp_path / "job.toml").write_text('[tokenize]\nunit-size = 64\n[submit.kubernetes]\ngpus = 2\n')
    job = manifest("--settings", tmp_path / "job.toml", job=[*JOB, "--batch-size", 16], RESTOK_SPLIT="night")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [*JOB, "--split=night", "--batch-size=16", "--unit-size=64", "--world-size=8"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}


def test_words_that_yaml_might_read_otherwise_stay_words():
    """YAML of another version has other words: what the parser of kubectl and this one read must be the words that were typed."""
    for word in ("no", "1_000", "a: b", "a #b"):
        job = manifest(job=["generate", "--generator=g", "--tokenizer=t", "--output=s3://b/o", "--count=8", f"--class-names={word}"])
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert f"--class-names={word}" in container["args"]
    for name in ("no", "y", "null", "0x1f", "1e3", "012"):
        job = manifest("--namespace", name, "--name", name, "--service-account", name, "--queue", name)
        read = job["metadata"]["name"], job["metadata"]["namespace"], job["spec"]["template"]["spec"]["serviceAccountName"]
        assert read == (name,) * 3 and job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == name


def test_what_no_pod_could_do_is_refused():
    signed = ["tokenize", "--source=https://h/a?sig=hush-hush", *JOB[2:]]
    for options, job, words in [
        # All without a number of pods: what is wrong is told before anything is counted.
        (["--completions", 100_001], JOB, ["--completions", "at most 100000"]),
        ([], ["tokenize", "--source=s3://b/in", "--output=out", "--tokenizer=t"], ["--output", "--volume-claim"]),
        ([], signed, ["credentials", "--env-from-secret"]),
        ([], [*JOB, "--world-size", "3"], ["--world-size"]),
        ([], ["evaluate", "--source=s3://b/in", "--output=s3://b/o", "--inception=i"], ["--completions", "evaluate"]),
        ([], ["train-generator", "--source=s3://b/in", "--output=o"], ["train-on-many-gpus"]),
        # Whatever of it is in a Secret.
        (["--completions", 2, "--env-from-secret", "s"], ["train-generator", "--output=o"], ["train-on-many-gpus"]),
    ]:
        done = submit(options, job, code=42)
        assert all(word in done.stderr for word in words) and "hush" not in done.stderr, done.stderr
    # In a Secret it is none of the manifest's.
    done = submit(["--completions", 2, "--env-from-secret", "s"], JOB[:1] + JOB[2:], RESTOK_SOURCE="https://h/a?sig=secret")
    assert "https://h" not in done.stdout and "secretRef" in done.stdout


class Kubelet:
    """Starts the pods of a Job, and decides about their ends as its controller does."""

    def __init__(self, job):
        self.spec = job["spec"]
        self.pod = self.spec["template"]["spec"]
        (self.container,) = self.pod["containers"]
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.kill()
            process.wait()

    def start(self, index):
        environment = {**ENVIRONMENT, "JOB_COMPLETION_INDEX": str(index)}
        process = subprocess.Popen([binary(), *self.container["args"]], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.running.append(process)
        return process

    def evict(self, process):
        """SIGTERM, and SIGKILL after the grace period, which is never needed."""
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=self.pod["terminationGracePeriodSeconds"])

    def action(self, code, conditions=()):
        """What becomes of a failed pod: the action of the first rule that fits, or else it counts."""
        for rule in self.spec["podFailurePolicy"]["rules"]:
            codes, on_conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
            if codes and codes["containerName"] == self.container["name"] and codes["operator"] == "In" and code in codes["values"]:
                return rule["action"]
            if on_conditions and any((on["type"], on["status"]) in conditions for on in on_conditions):
                return rule["action"]
        return "Count"


def test_exit_codes_have_the_actions_that_they_mean():
    kubelet = Kubelet(manifest())
    assert [kubelet.action(code) for code in (42, 75, 143, 101, 137)] == ["FailJob", "Count", "Ignore", "Count", "Count"]
    assert kubelet.action(137, conditions=[("DisruptionTarget", "True")]) == "Ignore"
    assert kubelet.pod["restartPolicy"] == "Never" and kubelet.spec["backoffLimitPerIndex"] == 10


def tokenize(output):
    return [
        *("tokenize", "--source", SAMPLES / "folder", "--output", output, "--tokenizer", TOKENIZER, "--crop", "adm-center-32"),
        *("--max-reject-rate", "10%", "--unit-size", 1, "--batch-size", 4, "--devices", "cpu", "--device-threads", 1),
    ]


def tables(output):
    files = {path.relative_to(output): path.read_bytes() for path in output.rglob("*.parquet")}
    assert files and (output / "_SUCCESS").exists()
    return files


def test_pods_that_are_evicted_and_run_twice_make_what_one_process_makes(tmp_path):
    restok(*tokenize(tmp_path / "alone"))
    output = tmp_path / "volume" / "tokens"
    # The claim lies where the pod would see it.
    options = ["--volume-claim", f"data:{tmp_path}/volume", "--grace-seconds", SECONDS_TO_END]
    job = yaml.safe_load(submit(options, tokenize(output)).stdout)
    check(job)
    # A pod for each unit; a few of them are enough.
    assert job["spec"]["completions"] == len(list((tmp_path / "alone").glob("tokens/*/*.parquet"))) > 30
    with Kubelet(job) as kubelet:
        evicted = kubelet.start(0)
        ends = time.monotonic() + SECONDS_TO_END
        while not list(output.glob("tokens/*/*.parquet")) and evicted.poll() is None:
            assert time.monotonic() < ends, "no unit is stored"
            time.sleep(0.005)
        code = kubelet.evict(evicted)
        # It was nearly done, or it drained; the same index runs again.
        assert code == 0 or (code == 143 and kubelet.action(code) == "Ignore")
        # Its node was thought lost, and is not: the index runs twice, beside another one.
        pods = [kubelet.start(0), kubelet.start(0), kubelet.start(1)]
        for pod in pods:
            _, said = pod.communicate(timeout=SECONDS_TO_END)
            assert pod.returncode == 0, said
    assert tables(output) == tables(tmp_path / "alone")


def test_a_permanent_error_fails_the_job(tmp_path):
    volume = tmp_path / "volume"
    job = manifest("--volume-claim", f"data:{volume}", job=[*map(str, tokenize(volume / "tokens"))])
    with Kubelet(job) as kubelet:
        kubelet.container["args"] = [word.replace(str(TOKENIZER), str(tmp_path / "none")) for word in kubelet.container["args"]]
        pod = kubelet.start(3)
        _, said = pod.communicate(timeout=SECONDS_TO_END)
        assert kubelet.action(pod.returncode) == "FailJob", said
