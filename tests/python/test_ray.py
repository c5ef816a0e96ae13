"""restok-ray on a real Ray cluster of three raylets on this machine: nodes die and come, the tables stay those of a plain run."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from conftest import CHECKOUT, SAMPLES, SECONDS_TO_END, binary, restok

RAY = CHECKOUT / ".deps" / "ray" / "bin"
CLOTHES = SAMPLES / "fashion-mnist"
# More units than three workers can have at the same time. One more image is broken.
IMAGES, UNIT_SIZE = 320, 8
UNITS = IMAGES // UNIT_SIZE + 1
NODES = 3


def environment():
    """A developer's own settings and Ray's token must not decide what is tested."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RESTOK_", "RAY_"))}
    return {**own, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class Cluster:
    """A cluster that ray_cluster.py keeps."""

    def __init__(self):
        self.process = subprocess.Popen(
            [RAY / "python", Path(__file__).with_name("ray_cluster.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        self.address = self._answer("address")
        self.nodes = []

    def add(self):
        self._order("add")
        self.nodes.append(self._answer("node"))

    def kill(self, node):
        self._order(f"kill {node}")
        self.nodes.remove(node)
        assert self._answer("killed") == node

    def _order(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def _answer(self, field):
        for line in self.process.stdout:
            # Ray has words of its own for standard output.
            with contextlib.suppress(ValueError):
                return json.loads(line)[field]
        raise AssertionError(f"the cluster ended before it said its {field}: {self.process.wait()}")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_END)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def cluster():
    reason = CHECKOUT / ".deps" / "no-ray"
    if reason.exists():
        pytest.skip(reason.read_text().strip())
    if not (RAY / "restok-ray").exists():
        pytest.skip("Ray is not set up: run `make setup-ray`")
    cluster = Cluster()
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def nodes(cluster):
    """The cluster with as many nodes as every test begins with."""
    while len(cluster.nodes) < NODES:
        cluster.add()
    return cluster


class Run:
    """restok-ray until the end of the block; what it says on standard error can be awaited."""

    def __init__(self, cluster, *words):
        self.command = [RAY / "python", "-m", "restok_ray", "--address", cluster.address, "--restok", binary(), "--format", "json"]
        self.command += ["--progress-seconds", "1", *words]

    def __enter__(self):
        self.said = tempfile.NamedTemporaryFile("w+")
        self.process = subprocess.Popen(
            list(map(str, self.command)), stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment(), start_new_session=True
        )
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.said.close()

    def log(self):
        return Path(self.said.name).read_text()

    def until(self, condition, what):
        """Waits for it, and returns it."""
        deadline = time.monotonic() + SECONDS_TO_END
        while not (found := condition()):
            assert self.process.poll() is None, f"it ended before {what}:\n{self.log()}"
            assert time.monotonic() < deadline, f"no {what} within {SECONDS_TO_END} s:\n{self.log()}"
            time.sleep(0.01)
        return found

    def end(self):
        """Its exit code, and the summary among the lines that it printed."""
        output, _ = self.process.communicate(timeout=SECONDS_TO_END)
        *lines, summary = output.splitlines()
        return self.process.returncode, json.loads(summary), lines

    def finished(self):
        code, summary, lines = self.end()
        assert code == 0, self.log()
        return summary, lines


def workers_of(output):
    """Processes of `restok worker` for that output, wherever they run, and their parents, which are actors."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"worker" in words and str(output).encode() in words:
                found[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def no_worker_is_left(output):
    deadline = time.monotonic() + SECONDS_TO_END
    while left := workers_of(output):
        assert time.monotonic() < deadline, f"workers live on: {left}"
        time.sleep(0.05)


def markers(output):
    """How many units are stored."""
    return len(list((output / "_state").glob("[0-9a-f]*/[0-9]*.json")))


def digests(output, *tables):
    """Names and digests of the files of tables."""
    files = [path for table in tables for path in (output / table).rglob("*") if path.is_file()]
    assert files
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Many small images: those that ship, under many names."""
    folder = tmp_path_factory.mktemp("images")
    shipped = sorted((CLOTHES / "images").rglob("*.png"))
    for number in range(IMAGES):
        picture = shipped[number % len(shipped)]
        target = folder / picture.stem / f"{number:05}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(picture, target)
    (folder / picture.stem / "broken.png").write_bytes(b"not a picture")
    return folder


def tokenizing(images, output, crop="adm-center-32"):
    return [
        *("tokenize", "--source", images, "--output", output, "--tokenizer", CLOTHES / "tokenizer", "--crop", crop),
        *("--unit-size", UNIT_SIZE, "--batch-size", UNIT_SIZE, "--devices", "cpu", "--device-threads", 1),
    ]


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """A plain run's tables."""
    output = tmp_path_factory.mktemp("undisturbed") / "tokens"
    restok(*tokenizing(images, output))
    return digests(output, "tokens", "images")


def workers_ready(run):
    """Names of the workers that can take units, with the start of their node's identifier and their actor's process."""
    places, ready = {}, {}
    for name, node, actor in re.findall(r"(worker-\d+): (?:started on \S+ \(node (\w+), process (\d+)|ready)", run.log()):
        if node:
            places[name] = (node, int(actor))
        else:
            # The name of a dead one is given again: what counts is where the last one of that name was when it was ready.
            ready[name] = places[name]
    return ready


def stopped(run, output, number):
    """The processes of so many workers, each stopped as soon as it can take units, so that they hold some and none is too fast."""
    processes = set()
    while len(processes) < number:
        run.until(lambda: len(workers_ready(run)) > len(processes), f"{len(processes) + 1} workers that are ready")
        actors = {actor for _, actor in workers_ready(run).values()}
        for process, parent in workers_of(output).items():
            if parent in actors and process not in processes:
                os.kill(process, signal.SIGSTOP)
                processes.add(process)
    return processes


def go_on(processes):
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def test_a_signal_drains_and_the_same_command_goes_on(nodes, images, undisturbed, tmp_path):
    output = tmp_path / "tokens"
    with Run(nodes, *tokenizing(images, output)) as run:
        processes = stopped(run, output, 2)
        one = min(processes)
        go_on([one])
        run.until(lambda: markers(output), "a first unit")
        os.kill(one, signal.SIGSTOP)
        run.process.send_signal(signal.SIGTERM)
        run.until(lambda: "restok-ray: stopping" in run.log(), "the driver's answer to the signal")
        go_on(processes)
        code, summary, _ = run.end()
        assert code == 143, run.log()
    no_worker_is_left(output)
    stored = markers(output)
    assert 0 < summary["units_left"] < UNITS and summary["workers_lost"] == 0
    with Run(nodes, *tokenizing(images, output)) as run:
        again, _ = run.finished()
    assert again["units_stored"] == UNITS - stored
    assert digests(output, "tokens", "images") == undisturbed


def test_wrong_settings_end_it_for_good(nodes, images, tmp_path):
    output = tmp_path / "tokens"
    restok(*tokenizing(images, output), "--max-images", 20)
    for words, expected in [
        (tokenizing(images, output, crop="adm-center-32-flip"), "crop"),
        ([*tokenizing(images, tmp_path / "other"), "--no-such-flag"], "--no-such-flag"),
    ]:
        with Run(nodes, *words) as run:
            code, summary, _ = run.end()
            assert code == summary["exit_code"] == 42, run.log()
            assert expected in summary["problem"] and expected in run.log()
    no_worker_is_left(output)


def test_a_program_that_is_not_there_ends_it_for_good(nodes, images, tmp_path):
    with Run(nodes, "--restok", tmp_path / "restok", *tokenizing(images, tmp_path / "tokens")) as run:
        code, summary, _ = run.end()
    assert code == 42 and "cannot be started" in summary["problem"]


def test_samples_are_those_of_a_plain_run(nodes, tmp_path):
    def generating(output):
        return [
            *("generate", "--generator", CLOTHES / "generator", "--tokenizer", CLOTHES / "tokenizer", "--output", output),
            *("--count", 96, "--unit-size", 8, "--batch-size", 8, "--guidance-scale", 2, "--devices", "cpu", "--device-threads", 1),
        ]

    with Run(nodes, *generating(tmp_path / "by-ray")) as run:
        summary, _ = run.finished()
    assert (summary["units"], summary["images"]) == (12, 96)
    restok(*generating(tmp_path / "plain"))
    assert digests(tmp_path / "by-ray", "pictures") == digests(tmp_path / "plain", "pictures")


def test_scores_are_those_of_a_plain_run(nodes, tmp_path):
    def evaluating(output):
        return [
            *("evaluate", "--protocol", "rfid", "--source", CLOTHES / "images", "--tokenizer", CLOTHES / "tokenizer", "--keep", "1,8,32"),
            *("--allow", "count,resize", "--unit-size", 2, "--output", output, "--devices", "cpu", "--device-threads", 1),
            *("--format", "json"),
        ]

    with Run(nodes, *evaluating(tmp_path / "by-ray")) as run:
        summary, lines = run.finished()
    assert summary["units"] == 5 and summary["units_left"] == 0
    plain = json.loads(restok(*evaluating(tmp_path / "plain")))
    assert json.loads("\n".join(lines)) == plain


# The last one: Ray counts on a dead node for a while.
def test_a_node_dies_and_another_comes_and_the_tables_are_those_of_a_plain_run(nodes, images, undisturbed, tmp_path):
    output = tmp_path / "tokens"
    with Run(nodes, *tokenizing(images, output)) as run:
        processes = stopped(run, output, NODES)
        short, _ = workers_ready(run)["worker-2"]
        nodes.kill(next(node for node in nodes.nodes if node.startswith(short)))
        run.until(lambda: "others get its units" in run.log(), "units that go to others")
        nodes.add()
        run.until(lambda: any(nodes.nodes[-1].startswith(node) for node, _ in workers_ready(run).values()), "a worker on the new node")
        go_on(processes)
        summary, _ = run.finished()
    assert digests(output, "tokens", "images") == undisturbed
    assert (summary["units"], summary["units_left"]) == (UNITS, 0)
    assert summary["workers"] > NODES
    assert summary["rejected"] == {"unsupported": 1}
    restok("verify", output)
    no_worker_is_left(output)
