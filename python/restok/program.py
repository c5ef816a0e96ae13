"""The program `restok`: where it is, and runs of it."""

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from restok.errors import ProgramError

_NAME = "restok"
_VARIABLE = "RESTOK_BINARY"
# Lines of its log that an error repeats: the last ones say what ended it.
_LINES_OF_AN_ERROR = 20


def find_program(binary: str | os.PathLike[str] | None = None) -> str:
    """The program: as given, or RESTOK_BINARY, or the one that was installed with this package, or `restok` on the PATH."""
    named = os.fspath(binary) if binary is not None else os.environ.get(_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            origin = "binary" if binary is not None else _VARIABLE
            raise ProgramError(f"{origin} is {named}, expected a program that can be run")
        return found
    found = _installed() or shutil.which(_NAME)
    if found is None:
        raise ProgramError(
            f"no `{_NAME}` on the PATH: build it with `make build`, and name it by {_VARIABLE} or `binary=`, "
            "or install the wheel of `make wheel`"
        )
    return found


def _installed() -> str | None:
    """The program of the wheel that this package was installed from, if it has one. Notebooks run without its folder on the PATH."""
    try:
        wheel = importlib.metadata.distribution(_NAME)
    except importlib.metadata.PackageNotFoundError:
        return None
    # This package may lie elsewhere, in a checkout.
    if Path(str(wheel.locate_file(f"{_NAME}/{Path(__file__).name}"))).resolve() != Path(__file__).resolve():
        return None
    return next((found for file in wheel.files or () if file.name == _NAME and (found := shutil.which(str(file.locate())))), None)


def run_program(program: str, arguments: Sequence[str | os.PathLike[str]]) -> str:
    """Runs it and returns what it printed on standard output. Its settings are the arguments alone: RESTOK_… variables are not passed on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTOK_")}
    command = [program, *(os.fspath(argument) for argument in arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        log = "\n".join(done.stderr.strip().splitlines()[-_LINES_OF_AN_ERROR:])
        raise ProgramError(f"restok {' '.join(command[1:2])} ended with exit code {done.returncode}, expected 0:\n{log}")
    return done.stdout
