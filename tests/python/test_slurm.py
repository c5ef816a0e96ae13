"""`restok submit slurm` with a real Slurm: arrays that end, a node that dies, a time limit, a cancelled job, and a training by `srun`.

The images come from a server of the test, which holds some of them back: that is how a test knows that a task is at work.
"""

import csv
import http.server
import io
import re
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
from conftest import CHECKOUT, SAMPLES, SECONDS_TO_END, binary, restok
from local_slurm import NODES, SECONDS_TO_ANSWER, Slurm, wait_for

SHARDS = 6
TOKENIZER = SAMPLES / "fashion-mnist" / "tokenizer"
CPU = ("--devices", "cpu", "--device-threads", 1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    reason = CHECKOUT / ".deps" / "no-slurm"
    if reason.exists():
        pytest.skip(reason.read_text().strip())
    with Slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def whole(request):
    """Every test begins with all nodes at work."""
    yield
    if "slurm" in request.fixturenames:
        cluster = request.getfixturevalue("slurm")
        cluster.run("scancel", "--user=root")
        for node, state in cluster.states().items():
            if state == "down":
                cluster.revive(node)
        wait_for("all nodes", lambda: cluster.states() == dict.fromkeys(NODES, "idle"), SECONDS_TO_ANSWER)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The sample's images in tar shards."""
    folder = tmp_path_factory.mktemp("shards")
    images = sorted(path for path in (SAMPLES / "folder").rglob("*") if path.is_file())
    classes = sorted({path.parent.name for path in images})
    for shard in range(SHARDS):
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as archive:
            for path in images[shard::SHARDS]:
                for name, data in [
                    (f"{path.stem}{path.suffix}", path.read_bytes()),
                    (f"{path.stem}.cls", str(classes.index(path.parent.name)).encode()),
                ]:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return folder


class Source(http.server.ThreadingHTTPServer):
    """Serves the shards; those that are held are not answered before they are let go."""

    daemon_threads = True

    def __init__(self, folder):
        self.free = {f"shard-{shard}.tar": threading.Event() for shard in range(SHARDS)}
        self.let_go()

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=folder)

            def do_GET(self):
                self.server.free[Path(self.path).name].wait()
                super().do_GET()

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except ConnectionError:
                    pass  # Whoever asked has been killed.

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/shard-{{0..{SHARDS - 1}}}.tar"

    def hold(self, shards):
        for shard in shards:
            self.free[f"shard-{shard}.tar"].clear()

    def let_go(self):
        for event in self.free.values():
            event.set()


@pytest.fixture(scope="module")
def server(shards):
    """One for all tests: its address is in every plan."""
    with Source(shards) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.let_go()
        server.shutdown()


@pytest.fixture
def source(server):
    yield server
    server.let_go()


def tokenize(source, output):
    return [
        *("tokenize", "--source", source.url, "--output", output, "--tokenizer", TOKENIZER, "--crop", "adm-center-32"),
        *("--max-reject-rate", "10%", "--unit-size", 4, "--batch-size", 4, *CPU),
    ]


@pytest.fixture(scope="module")
def expected(server, tmp_path_factory):
    """The tables of one process alone."""
    output = tmp_path_factory.mktemp("alone") / "tokens"
    restok(*tokenize(server, output))
    return tables(output)


def tables(output):
    """Every Parquet file of a finished output by its path."""
    files = {path.relative_to(output): path.read_bytes() for path in output.rglob("*.parquet")}
    assert files and (output / "_SUCCESS").exists()
    return files


def stored(output):
    """How many units are stored."""
    return len(list(output.glob("tokens/*/*.parquet")))


def run_submit(slurm, folder, options, job):
    environment = {name: value for name, value in slurm.environment.items() if not name.startswith("RESTOK_")}
    command = list(map(str, [binary(), "submit", "slurm", *options, *job]))
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS_TO_END, check=False
    )


