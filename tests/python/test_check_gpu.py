"""`make check-gpu` in tiny sizes on a processor, and what it does when something is wrong."""

import json
import os
import shutil
import struct
import subprocess
import sys
import types
from pathlib import Path

import pytest

from conftest import CHECKOUT

TOOLS = CHECKOUT / "tools" / "check-gpu"
FIXTURES = CHECKOUT / "tests" / "fixtures"
sys.path.insert(0, str(TOOLS))

import check_gpu
import nvidia_smi
import plan
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
    # Both ways are the plain one here, so the codes are the same, and the row says that no fused kernel ran.
    (fused,) = [line for line in found["lines"] if line["kind"] == "fused"]
    assert (fused["norms"], fused["rounds"], fused["equal_codes"]) == (0, 3, fused["codes"])
    assert fused["plain_calls"] >= 3 and fused["fused_calls"] >= 3 and fused["ratio"] > 0
    (row,) = rows(found, "fused")
    assert row["what"] == "fused norms, encode tiny bf16 x2" and row["against"].startswith("not used: ") and row["passed"] is None
    (memory,) = rows(found, "memory")
    assert memory["measured"] == "not counted here" and memory["against"].startswith("foretold ") and memory["passed"] is None
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


def program(folder, body, machine=f"echo '{json.dumps(MACHINE)}'; exit"):
    """A stand-in for check_gpu."""
    folder.mkdir()
    file = folder / "check_gpu"
    file.write_text(f"#!/bin/sh\nif [ \"$2\" = machine ]; then {machine}; fi\n{body}\n")
    file.chmod(0o755)
    return folder


def test_a_section_that_crashes_keeps_its_lines_and_ends_with_3(tmp_path):
    programs = program(tmp_path / "programs", f"echo '{json.dumps(PEAK)}'\necho 'out of memory' >&2\nexit 7")
    code, found, text = check(programs, tmp_path / "out", "peaks")
    assert code == 3
    measured = [row["measured"] for row in rows(found, "peaks")]
    assert measured == ["1 TFLOP/s", "failed"]
    assert "ended with 7: out of memory" in text and "NOT COMPLETE" in text


def within(monkeypatch, programs, output, *arguments):
    """Runs it within this process, so that a test can change it first. Exit code."""
    command = ["check_gpu.py", "--device", "cpu", "--programs", programs, "--fixtures", FIXTURES, "--output", output, *arguments]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    return check_gpu.main()


def test_a_section_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    started = tmp_path / "started"
    programs = program(tmp_path / "programs", f"sleep 600 & echo $! >{started}; wait")
    # The program has all of these seconds, however long it took to come to it.
    monkeypatch.setattr(check_gpu.Run, "left", lambda run: 0.0 if started.exists() else 8.0)
    assert within(monkeypatch, programs, tmp_path / "out", "peaks", "scores") == 3
    text = (tmp_path / "out" / "report.txt").read_text()
    assert "ran out of its 8 s" in text
    # And for the next one no time was left.
    assert "not begun: 0 s were left of 600" in text
    # Gone, or dead and waiting for its parent to look.
    state = Path(f"/proc/{started.read_text().strip()}/stat")
    assert not state.exists() or " Z " in state.read_text()


@pytest.mark.parametrize(("machine", "said"), [
    ("exit", "did not say what the device is, but: nothing"),
    ("echo '{}'; exit", "did not say what the device is, but: {}"),
    ("echo hello; exit", "did not say what the device is, but: hello"),
    ("echo 'no driver' >&2; exit 7", "ended with 7: no driver"),
    ("exec sleep 600", "ran out of its 0.5 s"),
])
def test_a_device_that_is_not_told_ends_with_3_and_says_so(tmp_path, monkeypatch, capsys, machine, said):
    monkeypatch.setattr(check_gpu, "SAY_SECONDS", 0.5 if "sleep" in machine else 60)
    programs = program(tmp_path / "programs", "exit 0", machine)
    assert within(monkeypatch, programs, tmp_path / "out") == 3
    assert said in capsys.readouterr().err


