"""The manners of a command line: wrong input is one sentence on stderr, exit code 2, nothing half-written."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from ...files import replacing

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTION = {  # by name, and what it needs
    "eager": "",
    "sdpa": "",
    "flex_attention": "a CUDA device",  # on a CPU torch 2.13 dies of it without an exception
    "flash_attention_2": "a CUDA device and bfloat16 or float16",
    "flash_attention_3": "a CUDA device and bfloat16 or float16",
}
MOST = 2**31 - 1  # of a count: beyond it libraries fail, each in its own way
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
    """argparse without the usage lines in front of an error, for what sys.argv says is running."""

    def __init__(self, **options):
        super().__init__(prog=program(), **options)

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def run(main: Callable[[list[str]], None], argv: list[str] | None = None) -> int:
    """Call `main(argv)`; the exit code, 2 after wrong input, whose one sentence is then on stderr."""
    try:
        main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return 0
    except SystemExit as done:
        return done.code or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except UsageError as error:
        sentence = str(error)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _out_of_memory(error):
            raise
        sentence = "the device is out of memory; choose a smaller batch size"
    except OSError as error:  # of files and folders, a full disk among them
        sentence = f"{error.filename or 'a file'} cannot be read or written ({reason(error)})"
        _drop_output()
    print(f"{program()}: {' '.join(sentence.splitlines())}", file=sys.stderr)
    return 2


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)  # of a CPU


def _drop_output() -> None:
    """Forget what cannot be printed: a disk that is full, or a reader that has gone."""
    try:
        sys.stdout.flush()
    except OSError:  # else the interpreter would try once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def first_sentence(error: BaseException) -> str:
    """The first line of an exception's message: libraries put advice for programmers behind it."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def reason(error: BaseException) -> str:
    """Why a file cannot be used, in the system's words where it has some."""
    return getattr(error, "strerror", None) or first_sentence(error)


def count(text: str) -> int:
    """argparse type: an int of at least 1."""
    return _whole(text, 1, MOST, "at least 1")


def seed(text: str) -> int:
    """argparse type: an int that every library takes for a seed."""
    return _whole(text, 0, MOST, "at least 0")


def threads(text: str) -> int:
    """argparse type: a number of threads or processes that a machine can start."""
    return _whole(text, 1, 1024, "at least 1")


def port(text: str) -> int:
    """argparse type: a port of this machine."""
    return _whole(text, 1, 65535, "at least 1")


def layer(text: str) -> int | str | tuple[int, ...] | None:
    """argparse type: "default", "output", a layer, or several with commas between them."""
    if text in ("default", "output"):
        return None if text == "default" else text
    try:
        layers = tuple(int(part) for part in text.split(","))
    except ValueError:
        sentence = f"must be default, output, a number, or numbers with commas between them, not {text}"
        raise argparse.ArgumentTypeError(sentence) from None
    return layers[0] if len(layers) == 1 else layers


def _whole(text: str, least: int, most: int, allowed: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value > most:
        raise argparse.ArgumentTypeError(f"must be at most {most}, not {text}")
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of {allowed}, not {text}")
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
    try:
        if target.is_dir():
            raise UsageError(f"{path or 'an empty name'} is a folder; give the name of a file")
        if suffixes and target.suffix.lower() not in suffixes:
            raise UsageError(f"{path} must end in one of {', '.join(suffixes)}")
        if not target.parent.is_dir():
            raise UsageError(f"the folder {target.parent} does not exist; make it or write elsewhere")
        with replacing(target):
            raise _Rehearsed  # nothing is put in place
    except _Rehearsed:
        return target
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be written ({reason(error)}); choose another file") from None


def folder(path: str, option: str) -> Path:
    """The folder, there or not, once it is known that files can be written in it; nothing is left in it."""
    target = Path(path)
    try:
        if not target.parent.is_dir():
            raise UsageError(f"the folder {target.parent} does not exist; make it or write elsewhere")
        if not os.path.lexists(target):
            target.mkdir()
            target.rmdir()
        elif not target.is_dir():
            raise UsageError(f"{option} {path} is a file; give the name of a folder")
        else:
            with tempfile.TemporaryFile(dir=target):
                pass
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {path} cannot be written ({reason(error)}); choose another") from None
    return target


class _Rehearsed(Exception):
    pass


def program() -> str:
    """The script that runs, or `hf-vtp` with its command."""
    return Path(sys.argv[0]).name


def command() -> str:
    """What the user typed, fit to be typed again from the same folder."""
    script = Path(sys.argv[0])
    if script.suffix != ".py":
        return shlex.join([*program().split(), *sys.argv[1:]])
    shown = script if not script.is_absolute() else Path("scripts") / script.name
    return shlex.join(["python", str(shown), *sys.argv[1:]])
