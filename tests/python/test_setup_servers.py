"""`tools/setup.sh servers` and `ray`, with programs that only look like pip and npm: what they leave, what they say, and how often they try."""

import shutil
import subprocess

import pytest
from test_setup_browser import SETUP, Machine

REQUIREMENTS = SETUP.parent / "requirements-servers.txt"


class Servers(Machine):
    """The servers are installed by a `python3` and an `npm` that write down their calls."""

    def __init__(self, root):
        super().__init__(root)
        shutil.copy(REQUIREMENTS, self.checkout / "tools")
        (self.programs / "cp").symlink_to(shutil.which("cp"))
        self.calls = self.checkout / "calls"
        self.python(0)
        self.npm(0)

    def python(self, code, server="exit 0"):
        """An environment whose pip ends with that code, and the server that it leaves."""
        self.program("server", server)
        install = f'for name in moto_server restok-ray; do [ {code} = 0 ] && cp {self.programs}/server "$(dirname "$0")/$name"; done'
        self.program("pip", f'echo "pip $@" >>{self.calls}', install, f"exit {code}")
        self.program("python3", f'mkdir -p "$3/bin"; cp {self.programs}/pip "$3/bin/python"')

    def npm(self, code):
        made = ".deps/servers/node_modules/.bin"
        install = f"[ {code} = 0 ] && mkdir -p {made} && cp {self.programs}/server {made}/azurite-blob"
        self.program("npm", f'echo "npm $@" >>{self.calls}', install, f"exit {code}")

    def run(self, part, **variables):
        command = [shutil.which("bash"), self.checkout / "tools" / "setup.sh", part]
        subprocess.run(command, check=True, env={"PATH": str(self.programs), **variables}, stderr=subprocess.PIPE, timeout=60)

    def setup(self, **variables):
        self.run("servers", **variables)
        reasons = (self.checkout / ".deps" / f"no-{name}" for name in ("moto", "azurite"))
        return tuple(reason.read_text().strip() if reason.exists() else None for reason in reasons)

    def called(self):
        return [line.split()[0] for line in self.calls.read_text().splitlines()] if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path):
    return Servers(tmp_path)


def test_both_are_installed_once(machine):
    assert machine.setup() == (None, None)
    assert machine.setup() == (None, None)
    assert machine.called() == ["pip", "npm"]


def test_one_that_failed_is_not_tried_again_and_does_not_stop_the_other(machine):
    machine.python(1)
    moto, azurite = machine.setup()
    assert "pip could not install it" in moto and azurite is None
    assert machine.setup() == (moto, None)
    assert machine.called() == ["pip", "npm"]
    (machine.checkout / ".deps" / "no-moto").unlink()
    machine.python(0)
    assert machine.setup() == (None, None)
    assert machine.called() == ["pip", "npm", "pip"]


def test_a_reason_of_yesterday_is_not_told_today(machine):
    machine.python(1)
    machine.setup()
    machine.setup(RESTOK_NO_SERVERS="1")
    assert "pip could not install it" in machine.setup()[0]


def test_one_that_does_not_run_is_not_there(machine):
    machine.python(0, server="exit 1")
    moto, azurite = machine.setup()
    assert "does not run" in moto and "does not run" in azurite


def test_without_npm_azurite_says_so(machine):
    (machine.programs / "npm").unlink()
    moto, azurite = machine.setup()
    assert moto is None and "npm is missing" in azurite


def test_nothing_is_installed_where_that_is_forbidden(machine):
    assert all("RESTOK_NO_SERVERS" in reason for reason in machine.setup(RESTOK_NO_SERVERS="1"))
    assert machine.called() == []
    assert machine.setup() == (None, None)


def test_ray_is_installed_once_and_has_a_variable_of_its_own(machine):
    (machine.checkout / "engines/ray").mkdir(parents=True)
    shutil.copy(SETUP.parents[1] / "engines/ray/pyproject.toml", machine.checkout / "engines/ray")
    reason = machine.checkout / ".deps" / "no-ray"
    machine.run("ray", RESTOK_NO_SERVERS="1")
    machine.run("ray")
    assert machine.called() == ["pip"] and not reason.exists()
    machine.run("ray", RESTOK_NO_RAY="1")
    assert "RESTOK_NO_RAY" in reason.read_text()
