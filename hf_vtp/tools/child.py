"""Commands that run other commands, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def script_of(name: str) -> Path | None:
    """The script of a command beside the script that runs; None where `hf-vtp` runs."""
    beside = Path(sys.argv[0]).resolve().with_name(f"{name.replace('-', '_')}.py")
    return beside if sys.argv[0].endswith(".py") and beside.is_file() else None


def start(name: str) -> list[str]:
    """How another command is started: as the script beside the running one, or by its name."""
    script = script_of(name)
    return [sys.executable, *(["-m", "hf_vtp.tools.commands", name] if script is None else [str(script)])]


def shown(name: str) -> list[str]:
    """The same as a user types it."""
    script = script_of(name)
    return ["hf-vtp", name] if script is None else ["python", f"scripts/{script.name}"]


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """`subprocess.run` of a command that finds this package wherever it runs."""
    paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    return subprocess.run(command, env=environment, **options)
