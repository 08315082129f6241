"""On a Transformers that hf_vtp was not tested with, a tiny model is pruned before the first of its class.

The package reads names and shapes that a release may change. Where one did, the tiny model's pruned results
are not those of the masked reference, and apply_vtp refuses instead of being silently wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers
from packaging.version import Version
from torch import nn

from .names import transformers_class

TESTED = ("5.12.0", "5.24.0")  # the oldest and the newest Transformers that the tests run on; said here only
CHECKS = ("ratio 1.0", "tower", "prompt", "generate")  # of hf_vtp.verify

_passed: set[tuple] = set()  # model classes with their language models' types, in this process
_lock = threading.RLock()
_running = threading.local()  # the canary itself applies pruning


def tested(version: str) -> bool:
    """Whether a release lies in the tested range; patches of the newest do, what comes before a later not."""
    oldest, newest = map(Version, TESTED)
    found = Version(version)
    return oldest <= found and found.release[:2] <= newest.release[:2]


def check(model: nn.Module) -> None:
    """Let a tiny model of this model's class go first, once a process, unless this Transformers was tested.

    Raises RuntimeError with one sentence if what it gives is not what it must; a model without a recipe in
    `hf_vtp.verifying.tiny` passes.
    """
    version = transformers.__version__
    if tested(version) or getattr(_running, "now", False):
        return
    kind, text = transformers_class(model), getattr(model.config, "text_config", None)
    code = (kind, getattr(text, "model_type", None))
    with _lock:
        if code in _passed:
            return
        _running.now = True
        try:
            wrong = _check_tiny(kind, model)
        finally:
            _running.now = False
        if wrong:
            oldest, newest = (".".join(v.split(".")[:2]) for v in TESTED)
            raise RuntimeError(
                f"hf_vtp was tested with Transformers {oldest} to {newest}, and with the {version} installed "
                f"here pruning a tiny {kind.__name__} goes wrong ({wrong}); install "
                f"transformers~={TESTED[1]} or report this"
            )
        _passed.add(code)


def _check_tiny(kind: type, model: nn.Module) -> str:
    """What goes wrong with a tiny model of the class, "" if nothing does."""
    from .verifying.api import prepared, run
    from .verifying.tiny import tiny

    with _plain_surroundings():
        try:
            made = tiny(kind, model.config)
            if made is None:
                return ""
            with prepared(*made, method="qk_topk", layer=0, keep_ratio=0.5, max_new_tokens=3) as case:
                found = [run(case, name) for name in CHECKS]
        except Exception as error:  # whatever a changed name leads to
            return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    failed = next((check for check in found if check.holds is False), None)
    if failed is None:
        return ""
    figure = (
        "" if failed.figure is None else f", difference {failed.figure:.1e} where {failed.bound:.0e} may be"
    )
    return f"check {failed.name!r}{figure}" + (f": {failed.detail}" if failed.figure is None else "")


@contextmanager
def _plain_surroundings() -> Iterator[None]:
    """float32 on the CPU whatever the caller's defaults are; these and the random state hold afterwards."""
    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"), torch.autocast("cpu", enabled=False), torch.inference_mode(False):
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(state)
