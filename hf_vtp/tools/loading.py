"""Loading from a folder, the local cache or the Hub, and an error soon where the Hub cannot be reached."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from huggingface_hub import constants, get_session

from ..hub import is_repo_id
from .bench.cli import UsageError, first_sentence

T = TypeVar("T")
PASSED_ON = (UsageError, ImportError, torch.OutOfMemoryError)
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

    Raises UsageError, one sentence that ends in `instead`, the advice what to do, for whatever the loader
    raises about a folder that is missing, garbled, cut short or misshapen.
    """
    exists, local = os.path.exists(name), os.path.isdir(name)
    if not exists and (name.startswith((os.sep, ".", "~")) or not is_repo_id(name)):
        raise UsageError(f"there is no folder {name}; {instead}")
    try:
        return loader(name, local_files_only=True)
    except PASSED_ON:
        raise
    except Exception as error:  # of Transformers, and of every library that it reads files with
        if local:
            raise UsageError(f"{name} cannot be loaded ({first_sentence(error)}); {instead}") from None
    if not reachable():
        raise UsageError(f"{name} is not in the local cache and the Hub cannot be reached; {instead}")
    try:
        return loader(name, local_files_only=False)
    except PASSED_ON:
        raise
    except Exception as error:
        raise UsageError(f"{name} cannot be loaded ({first_sentence(error)}); {instead}") from None


def without_code(auto: type, **kwargs) -> Callable:
    """An Auto class's `from_pretrained` that runs no code of a folder, and does not ask whether it may."""
    return partial(auto.from_pretrained, trust_remote_code=False, **kwargs)
