"""torch for the tests of the Python package, which the libtorch of `make setup` alone is not: its Python half needs NVIDIA's libraries.

Taken is the one of this interpreter, if it can be imported, else the one that `make bench` keeps for the published code. Import this module first,
and then torch.
"""

import importlib
import sys
import sysconfig

import pytest
from conftest import CHECKOUT

# Of an environment of the same version of Python.
PUBLISHED = CHECKOUT / ".deps" / "published" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def _imported():
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
            del sys.modules[name]
        if not (PUBLISHED / "torch").is_dir():
            pytest.skip(
                f"torch cannot be imported ({error}): install one with `pip install torch`, or set up .deps/published by `make bench` with "
                "RESTOK_PUBLISHED",
                allow_module_level=True,
            )
    # In front for torch and what it imports, behind for everything else.
    sys.path.insert(0, str(PUBLISHED))
    try:
        return importlib.import_module("torch")
    finally:
        sys.path.remove(str(PUBLISHED))
        sys.path.append(str(PUBLISHED))


torch = _imported()
