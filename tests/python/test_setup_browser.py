"""`tools/setup.sh browser`, with programs that only look like browsers: what it accepts, what it says, and how often it asks apt-get."""

import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "tools" / "setup.sh"
# What the script itself calls, besides what the test puts in its place.
TOOLS = ("bash", "cat", "cut", "dirname", "env", "grep", "head", "ln", "mkdir", "readlink", "rm", "sha256sum", "tr")

IS_UBUNTU = "\nID=ubuntu\n" in "\n" + (Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else "")
not_on_ubuntu = pytest.mark.skipif(IS_UBUNTU, reason="on Ubuntu nothing is installed: Chromium is a snap there")


class Machine:
    """A checkout and the programs of a system; the user is root."""

    def __init__(self, root):
        self.checkout, self.programs = root / "checkout", root / "programs"
        (self.checkout / "tools").mkdir(parents=True)
        shutil.copy(SETUP, self.checkout / "tools")
        self.programs.mkdir()
        for name in TOOLS:
            (self.programs / name).symlink_to(shutil.which(name))
        self.program("id", "echo 0")

    def program(self, name, *lines):
        path = self.programs / name
        path.write_text("\n".join(("#!" + shutil.which("bash"), *lines, "")))
        path.chmod(0o755)

    def setup(self, **variables):
        command = [shutil.which("bash"), self.checkout / "tools" / "setup.sh", "browser"]
        subprocess.run(command, check=True, env={"PATH": str(self.programs), **variables}, stderr=subprocess.PIPE, timeout=60)
        reason = self.checkout / ".deps" / "no-browser"
        return reason.read_text().strip() if reason.exists() else None

    def placed(self):
        return sorted(path.name for path in (self.checkout / ".deps" / "bin").glob("*"))


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_both_of_one_version_are_taken(machine):
    machine.program("chromium", "echo Chromium 150.0.1")
    machine.program("chromedriver", "echo ChromeDriver 150.0.9")
    assert machine.setup() is None
    assert machine.placed() == ["chromedriver", "chromium"]


def test_what_no_longer_fits_is_taken_away_again(machine):
    machine.program("chromium", "echo Chromium 150.0.1")
    machine.program("chromedriver", "echo ChromeDriver 150.0.9")
    machine.program("apt-get", "exit 1")
    assert machine.setup() is None
    machine.program("chromedriver", "echo ChromeDriver 149.0.9")
    reason = machine.setup()
    assert machine.placed() == []
    assert IS_UBUNTU or "apt-get could not" in reason
    # As another user, who is not asked to install anything.
    machine.program("id", "echo 1000")
    assert "'150'" in machine.setup() and "'149'" in machine.setup()
    machine.program("chromedriver", "exit 1")
    assert "version ''" in machine.setup()
    machine.program("chromedriver", "echo ChromeDriver 150.0.9")
    assert machine.setup() is None


@not_on_ubuntu
def test_an_installation_that_failed_is_not_tried_again(machine):
    calls = machine.checkout / "calls"
    machine.program("apt-get", f'echo "$@" >>{calls}', 'echo "E: no mirror"', "exit 100")
    assert "E: no mirror" in machine.setup()
    assert "E: no mirror" in machine.setup()
    (call,) = calls.read_text().splitlines()
    assert "Acquire::Retries=0" in call and "Acquire::http::Timeout=15" in call and call.endswith("update")
    # A browser that has appeared meanwhile is taken all the same.
    machine.program("chromium", "echo Chromium 150.0.1")
    machine.program("chromedriver", "echo ChromeDriver 150.0.9")
    assert machine.setup() is None
    # Whoever removes the reason, or changes the script, has it tried again.
    (machine.programs / "chromium").unlink()
    machine.setup()
    (machine.checkout / ".deps" / "no-browser").unlink()
    machine.setup()
    with (machine.checkout / "tools" / "setup.sh").open("a") as script:
        script.write("# changed\n")
    machine.setup()
    assert len(calls.read_text().splitlines()) == 4


def test_nothing_is_installed_where_that_is_forbidden(machine):
    machine.program("apt-get", "exit 100")
    machine.program("chromium", "echo Chromium 150.0.1")
    machine.program("chromedriver", "echo ChromeDriver 150.0.9")
    machine.setup()
    assert "RESTOK_NO_BROWSER" in machine.setup(RESTOK_NO_BROWSER="1")
    assert machine.placed() == []
    assert machine.setup() is None


def test_a_snap_is_passed_over(machine):
    machine.program("id", "echo 1000")
    machine.program("chromium", "exec /snap/bin/chromium")
    machine.program("chromedriver", "echo ChromeDriver 150.0.9")
    assert "is a snap" in machine.setup()
    machine.program("google-chrome", "echo Google Chrome 150.0.1")
    assert machine.setup() is None
