"""On a Transformers that hf_vtp was not tested with, a tiny model is pruned before the first of its class.

The package reads names and shapes that a release may change. Where one did, the tiny model's pruned results
are not those of the masked reference, and apply_vtp refuses instead of being silently wrong. For a class
without a row in the tables of families that is done on every release; where there is no tiny model of it, its
own first prompt is compared instead (families/first_use.py).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import transformers
from packaging.version import Version
from torch import nn

from .families.table import has_row
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
    """Let a tiny model of this model's class go first, once a process, where tests have not covered it.

    Raises RuntimeError with one sentence if what it gives is not what it must; a model without a recipe in
    `hf_vtp.verifying.tiny` passes.
    """
    version, known = transformers.__version__, has_row(model)
    if (tested(version) and known) or not first(model):
        return
    kind = transformers_class(model)
    with _lock:
        if not first(model):
            return
        with quiet():
            wrong = _check_tiny(kind, model, "qk_topk" if known else "random")
        if wrong:
            oldest, newest = (".".join(v.split(".")[:2]) for v in TESTED)
            reason = f"with the {version} installed here" if known else "for a class without a row in it"
            raise RuntimeError(
                f"hf_vtp was tested with Transformers {oldest} to {newest}, and {reason} pruning a tiny "
                f"{kind.__name__} goes wrong ({wrong}); install transformers~={TESTED[1]} or report this"
            )
        if known or wrong is not None:
            passed(model)


def first(model: nn.Module) -> bool:
    """Whether no model of this class was compared in this process, and nothing is being compared now."""
    return not getattr(_running, "now", False) and _code(model) not in _passed


def passed(model: nn.Module) -> None:
    """Have models of this class pass from now on."""
    _passed.add(_code(model))


@contextmanager
def quiet() -> Iterator[None]:
    """A `with` block, in this thread, in which nothing goes first: what it runs is compared itself."""
    before, _running.now = getattr(_running, "now", False), True
    try:
        yield
    finally:
        _running.now = before


def _code(model: nn.Module) -> tuple:
    text = getattr(model.config, "text_config", None)
    return transformers_class(model), getattr(text, "model_type", None)


def _check_tiny(kind: type, model: nn.Module, method: str) -> str | None:
    """What goes wrong with a tiny model of the class, "" if nothing does; None where there is none."""
    from .verifying.api import prepared, run
    from .verifying.tiny import tiny

    with _plain_surroundings():
        try:
            made = tiny(kind, model.config)
            if made is None:
                return None
            with prepared(*made, method=method, layer=0, keep_ratio=0.5, max_new_tokens=3) as case:
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