def test_a_program_that_does_not_start_ends_with_3_and_says_so(tmp_path, monkeypatch, capsys):
    programs = program(tmp_path / "programs", "exit 0")
    (programs / "check_gpu").chmod(0o644)
    assert within(monkeypatch, programs, tmp_path / "out") == 3
    assert "did not start: " in capsys.readouterr().err


def test_a_step_that_is_at_fault_itself_fails_its_section_and_no_other(tmp_path, monkeypatch):
    programs = program(tmp_path / "programs", f"echo '{json.dumps(PEAK)}'")
    (programs / "restok").symlink_to(programs / "check_gpu")

    def tokenize(run, section, limit):
        raise KeyError("crop_size")

    monkeypatch.setattr(check_gpu.Run, "tokenize", tokenize)
    assert within(monkeypatch, programs, tmp_path / "out", "peaks", "tokenize") == 3
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    ended = {section["name"]: (section["status"], section["reason"]) for section in found["sections"]}
    assert ended["peaks"] == ("done", "") and ended["tokenize"] == ("failed", "KeyError: 'crop_size'")
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()


def test_libtorch_is_refused_for_programs_that_have_theirs_in_their_run_path(tmp_path, monkeypatch, capsys):
    programs = program(tmp_path / "programs", "exit 0")
    assert within(monkeypatch, programs, tmp_path / "out", "--libtorch", tmp_path) == 2
    assert "--libtorch is for packed programs" in capsys.readouterr().err