class Submission:
    """A job of Slurm, submitted from a folder of its own."""

    def __init__(self, slurm, folder, options, job):
        self.slurm, self.folder = slurm, folder
        done = run_submit(slurm, folder, options, job)
        assert done.returncode == 0, done.stderr
        self.said = done.stdout
        self.id = re.search(r"job +(\d+),", self.said)[1]

    def tasks(self):
        return self.slurm.tasks(self.id)

    def ended(self):
        return self.slurm.ended(self.id, SECONDS_TO_END)

    def log(self):
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"slurm-{self.id}*.out")))

    def running(self, count):
        """Waits until so many tasks run, and gives them."""

        def running():
            self.slurm.hurry(self.id)
            tasks = [task for task in self.tasks() if task["JobState"] == "RUNNING"]
            return tasks if len(tasks) == count else None

        return wait_for(f"{count} running tasks of job {self.id}", running, SECONDS_TO_END)


@pytest.fixture
def submit(slurm, tmp_path):
    return lambda options, job: Submission(slurm, tmp_path, options, job)


def test_an_array_makes_what_one_process_makes(submit, source, expected, tmp_path):
    # As many tasks as units, which its dry run counts.
    job = submit(["--cpus", 1, "--time", 10], tokenize(source, tmp_path / "tokens"))
    tasks = job.ended()
    assert len(tasks) == len([path for path in expected if path.parts[0] == "tokens"])
    assert {task["JobState"] for task in tasks} == {"COMPLETED"}, job.log()
    assert tables(tmp_path / "tokens") == expected
    script = (tmp_path / f"slurm-{job.id}.sh").read_text()
    assert script == job.slurm.run("scontrol", "write", "batch_script", f"{job.id}_0", "-")
    assert f"scancel {job.id}" in job.said and "slurm-" in job.said


def test_tasks_of_a_dead_node_run_elsewhere(slurm, submit, source, expected, tmp_path):
    source.hold(range(2, SHARDS))
    job = submit(["--tasks", 3, "--cpus", 2], tokenize(source, tmp_path / "tokens"))
    running = job.running(3)
    wait_for("the first units", lambda: stored(tmp_path / "tokens") >= 1, SECONDS_TO_END)
    victim = running[0]
    dead = victim["BatchHost"]
    slurm.kill(dead)
    wait_for("the node is missed", lambda: slurm.states()[dead] == "down", SECONDS_TO_END)
    source.let_go()
    tasks = job.ended()
    assert {task["JobState"] for task in tasks} == {"COMPLETED"}, job.log()
    restarts = {task["ArrayTaskId"]: (int(task["Restarts"]), task["BatchHost"]) for task in tasks}
    times, host = restarts[victim["ArrayTaskId"]]
    assert times == 1 and host != dead
    assert sum(times for times, _ in restarts.values()) == 1
    assert tables(tmp_path / "tokens") == expected


def test_a_task_drains_before_its_time_limit_and_goes_on_later(submit, source, expected, tmp_path):
    source.hold(range(2, SHARDS))
    # Slurm counts in minutes and looks at limits every half a minute, so that the signal comes up to so much earlier.
    job = submit(["--tasks", 1, "--time", 1, "--signal-seconds", 15], tokenize(source, tmp_path / "tokens"))
    job.running(1)

    def queued_again():
        (task,) = job.tasks()
        return int(task["Restarts"]) == 1

    wait_for("the restart", queued_again, SECONDS_TO_END)
    source.let_go()
    (task,) = job.ended()
    assert task["JobState"] == "COMPLETED", job.log()
    assert tables(tmp_path / "tokens") == expected
    # What it said before is still there.
    assert "SIGTERM" in job.log() and "exit code 143; queued again, restart 1 of at most 100" in job.log()


