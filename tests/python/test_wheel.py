"""The wheel and the archive with the program, built from the build that the other tests use.

torch is gigabytes, so both are installed without it, and a link to the libtorch at hand lies where torch would lie: what is tested is where the
program looks, not pip's choice of torch. NumPy and pyarrow are those of this interpreter.
"""

import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from conftest import CHECKOUT, SAMPLES, SECONDS_TO_END

PACKAGING = CHECKOUT / "packaging"
CLOTHES = SAMPLES / "fashion-mnist"
# The package torch: what it holds in lib is what programs are linked to.
TORCH = Path(os.environ.get("LIBTORCH") or CHECKOUT / ".deps" / "libtorch").resolve()
# What it packs is built already, unless sources changed since.
SECONDS_TO_BUILD = 3600
# Without LIBTORCH, LD_LIBRARY_PATH and an environment's programs.
CLEAN = {"PATH": "/usr/bin:/bin"}


def run(*command, **environment):
    """Runs a command in a clean environment and returns how it ended."""
    command = list(map(str, command))
    return subprocess.run(command, capture_output=True, text=True, env=CLEAN | environment, timeout=SECONDS_TO_END)


def printed(*command, **environment):
    """What a command that must succeed printed on standard output."""
    done = run(*command, **environment)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}"
    return done.stdout


