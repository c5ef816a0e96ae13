"""torch for the tests of the Python package, which the libtorch of `make setup` alone is not: its Python half needs NVIDIA's libraries.

Taken is the one of this interpreter, if it can be imported, else the one that `make bench` keeps for the published code.
"""

import importlib
import sys
import sysconfig
from pathlib import Path

from conftest import CHECKOUT

# Of an environment of the same version of Python.
PUBLISHED = CHECKOUT / ".deps" / "published" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def import_torch():
    """torch, and the folder that had to be first on the path for it, if any. An ImportError says what to do where there is none."""
    try:
        torch = importlib.import_module("torch")
        # An earlier test may have taken the other one.
        return torch, PUBLISHED if PUBLISHED in Path(torch.__file__).parents else None
    except ImportError as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
            del sys.modules[name]
        if not (PUBLISHED / "torch").is_dir():
            raise ImportError(
                f"torch cannot be imported ({error}): `pip install torch` into .venv, or have .deps/published set up by `make bench`"
            ) from error
    # First for torch and what it imports, last for everything else.
    sys.path.insert(0, str(PUBLISHED))
    try:
        return importlib.import_module("torch"), PUBLISHED
    finally:
        sys.path.remove(str(PUBLISHED))
        sys.path.append(str(PUBLISHED))
