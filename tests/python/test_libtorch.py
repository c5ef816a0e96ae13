"""Other versions of libtorch: the release of tch that `tools/cargo.sh` takes for each, and the libtorch of a Python environment."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
CARGO = CHECKOUT / "tools" / "cargo.sh"
VERSIONS = dict(
    line.split()[:2]
    for line in (CHECKOUT / "tools" / "torch-versions.txt").read_text().splitlines()
    if not line.startswith("#")
)
DEFAULT = re.search(r'^tch = \{ version = "([^"]+)"', (CHECKOUT / "Cargo.toml").read_text(), re.MULTILINE)[1]


def libtorch(folder, version):
    """A folder with the one header that names the version, where that version has it."""
    major, minor = version.split(".")
    place = "headeronly" if int(minor) >= 10 else "csrc/api/include/torch"
    header = folder / "include" / "torch" / place / "version.h"
    header.parent.mkdir(parents=True)
    header.write_text(
        f"#define TORCH_VERSION_MAJOR {major}\n\n#define TORCH_VERSION_MINOR {minor}\n#define TORCH_VERSION_PATCH 0\n"
    )
    return folder


def cargo(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "LIBTORCH_INCLUDE"} | {"LIBTORCH": str(folder)}
    return subprocess.run([CARGO, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_release_of_tch_that_fits_is_locked_and_all_else_stays(tmp_path, version):
    done = cargo(libtorch(tmp_path, version), "metadata", "--locked", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu")
    if done.returncode and re.search("failed to download|failed to get|network failure|[Cc]ould(n.t| not) resolve", done.stderr):
        pytest.skip(f"the releases of tch are not here and cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found = {(package["name"], package["version"]) for package in json.loads(done.stdout)["packages"]}
    assert ("tch", VERSIONS[version]) in found and ("torch-sys", VERSIONS[version]) in found
    # Members and everything from the registry but the bindings are those of the committed Cargo.lock.
    locked = set(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', (CHECKOUT / "Cargo.lock").read_text()))
    assert {package for package in found if package[0] not in ("tch", "torch-sys")} <= locked


def test_a_version_that_nothing_fits_is_refused_with_those_that_build(tmp_path):
    done = cargo(libtorch(tmp_path, "2.8"), "build")
    assert done.returncode == 1
    assert "libtorch 2.8" in done.stderr and " ".join(VERSIONS) in done.stderr


def test_a_folder_without_headers_is_refused(tmp_path):
    done = cargo(tmp_path, "build")
    assert done.returncode == 1 and "version.h is missing" in done.stderr


def test_the_committed_workspace_serves_the_default(tmp_path):
    done = cargo(libtorch(tmp_path, "2.13"), "locate-project", "--workspace", "--message-format=plain")
    assert VERSIONS["2.13"] == DEFAULT and Path(done.stdout.strip()) == CHECKOUT / "Cargo.toml", done.stderr


def test_the_documented_command_finds_the_libtorch_of_an_environment():
    command = re.search(r"LIBTORCH=\$\(python (-c '.*')\)", (CHECKOUT / "docs" / "libtorch.md").read_text())[1]
    python = CHECKOUT / ".venv" / "bin" / "python"
    if not python.exists() or os.environ.get("LIBTORCH"):
        python = Path(sys.executable)
    done = subprocess.run(["bash", "-c", f"{python} {command}"], capture_output=True, text=True)
    if "NoneType" in done.stderr:
        pytest.skip(f"{python} has no torch: libtorch is not from a Python environment here")
    folder = Path(done.stdout.strip())
    assert (folder / "lib" / "libtorch_cpu.so").exists(), done.stdout + done.stderr
    # The same command, the script and the committed workspace agree on it.
    assert cargo(folder, "--version").returncode == 0
