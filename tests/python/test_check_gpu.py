"""`make check-gpu` in tiny sizes on a processor, and what it does when something is wrong."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CHECKOUT

TOOLS = CHECKOUT / "tools" / "check-gpu"
FIXTURES = CHECKOUT / "tests" / "fixtures"
sys.path.insert(0, str(TOOLS))

import report


@pytest.fixture(scope="module")
def programs():
    """The folder of the programs, of the build that the other tests use."""
    done = subprocess.run([TOOLS / "build.sh", "dev"], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert done.returncode == 0
    return CHECKOUT / done.stdout.splitlines()[-1]


def check(programs, output, *arguments, fixtures=FIXTURES):
    """Exit code, the report, and what was printed."""
    command = [sys.executable, TOOLS / "check_gpu.py", "--device", "cpu", "--programs", programs, "--fixtures", fixtures, "--output", output]
    # One thread: threads that wait for each other on a busy machine only spin.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command), *map(str, arguments)], capture_output=True, text=True, timeout=600, env=environment)
    file = output / "report.json"
    assert file.exists(), done.stderr
    found = json.loads(file.read_text())
    assert found["exit_code"] == done.returncode
    assert (output / "report.txt").read_text() == done.stdout
    return done.returncode, found, done.stdout


def rows(found, section):
    return [row for row in found["rows"] if row["section"] == section]


def test_every_section_ends_in_tiny_sizes_on_a_processor(programs, tmp_path):
    # Away from the sources, so that the test binaries must take the fixtures that are named to them.
    fixtures = tmp_path / "fixtures"
    for name in ("tokenizer", "generator"):
        shutil.copytree(FIXTURES / name, fixtures / name)
    code, found, text = check(programs, tmp_path / "out", "--size", "tiny", fixtures=fixtures)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert code == 0, f"{text}\n{log}"
    ended = {section["name"]: section["status"] for section in found["sections"]}
    left_out = {name for name, status in ended.items() if status != "done"}
    assert left_out == {"attention", "published"}, ended
    assert (found["size"], found["device"]) == ("tiny", "cpu")
    assert "This was a processor" in text
    # Eight, since a network is checked in four precisions; each held some figures to limits.
    parity = rows(found, "parity")
    assert len(parity) == 8 and all(row["passed"] for row in parity)
    figures = [line for line in found["lines"] if line["kind"] == "parity" and line["section"] == "parity"]
    exact = {line["what"]: line for line in figures if line["precision"] == "fp32"}
    assert exact["tokenizer, codes"]["value"] == 256
    assert exact["tokenizer, z"]["limit"] == 1e-4
    for section in ("encode", "decode", "sample", "train"):
        dense = [row for row in rows(found, section) if "fp32" in row["what"]]
        assert dense and all(row["limit"] and row["share"] > 0 for row in dense), section
    assert any("matrix product fp32" == row["what"] for row in rows(found, "peaks"))
    assert any("aten::" in row["what"] for row in rows(found, "encode-profile"))
    assert (tmp_path / "out" / "encode-trace.json").stat().st_size > 0
    (tests,) = rows(found, "suite")
    assert tests["passed"] and tests["measured"] == "4 of 4 passed"
    (tokenized,) = [line for line in found["lines"] if line["kind"] == "tokenize"]
    assert tokenized["value"] > 0
    assert all(column in text for column in report.COLUMNS)


def damage(file, name):
    """Changes every number of a tensor in a safetensors file."""
    data = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    start, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    for place in range(8 + length + start, 8 + length + end, 4):
        data[place] ^= 1
    file.write_bytes(data)


def test_figures_that_are_not_the_published_ones_end_with_1_and_are_named(programs, tmp_path):
    fixtures = tmp_path / "fixtures"
    for name in ("tokenizer", "generator"):
        shutil.copytree(FIXTURES / name, fixtures / name)
    damage(fixtures / "tokenizer" / "expected.safetensors", "tokens")
    code, found, text = check(programs, tmp_path / "out", "parity", fixtures=fixtures)
    assert code == 1
    assert "FAILED: tokenizer, codes, fp32" in text and "at least 256" in text
    passed = {row["what"]: row["passed"] for row in rows(found, "parity")}
    assert passed["parity of the generator, fp32"] and not passed["parity of the tokenizer, fp32"]
    # Other sections were not asked for, and are no reason to complain.
    assert {section["status"] for section in found["sections"] if section["name"] != "parity"} == {"not asked for"}


def test_a_fixture_that_is_not_there_is_a_failed_check_that_names_the_file(programs, tmp_path):
    fixtures = tmp_path / "fixtures"
    shutil.copytree(FIXTURES / "generator", fixtures / "generator")
    code, _, text = check(programs, tmp_path / "out", "parity", fixtures=fixtures)
    assert code == 1
    assert "tokenizer/expected.safetensors" in text


MACHINE = {"kind": "machine", "device": "cpu", "name": "cpu-test", "libtorch": "2.13.0", "threads": 1, "native": ["fp32"]}
PEAK = {"kind": "peak", "what": "matrix product", "precision": "fp32", "value": 1.0, "unit": "TFLOP/s", "shape": "8 x 8 x 8"}


def program(folder, body):
    """A stand-in for check_gpu."""
    folder.mkdir()
    file = folder / "check_gpu"
    file.write_text(f"#!/bin/sh\nif [ \"$2\" = machine ]; then echo '{json.dumps(MACHINE)}'; exit; fi\n{body}\n")
    file.chmod(0o755)
    return folder


def test_a_section_that_crashes_keeps_its_lines_and_ends_with_3(tmp_path):
    programs = program(tmp_path / "programs", f"echo '{json.dumps(PEAK)}'\necho 'out of memory' >&2\nexit 7")
    code, found, text = check(programs, tmp_path / "out", "peaks")
    assert code == 3
    measured = [row["measured"] for row in rows(found, "peaks")]
    assert measured == ["1 TFLOP/s", "failed"]
    assert "ended with 7: out of memory" in text and "NOT COMPLETE" in text


def test_a_section_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    started = tmp_path / "started"
    programs = program(tmp_path / "programs", f"sleep 60 & echo $! >{started}; wait")
    code, _, text = check(programs, tmp_path / "out", "peaks", "scores", "--budget", "6")
    assert code == 3
    assert "ran out of its" in text
    # And for the next one no time was left.
    assert "not begun: 0 s were left of 6" in text
    # Gone, or dead and waiting for its parent to look.
    state = Path(f"/proc/{started.read_text().strip()}/stat")
    assert not state.exists() or " Z " in state.read_text()


def test_sections_that_are_not_there_are_refused_with_all_names(tmp_path):
    programs = program(tmp_path / "programs", "exit 0")
    command = [sys.executable, TOOLS / "check_gpu.py", "--device", "cpu", "--programs", programs, "--output", tmp_path / "out", "encoding"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 2
    assert "encoding" in done.stderr and "encode-profile" in done.stderr


def test_a_limit_is_the_tightest_of_arithmetic_memory_and_launches():
    peaks = [
        {"kind": "peak", "what": "matrix product", "precision": "bf16", "value": 500.0, "unit": "TFLOP/s", "shape": ""},
        {"kind": "peak", "what": "convolution", "precision": "bf16", "value": 400.0, "unit": "TFLOP/s", "shape": ""},
        {"kind": "peak", "what": "matrix product", "precision": "fp32", "value": 50.0, "unit": "TFLOP/s", "shape": ""},
        {"kind": "peak", "what": "memory", "precision": "", "value": 1000.0, "unit": "GB/s", "shape": ""},
        {"kind": "peak", "what": "launches", "precision": "", "value": 1e5, "unit": "1/s", "shape": ""},
        {"kind": "profile", "what": "profile of sample (paper)", "network": "gpt-l", "precision": "bf16", "kernel_calls": 5000},
    ]
    limits = report.Limits(peaks)
    line = {"what": "encode", "network": "restok-l-128", "precision": "bf16", "batch": 10}
    # 1 TFLOP at 500 TFLOP/s and 0.05 at 50: 3 ms for 10 images. Float32 goes for TensorFloat-32 where that was not measured.
    found = limits.of({**line, "operations": {"bf16": 1e12, "tf32": 5e10}, "bytes": 0})
    assert found == (pytest.approx(10 / 3e-3), "arithmetic")
    # 8 GB at 1,000 GB/s take longer.
    found = limits.of({**line, "operations": {"bf16": 1e12}, "bytes": 8e9})
    assert found == (pytest.approx(10 / 8e-3), "memory")
    # And 5,000 launches longer still.
    sampled = {**line, "what": "sample (paper)", "network": "gpt-l", "operations": {"bf16": 1e12}, "bytes": 8e9}
    assert limits.of(sampled) == (pytest.approx(10 / 0.05), "launches")
    # Of a precision that was not measured nothing is known.
    assert limits.of({**line, "operations": {"fp16": 1e12}, "bytes": 0}) is None


def test_a_rate_names_what_it_is_compared_with():
    rate = {"kind": "rate", "what": "encode", "network": "restok-l-128", "precision": "bf16", "batch": 64, "value": 300.0}
    published = [{**rate, "kind": "published", "value": 150.0, "compiled": False}, {**rate, "kind": "published", "value": 200.0, "compiled": True}]
    assert report.against(rate, [rate], published, "NVIDIA H100 80GB HBM3") == "published 150 (2.00 times); published compiled 200 (1.50 times)"
    assert report.against(rate, [rate], [], "NVIDIA H100 80GB HBM3") == "predicted about 470"
    # A prediction for one card is none for another.
    assert report.against(rate, [rate], [], "cpu-avx2") == ""
    assert report.against({**rate, "variant": "flash", "value": 330.0}, [rate], [], "") == "1.10 of without"
