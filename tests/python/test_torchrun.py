"""Trainings that torchrun starts: several processes train what one trains, and go on after deaths.

torchrun comes with an installed PyTorch, which the tests' own libtorch is not: it is looked for in RESTOK_TORCHRUN, on the path and where
`make bench` keeps the published code.
"""

import csv
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from conftest import CHECKOUT, SAMPLES, SECONDS_TO_END, binary, restok

# How often a process is killed; RESTOK_TORCHRUN_KILLS=20 takes some minutes.
KILLS = int(os.environ.get("RESTOK_TORCHRUN_KILLS", "4"))
# More than are made between the kills.
STEPS = 10 + 2 * KILLS


@pytest.fixture(scope="module")
def torchrun():
    candidates = [os.environ.get("RESTOK_TORCHRUN"), shutil.which("torchrun"), CHECKOUT / ".deps/published/bin/torchrun"]
    found = next((str(path) for path in candidates if path and os.access(path, os.X_OK)), None)
    if found is None or subprocess.run([found, "--help"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no torchrun that runs: set RESTOK_TORCHRUN to that of an installed PyTorch")
    return found


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    output = tmp_path_factory.mktemp("tokens") / "tokens"
    restok(
        *("tokenize", "--source", SAMPLES / "folder", "--output", output, "--tokenizer", SAMPLES / "fashion-mnist/tokenizer"),
        *("--crop", "adm-center-32", "--max-reject-rate", "10%", "--devices", "cpu"),
    )
    return output


def training(tokens, output):
    return [
        *("train-generator", "--preset", "tiny", "--source", tokens, "--output", output, "--steps", STEPS),
        *("--global-batch-size", 8, "--batch-size", 4, "--save-every", 1, "--log-every", 1, "--device", "cpu", "--device-threads", 1),
    ]


class Run:
    """torchrun and what it starts, until the end of the block."""

    def __init__(self, torchrun, restarts, arguments):
        self.arguments = torchrun, restarts, arguments

    def __enter__(self):
        self.said = tempfile.TemporaryFile("w+")
        self.process = start(*self.arguments, self.said)
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # All have ended.
        self.process.wait()
        self.said.close()

    def end(self):
        """Waits for its end, and says what it printed."""
        code = self.process.wait(timeout=SECONDS_TO_END)
        self.said.seek(0)
        return code, self.said.read()


def start(torchrun, restarts, arguments, said):
    command = [torchrun, "--standalone", "--nproc-per-node", 2, "--max-restarts", restarts, "--no-python", binary(), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTOK_")}
    # A group of its own, so that no worker outlives the test; its output in a file, which never fills up.
    return subprocess.Popen(
        list(map(str, command)), stdout=said, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )


def losses(output):
    with open(output / "metrics.csv", newline="") as table:
        return [float(line["loss"]) for line in csv.DictReader(table)]


def weights(output):
    return (output / "generator/model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(torchrun, tokens, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    with Run(torchrun, 0, training(tokens, output)) as run:
        code, said = run.end()
    assert code == 0, said
    return output


def test_two_processes_of_torchrun_train_what_one_trains(undisturbed, tokens, tmp_path):
    restok(*training(tokens, tmp_path / "one"))
    one, two = losses(tmp_path / "one"), losses(undisturbed)
    assert len(one) == len(two) == STEPS
    assert two == pytest.approx(one, rel=1e-5)


def workers(process):
    """The processes that torchrun started, by their parent."""
    started = []
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        try:
            started += [int(child)] if "train-generator" in Path(f"/proc/{child}/cmdline").read_text() else []
        except FileNotFoundError:
            pass  # It has ended since.
    return started


def steps_saved(output):
    return max((int(path.name.removeprefix("step-")) for path in (output / "checkpoints").glob("step-*")), default=0)


def test_killed_again_and_again_the_weights_are_those_of_an_undisturbed_run(torchrun, undisturbed, tokens, tmp_path):
    output, chance = tmp_path / "run", random.Random(7)
    with Run(torchrun, KILLS, training(tokens, output)) as run:
        process = run.process
        for kill in range(KILLS):
            # After the next step, or as soon as both are there: while they meet, read the checkpoint or train.
            enough, deadline = steps_saved(output) + chance.randrange(2), time.monotonic() + SECONDS_TO_END
            while len(workers(process)) < 2 or steps_saved(output) < enough:
                assert process.poll() is None, f"kill {kill}: it ended before: {run.end()}"
                assert time.monotonic() < deadline, f"kill {kill}: no step within {SECONDS_TO_END} s"
                time.sleep(0.01)
            alive = workers(process)
            os.kill(chance.choice(alive), signal.SIGKILL)
            # torchrun takes the others down, and starts all again.
            while set(workers(process)) & set(alive):
                assert process.poll() is None, f"kill {kill}: it ended: {run.end()}"
                assert time.monotonic() < deadline, f"kill {kill}: torchrun did not start the processes again"
                time.sleep(0.01)
        code, said = run.end()
    assert code == 0, said
    assert weights(output) == weights(undisturbed)