def interpreter(folder, pip):
    """A stand-in for the interpreter of the published code, which writes down how it was called."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\necho \"$* PYTHONPATH=$PYTHONPATH\" >>{folder}/calls\nif [ \"$2\" = pip ]; then {pip}; fi\nexit 0\n")
    file.chmod(0o755)
    (folder / "calls").touch()
    return file, folder / "calls"


@pytest.mark.parametrize(("pip", "called"), [("exit 0", 2), ("echo 'no such wheel' >&2; exit 1", 1)])
def test_wheels_are_installed_once_when_the_published_code_is_run(tmp_path, monkeypatch, pip, called):
    programs = program(tmp_path / "programs", "exit 0")
    wheels, output = tmp_path / "wheels", tmp_path / "out"
    wheels.mkdir()
    (wheels / "some.whl").touch()
    python, calls = interpreter(tmp_path, pip)
    arguments = ["--published", tmp_path, "--published-python", python, "--published-wheels", wheels]
    assert within(monkeypatch, programs, output, *arguments, "--list") == 0
    assert within(monkeypatch, programs, output, *arguments, "peaks") == 0
    assert calls.read_text() == ""
    code = within(monkeypatch, programs, output, *arguments, "published")
    lines = calls.read_text().splitlines()
    # Without its wheels the code is not run.
    assert len(lines) == called and "some.whl" in lines[0]
    if called == 2:
        assert code == 0 and "encode-tf32" in lines[1] and lines[1].endswith("/site")
    else:
        assert code == 3 and "the wheels were not installed: pip ended with 1: no such wheel" in (output / "report.txt").read_text()


def suite_of(tmp_path, cuda):
    programs = {"models-integration": tmp_path / "models-integration", "models-unit": tmp_path / "models-unit"}
    return plan.suite(types.SimpleNamespace(fixtures=FIXTURES, device="cuda:0" if cuda else "cpu", cuda=cuda, programs=programs))


def test_fused_kernels_are_tested_on_a_gpu_in_a_process_of_their_own(tmp_path):
    (step,) = [step for step in suite_of(tmp_path, True) if plan.FUSED_KERNELS_TEST in step.command]
    assert step.command[0].endswith("models-unit") and "--exact" in step.command
    assert step.environment["RESTOK_TEST_DEVICE"] == "cuda:0"
    assert not any(plan.FUSED_KERNELS_TEST in step.command for step in suite_of(tmp_path, False))
    # The name is that of a test.
    *_, name = plan.FUSED_KERNELS_TEST.split("::")
    assert f"#[test]\nfn {name}()" in (CHECKOUT / "models" / "src" / "kernels" / "tests.rs").read_text()


@pytest.mark.parametrize(("printed", "problem"), [
    ("test result: ok. 1 passed; 0 failed; 0 ignored", None),
    ("test result: FAILED. 0 passed; 1 failed; 0 ignored", None),
    ("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 90 filtered out", "ran no test"),
    ("skipped: RESTOK_TEST_DEVICE names no GPU\ntest result: ok. 1 passed; 0 failed", "did not look at the device: skipped: RESTOK_TEST"),
])
def test_a_test_that_looked_at_nothing_has_not_passed(tmp_path, printed, problem):
    run = check_gpu.Run.__new__(check_gpu.Run)
    run.lines = []
    step = plan.Step([str(tmp_path / "models-unit"), "--exact", plan.FUSED_KERNELS_TEST], marks={"what": "fused kernels"}, output="tests")
    if problem is None:
        assert run.take_tests("suite", step, printed)
        assert [line["what"] for line in run.lines] == ["fused kernels"]
        return
    with pytest.raises(check_gpu.Failed, match=problem):
        run.take_tests("suite", step, printed)
    assert run.lines == []


TWO_ALIKE = [("0", "GPU-aa11", "H100"), ("1", "GPU-ab22", "H100")]
TWO_UNLIKE = [("0", "GPU-aa11", "T4"), ("1", "GPU-ab22", "H100")]


@pytest.mark.parametrize(("index", "listed", "visible", "order", "uuid"), [
    (1, TWO_ALIKE, None, None, "GPU-ab22"),
    (0, TWO_ALIKE, "1,0", None, "GPU-ab22"),
    (1, TWO_ALIKE, "GPU-ab22, GPU-aa", None, "GPU-aa11"),
    # Two begin like this one.
    (0, TWO_ALIKE, "GPU-a", None, None),
    (0, TWO_ALIKE, "MIG-aa11", None, None),
    (0, TWO_ALIKE, "", None, None),
    (1, TWO_ALIKE, "1", None, None),
    # Torch's first is the fastest, unless it was told to count as nvidia-smi does.
    (0, TWO_UNLIKE, None, None, None),
    (0, TWO_UNLIKE, None, "PCI_BUS_ID", "GPU-aa11"),
    (0, TWO_UNLIKE, "GPU-ab22", None, "GPU-ab22"),
    (0, [], None, None, None),
])
def test_nvidia_smi_looks_at_the_gpu_that_torch_computes_on(index, listed, visible, order, uuid):
    assert nvidia_smi.uuid_of(index, listed, visible, order) == uuid


FUSED = {
    "section": "fused", "kind": "fused", "what": "encode", "network": "restok-l-128", "precision": "bf16", "batch": 64, "unit": "images/s",
    "value": 330.0, "plain_value": 300.0, "ratio": 1.1, "plain_median_ms": 213.3, "fused_median_ms": 193.9, "equal_share": 0.982,
    "norms": 12345, "problems": [],
}


@pytest.mark.parametrize(("more", "against"), [
    ({}, "1.10 of plain 300; codes 98.2 % equal"),
    ({"problems": ["group norm: refused"]}, "1.10 of plain 300; codes 98.2 % equal; group norm: refused"),
    ({"norms": 0, "problems": ["no NVRTC", "another"]}, "not used: no NVRTC; another"),
])
def test_the_row_of_the_fused_norms_tells_their_worth_or_why_they_were_not_used(more, against):
    (row,) = report.rate_rows([{**FUSED, **more}], report.Limits([]), [], "")
    assert (row["what"], row["measured"]) == ("fused norms, encode restok-l-128 bf16 x64", "330 images/s")
    assert row["against"] == against and row["passed"] is None


def test_the_row_of_memory_holds_what_was_foretold_to_the_peak():
    line = {
        "section": "memory", "kind": "memory", "what": "memory of encode", "network": "restok-l-128", "precision": "bf16", "batch": 64,
        "foretold_bytes": 11 << 30, "peak_allocated_bytes": 10 << 30, "limit_bytes": 80 << 30,
    }
    (row,) = report.rate_rows([line], report.Limits([]), [], "")
    assert (row["what"], row["measured"]) == ("memory of encode restok-l-128 bf16 x64", "10 GiB")
    assert (row["against"], row["limit"], row["share"]) == ("foretold 11 GiB (1.10 of measured)", "80 GiB", 0.125)
    assert row["passed"] is None


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