def test_a_cancelled_task_drains_and_stays_cancelled(submit, source, expected, tmp_path):
    source.hold(range(2, SHARDS))
    job = submit(["--tasks", 1], tokenize(source, tmp_path / "tokens"))
    job.running(1)
    wait_for("the first units", lambda: stored(tmp_path / "tokens") >= 1, SECONDS_TO_END)
    job.slurm.run("scancel", job.id)
    (task,) = job.ended()
    assert (task["JobState"], task["Restarts"]) == ("CANCELLED", "0")
    wait_for("its last words", lambda: "ended by Slurm" in job.log(), SECONDS_TO_END)
    # One signal, and time to drain: a second one would have been told of.
    assert "SIGTERM" in job.log() and "stopped at once" not in job.log()
    source.let_go()
    restok(*tokenize(source, tmp_path / "tokens"))
    assert tables(tmp_path / "tokens") == expected


def test_a_permanent_error_ends_the_array(submit, source, tmp_path):
    wrong = [tmp_path / "not-there" if word == TOKENIZER else word for word in tokenize(source, tmp_path / "tokens")]
    job = submit(["--tasks", 8, "--cpus", 2], wrong)
    tasks = job.ended()
    failed = [task for task in tasks if task["JobState"] == "FAILED"]
    assert failed and {task["ExitCode"] for task in failed} == {"42:0"}
    assert {task["JobState"] for task in tasks} == {"FAILED", "CANCELLED"}
    assert {task["Restarts"] for task in tasks} == {"0"}
    assert "exit code 42 is permanent" in job.log() and "not-there" in job.log()


def test_processes_of_srun_train_together(submit, source, tmp_path):
    restok(*tokenize(source, tmp_path / "tokens"))

    def training(output):
        return [
            *("train-generator", "--preset", "tiny", "--source", tmp_path / "tokens", "--output", output, "--steps", 4),
            *("--classes", 6, "--global-batch-size", 8, "--batch-size", 4, "--save-every", 2, "--log-every", 1, "--device", "cpu", "--device-threads", 1),
        ]

    # One process on each of two nodes.
    job = submit(["--tasks", 2, "--cpus", 2], training(tmp_path / "two"))
    (task,) = job.ended()
    assert task["JobState"] == "COMPLETED" and task["NumNodes"] == "2", job.log()
    restok(*training(tmp_path / "one"))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def losses(output):
    with open(output / "metrics.csv", newline="") as table:
        return [float(line["loss"]) for line in csv.DictReader(table)]


def test_what_is_wrong_with_a_job_is_told_before_it_is_submitted(slurm, source, tmp_path):
    sound = [str(word) for word in tokenize(source, tmp_path / "tokens")]
    for options, job, words in [
        ([], ["tokenise"], ["tokenise"]),
        ([], [*sound, "--no-such-option"], ["--no-such-option"]),
        ([], [*sound, "--rank", "0", "--world-size", "2"], ["--rank"]),
        ([], ["tokenize", "--source", "in"], ["--output URL"]),
        (["--tasks", "21"], sound, ["--tasks", "at most 20, MaxArraySize"]),
        (["--tasks", "2", "--partition", "none"], sound, ["sbatch", "partition"]),
        (["--tasks", "2"], ["tokenize", "--source", "https://h/a?sig=secret", *sound[3:]], ["credentials", "RESTOK_SOURCE"]),
        # Without a number of tasks: what no task could do is told before units are counted.
        ([], ["tokenize", "--source", "https://h/a?sig=secret", *sound[3:]], ["credentials", "RESTOK_SOURCE"]),
        ([], [*sound, "--metrics-listen", "0.0.0.0:9400"], ["--metrics-listen", "port 0"]),
    ]:
        done = run_submit(slurm, tmp_path, options, job)
        assert done.returncode == 42, done.stderr
        assert all(word in done.stderr for word in words), done.stderr
        assert "secret" not in done.stderr
    assert not slurm.run("squeue", "--noheader").strip() and not list(tmp_path.glob("slurm-*"))