def packed(script, folder):
    """What a script of packaging/ packs of the development build."""
    reason = CHECKOUT / ".deps" / "no-maturin"
    if reason.exists():
        pytest.skip(f"no maturin: {reason.read_text().strip()}")
    done = subprocess.run([PACKAGING / script, "dev", folder], capture_output=True, text=True, timeout=SECONDS_TO_BUILD)
    # `make test` over another libtorch.
    if "which pyproject.toml names" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return packed("wheel.sh", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return packed("archive.sh", tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    printed(sys.executable, "-m", "venv", folder)
    printed(folder / "bin" / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel)
    packages = packages_of(folder)
    (packages / "torch").symlink_to(TORCH)
    (packages / "of-the-tests.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.fixture
def unpacked(archive, tmp_path):
    """The folder of the archive."""
    printed("tar", "-xf", archive, "-C", tmp_path)
    return tmp_path / archive.name.removesuffix(".tar.gz")


def packages_of(environment):
    return environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def libraries(program):
    """Where the dynamic loader finds each library of a program; None for one that it does not find."""
    lines = printed(program, LD_TRACE_LOADED_OBJECTS="1").splitlines()
    found = (re.match(r"\s*(\S+) => (not found|\S+)", line) for line in lines)
    return {match[1]: None if match[2] == "not found" else Path(match[2]) for match in found if match}


def dynamic_section(program):
    return printed("readelf", "--dynamic", "--wide", program)


def metadata(wheel):
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(opened.read(name).decode())


def tokenize(program, output):
    """Tokenizes the ten test images of clothes."""
    return printed(
        *(program, "tokenize", "--source", CLOTHES / "images", "--output", output, "--tokenizer", CLOTHES / "tokenizer"),
        *("--crop", "adm-center-32", "--split", "test", "--batch-size", 10, "--devices", "cpu", "--log-level", "warn"),
    )


# ------------------------------------------------------------------------------------------------------------ the wheel


def test_the_installed_program_tokenizes_and_the_installed_package_reads_it(environment, tmp_path):
    tokenize(environment / "bin" / "restok", tmp_path / "tokens")
    script = (
        "import json, sys, restok; output = restok.open(sys.argv[1]); table = output.tokens().to_table()\n"
        "codes = restok.codes(table.combine_chunks(), levels=output.levels).tolist()\n"
        "print(json.dumps([restok.__file__, output.finished, dict(zip(table['image_id'].to_pylist(), codes))]))"
    )
    file, finished, codes = json.loads(printed(environment / "bin" / "python", "-c", script, tmp_path / "tokens"))
    assert packages_of(environment) in Path(file).parents and finished
    table = ds.dataset(str(tmp_path / "tokens" / "tokens"), format="parquet", partitioning="hive").to_table()
    assert len(codes) == 10 and codes == dict(zip(table["image_id"].to_pylist(), table["tokens"].to_pylist(), strict=True))


def test_the_installed_package_finds_its_program_without_a_path(environment):
    script = (
        "import sys, restok; from restok.program import find_program; print(find_program())\n"
        "encoded = restok.encode([open(sys.argv[1], 'rb').read()], tokenizer=sys.argv[2], devices='cpu'); print(len(encoded))"
    )
    image = next((CLOTHES / "images").rglob("*.png"))
    lines = printed(environment / "bin" / "python", "-c", script, image, CLOTHES / "tokenizer").splitlines()
    assert lines[1] == "1" and Path(lines[0]).samefile(environment / "bin" / "restok")


def test_program_package_and_checkout_are_of_one_version(environment):
    program = printed(environment / "bin" / "restok", "--version").split()[1]
    package = printed(environment / "bin" / "python", "-c", "import importlib.metadata as m; print(m.version('restok'))").strip()
    pure = re.search(r'^version = "(.+)"', (CHECKOUT / "python" / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert program == package == pure


def test_the_run_path_starts_at_the_program_and_nowhere_else(environment):
    (line,) = (line for line in dynamic_section(environment / "bin" / "restok").splitlines() if "PATH" in line)
    # Not RUNPATH, which comes after LD_LIBRARY_PATH.
    assert "(RPATH)" in line
    folders = re.search(r"\[(.+)\]", line)[1].split(":")
    assert len(folders) > 1 and all(folder.startswith("$ORIGIN/../") for folder in folders)


@pytest.mark.parametrize("packages", [
    # `pip install --target`, and an unpacked archive.
    ".",
    *(f"lib/python{version}/site-packages" for version in ("3.10", "3.11", "3.12", "3.13", "3.14", "3.14t")),
    # Fedora's and Debian's own.
    *("lib64/python3.13/site-packages", "lib/python3.11/dist-packages"),
])
def test_torch_is_found_where_packages_lie(environment, tmp_path, packages):
    program = tmp_path / "bin" / "restok"
    program.parent.mkdir()
    os.link(environment / "bin" / "restok", program)
    # Nothing of this machine helps out.
    assert libraries(program)["libtorch_cpu.so"] is None
    done = run(program, "--version")
    assert done.returncode != 0 and "libtorch_cpu.so" in done.stderr
    (tmp_path / packages).mkdir(parents=True, exist_ok=True)
    (tmp_path / packages / "torch").symlink_to(TORCH)
    # Another libtorch that someone has on the LD_LIBRARY_PATH does not count.
    other = tmp_path / "other"
    other.mkdir()
    (other / "libtorch_cpu.so").touch()
    assert "libtorch" in printed(program, "--version", LD_LIBRARY_PATH=str(other))
    assert libraries(program)["libtorch_cpu.so"].parent.parent.parent.samefile(tmp_path / packages)


def test_a_link_to_the_program_finds_torch_as_uv_tool_and_pipx_need_it(environment, tmp_path):
    link = tmp_path / "restok"
    link.symlink_to(environment / "bin" / "restok")
    assert libraries(link)["libtorch_cpu.so"].resolve() == (TORCH / "lib" / "libtorch_cpu.so").resolve()


def test_torch_of_another_place_can_be_named(environment, tmp_path):
    """As docs/install.md says for an environment that borrows torch."""
    os.link(environment / "bin" / "restok", tmp_path / "restok")
    found = printed(tmp_path / "restok", "--version", LD_LIBRARY_PATH=str(TORCH / "lib"))
    assert found.startswith("restok ")


def test_the_wheel_holds_the_python_package_as_it_lies_here(wheel):
    with zipfile.ZipFile(wheel) as opened:
        held = {name: opened.read(name) for name in opened.namelist() if name.startswith("restok/")}
    package = CHECKOUT / "python"
    files = (file for file in (package / "restok").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    assert held == {str(file.relative_to(package)): file.read_bytes() for file in files}


def test_the_wheel_needs_the_torch_that_is_built_over_and_what_the_package_needs(wheel):
    needed = set(metadata(wheel).get_all("Requires-Dist"))
    builds = (CHECKOUT / "tools" / f"requirements-torch-{kind}.txt" for kind in ("cpu", "cuda"))
    (version,) = {re.search(r"^torch==(\d+\.\d+)\.", file.read_text(), re.MULTILINE)[1] for file in builds}
    assert f"torch=={version}.*" in needed
    # But for the extra `torch`: that torch is there anyway.
    requirement = re.compile(r'^ *"([^"]+)",|^(?:images|fsspec) = \["([^"]+)"\]', re.MULTILINE)
    pure, whole = (
        {one or other for one, other in requirement.findall(file.read_text())}
        for file in (CHECKOUT / "python" / "pyproject.toml", CHECKOUT / "pyproject.toml")
    )
    assert len(pure) == 4 and whole == pure | {f"torch=={version}.*"}
    assert metadata(wheel)["Requires-Python"] == ">=3.10"


def test_the_platform_tag_is_that_of_the_symbols(wheel, environment):
    symbols = printed("objdump", "--dynamic-syms", environment / "bin" / "restok")
    glibc = max(tuple(map(int, version.split("."))) for version in re.findall(r"\(GLIBC_([0-9.]+)\)", symbols))
    assert f"-py3-none-manylinux_{glibc[0]}_{glibc[1]}_{platform.machine()}.whl" in wheel.name
    # The document tells of builds on Debian 12: on newer systems, C compiles to newer symbols.
    if platform.libc_ver()[1] == "2.36":
        assert f"glibc {glibc[0]}.{glibc[1]}" in (CHECKOUT / "docs" / "install.md").read_text()


# ---------------------------------------------------------------------------------------------------------- the archive


def test_the_archive_runs_once_libtorch_lies_beside_it(unpacked, tmp_path):
    assert {file.name for file in unpacked.iterdir()} == {
        *("bin", "fetch-libtorch", "requirements-torch-cpu.txt", "requirements-torch-cuda.txt", "LICENSE", "README.md")
    }
    program = unpacked / "bin" / "restok"
    assert str(CHECKOUT) not in dynamic_section(program)
    done = run(program, "--version")
    assert done.returncode != 0 and "libtorch_cpu.so" in done.stderr
    # In place of `fetch-libtorch`.
    (unpacked / "torch").symlink_to(TORCH)
    tokenize(program, tmp_path / "tokens")
    assert (tmp_path / "tokens" / "_SUCCESS").exists()


def test_the_archive_has_no_symbols_and_its_name_says_what_it_is_for(archive, unpacked):
    assert ".symtab" not in printed("readelf", "--sections", "--wide", unpacked / "bin" / "restok")
    version = re.search(r'^version = "(.+)"', (CHECKOUT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert archive.name == f"restok-{version}-{platform.machine()}-linux.tar.gz"


def stand_in(folder, requirement, files):
    """A wheel of these files, for a line such as `torch==2.13.0`."""
    name, version = requirement.split("==")
    name = name.replace("-", "_")
    information = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as opened:
        for file in files:
            opened.writestr(file, requirement)
        opened.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        opened.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr(f"{information}/RECORD", "")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_libtorch_is_fetched_beside_the_program(unpacked, environment, tmp_path, kind):
    """With stand-ins for PyTorch's wheels, and for the program, which would not start with them."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    python = {"PYTHON": str(environment / "bin" / "python"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    program = unpacked / "bin" / "restok"
    program.unlink()
    program.write_text("#!/bin/sh\necho it starts\n")
    program.chmod(0o755)
    before = unpacked / "torch" / "lib" / "before"
    before.parent.mkdir(parents=True)
    before.touch()

    failed = run(unpacked / "fetch-libtorch", kind, **python)
    assert failed.returncode == 1 and "Nothing was changed" in failed.stderr and before.exists()
    assert run(unpacked / "fetch-libtorch", "gpu").returncode == 1

    lines = (unpacked / f"requirements-torch-{kind}.txt").read_text().splitlines()
    requirements = [line for line in lines if not line.startswith("#")]
    (torch,) = (requirement for requirement in requirements if requirement.startswith("torch=="))
    for requirement in requirements:
        library = requirement.split("==")[0].removeprefix("nvidia-cuda-")
        stand_in(wheels, requirement, ["torch/lib/libtorch_cpu.so", "torch/__init__.py"] if requirement == torch else [f"nvidia/cu13/lib/{library}"])
    done = run(unpacked / "fetch-libtorch", kind, **python)
    assert done.returncode == 0 and "it starts" in done.stderr, done.stderr
    assert not before.exists() and not list(unpacked.glob("fetched.*"))
    assert [file.name for file in (unpacked / "torch").iterdir()] == ["lib"]
    assert (unpacked / "torch" / "lib" / "libtorch_cpu.so").read_text() == torch
    assert len(list(unpacked.glob("nvidia/cu13/lib/*"))) == len(requirements) - 1
