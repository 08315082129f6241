"""The scripts as modules, and as a user runs them."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def script(name):
    """scripts/NAME.py, which may import those beside it as it can when it is run."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *argv):
    """The exit code of `python scripts/NAME.py ARGV`, in this process."""
    before, path = sys.argv, str(SCRIPTS / f"{name}.py")
    sys.argv = [path, *map(str, argv)]
    try:
        with pytest.raises(SystemExit) as done:
            runpy.run_path(path, run_name="__main__")
    finally:
        sys.argv = before
    return done.value.code
