"""The manners of a command line: wrong input is one sentence on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ..files import replacing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTION = {  # by name, and what it needs
    "eager": "",
    "sdpa": "",
    "flex_attention": "a CUDA device",  # on a CPU torch 2.13 dies of it without an exception
    "flash_attention_2": "a CUDA device and bfloat16 or float16",
    "flash_attention_3": "a CUDA device and bfloat16 or float16",
}
ANYWHERE = [name for name, needs in ATTENTION.items() if not needs]
BENCH_EXTRA = 'pip install "hf-vtp[bench]"'
MODULE_OF_EXTRA = {
    **{name: name for name in ("rich", "matplotlib")},
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
}


class UsageError(Exception):
    """Input that cannot be used; its text is the one sentence the user reads."""


class Parser(argparse.ArgumentParser):
    """argparse without the usage lines in front of an error."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> int:
    """Call `main(argv)`; the exit code, 2 after wrong input, whose one sentence is then on stderr."""
    try:
        main(sys.argv[1:] if argv is None else argv)
        return 0
    except SystemExit as done:
        return done.code or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except UsageError as error:
        sentence = str(error)
    except torch.OutOfMemoryError:
        sentence = "the device is out of memory; choose a smaller batch size"
    print(f"{Path(sys.argv[0]).name}: {sentence}", file=sys.stderr)
    return 2


def first_sentence(error: BaseException) -> str:
    """The first line of an exception's message: libraries put advice for programmers behind it."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def count(text: str) -> int:
    """argparse type: an int of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return value


def unique(values: list) -> list:
    """The values without repeats, in their order."""
    return list(dict.fromkeys(values))


def device(name: str | None) -> torch.device:
    """The device named, or CUDA if there; raises UsageError if this machine has no such device."""
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    wanted = name or ("cuda" if torch.cuda.is_available() else "cpu")
    allowed = [*there, "cuda"] if torch.cuda.is_available() else there
    if wanted not in allowed:
        raise UsageError(f"--device {wanted} is not on this machine; choose from {', '.join(there)}")
    return torch.device(wanted)


def set_attention(model, name: str, dtype: torch.dtype, on: torch.device) -> None:
    """Have a Transformers model use this attention; raises UsageError where it cannot run."""
    needs = ATTENTION[name]
    if needs and (on.type != "cuda" or (name.startswith("flash") and dtype == torch.float32)):
        raise UsageError(f"{name} needs {needs}; choose from {', '.join(ANYWHERE)}")
    try:
        model.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        reason = first_sentence(error)
        raise UsageError(f"{name} cannot be used ({reason}); choose from {', '.join(ANYWHERE)}") from None


def require(*extras: str) -> None:
    """Raise UsageError unless these packages of the `bench` extra are installed."""
    missing = [name for name in extras if importlib.util.find_spec(MODULE_OF_EXTRA[name]) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} is not installed; run {BENCH_EXTRA}")


def writable(path: str | None, *suffixes: str) -> Path | None:
    """The path, once it is known that a file can be written there; checked before anything is measured."""
    if path is None:
        return None
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file")
    if suffixes and target.suffix.lower() not in suffixes:
        raise UsageError(f"{path} must end in one of {', '.join(suffixes)}")
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist; make it or write elsewhere")
    try:
        with replacing(target):
            raise UsageError("")  # a rehearsal that puts nothing in place
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); choose another folder") from None
    except UsageError:
        return target


def command(argv: list[str]) -> str:
    """What the user typed, fit to be typed again from the same folder."""
    script = Path(sys.argv[0])
    shown = script if not script.is_absolute() else Path("scripts") / script.name
    return shlex.join(["python", str(shown), *argv])
