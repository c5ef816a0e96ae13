"""An output of each layout, made by the program under test from the built-in sample, once for all tests."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SAMPLES = CHECKOUT / "samples"
TOKENIZER = CHECKOUT / "tests" / "fixtures" / "tokenizer"
LAYOUTS = ("folder", "webdataset", "parquet")
# A program that has not ended after this long hangs; none takes a tenth of it on a machine that is free. The error names the command.
SECONDS_TO_END = 300


def binary():
    """The program under test; those that only tests need lie beside it."""
    return Path(os.environ.get("RESTOK_BINARY") or CHECKOUT / "target" / "debug" / "restok")


def restok(*arguments):
    """Runs the program and returns what it printed on standard output."""
    # A developer's own settings must not decide what is tested.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTOK_")}
    command = [binary(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS_TO_END)
    assert done.returncode == 0, f"restok {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def outputs(tmp_path_factory):
    """Path of the finished output by layout. Units of 16 images, so that every table has several files."""
    root = tmp_path_factory.mktemp("outputs")
    for layout in LAYOUTS:
        restok(
            *("tokenize", "--source", SAMPLES / layout, "--output", root / layout, "--tokenizer", TOKENIZER),
            *("--split", "sample", "--devices", "cpu", "--unit-size", 16, "--batch-size", 8),
            # Two of the 38 files are broken on purpose.
            *("--max-reject-rate", "10%"),
        )
    return {layout: root / layout for layout in LAYOUTS}


@pytest.fixture(scope="session")
def output(outputs):
    """The output of the folder layout."""
    return outputs["folder"]


@pytest.fixture(scope="session")
def inspection(output):
    """What `restok inspect` counts in that output."""
    return json.loads(restok("inspect", output, "--format", "json"))


@pytest.fixture(scope="session")
def levels(inspection):
    """The levels of an image's tokens: their numbers and where they start and end in the list."""
    bounds = [(level["first_token"], level["first_token"] + level["tokens_per_image"]) for level in inspection["levels"]]
    return [SimpleNamespace(number=number, start=start, end=end) for number, (start, end) in enumerate(bounds)]
