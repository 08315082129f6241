"""Loading from a folder, the local cache or the Hub, and saying so soon where it cannot be reached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants, get_session
from safetensors import SafetensorError

from .cli import UsageError, first_sentence

T = TypeVar("T")
UNLOADABLE = (OSError, ValueError, RuntimeError, SafetensorError)  # missing, garbled, cut short, misshapen
TIMEOUT = 10  # seconds for the Hub to answer at all; its own retries take half a minute


def reachable() -> bool:
    """Whether the Hub answers; False, without asking, where HF_HUB_OFFLINE is set."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except Exception:  # every HTTP library that huggingface_hub ever used has its own
        return False
    return True


def load(name: str, loader: Callable[..., T], instead: str) -> T:
    """`loader(name, local_files_only=…)` from a folder or the cache, and from the Hub where they lack it.

    Raises UsageError with one sentence that ends in `instead`, what to do instead.
    """
    if not Path(name).exists() and (Path(name).is_absolute() or name.startswith((".", "~"))):
        raise UsageError(f"there is no folder {name}; {instead}")
    try:
        return loader(name, local_files_only=True)
    except UNLOADABLE as error:
        if Path(name).is_dir():
            raise UsageError(f"{name} cannot be loaded ({first_sentence(error)}); {instead}") from None
    if not reachable():
        raise UsageError(f"{name} is not in the local cache and the Hub cannot be reached; {instead}")
    try:
        return loader(name, local_files_only=False)
    except UNLOADABLE as error:
        raise UsageError(f"{name} cannot be loaded ({first_sentence(error)}); {instead}") from None
