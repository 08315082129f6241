"""verify: the promises of pruning, checked on a model at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .. import canary
from ..apply import applied, unpruned, unwrap, vtp
from ..config import VTPConfig
from ..differences import Bounds, precision
from ..environment import environment
from . import alone, checks
from .footprint import Footprint
from .outcome import NotApplicable, Outcome
from .report import Check, Report
from .rounding import Measured

CHECKS: dict[str, tuple[str, Callable[[Measured], Outcome]]] = {
    "undo": ("The unpruned model against itself after pruning was applied, run and taken off", checks.undo),
    "ratio 1.0": ("The model pruned at keep_ratio 1.0 against the unpruned one", checks.ratio_one),
    "tower rounding": (
        "The unpruned tower against the reference with nothing masked and each layer rounded otherwise",
        checks.tower_rounding,
    ),
    "tower": (
        "The kept tokens of the pruned tower against those of the full one in which the others are masked",
        checks.tower,
    ),
    "absorbed": (
        "The pruned tower against the full one in which every token holds the mean of its group",
        checks.absorbed,
    ),
    "prompt rounding": (
        "The unpruned model against itself with other padding and each layer rounded otherwise",
        checks.prompt_rounding,
    ),
    "prompt": (
        "All logits of the pruned prompt against the full one whose dropped placeholders are masked",
        checks.prompt,
    ),
    "batch": ("A row on its own against the same row in a batch", alone.batch),
    "generate": ("Greedy words of the pruned model against those of the masked full prompt", checks.generate),
}


def verify(
    model: nn.Module,
    inputs: dict,
    config: VTPConfig | str | os.PathLike | None = None,
    *,
    tolerance: float | None = None,
    max_new_tokens: int = 8,
    **overrides,
) -> Report:
    """Which promises of pruning hold on this model with these inputs, with figures; print what it returns.

    `inputs` is what the processor returned for one batch. A pruned model is verified as it is pruned, and the
    same pruning holds afterwards; of another, `config` and VTPConfig's fields say how, as in apply_vtp.
    No weights are copied, and logits of whole prompts are never there at once. The model is as before
    afterwards.

    A figure is the largest relative difference ‖a - b‖ / ‖b‖ over rows: tokens of a tower, columns of a
    prompt. `tolerance` is how large it may be; without one it may be four times what rounding was seen to
    make of the unpruned model (the checks called rounding), within limits by precision:

        float32 and wider 1e-4 to 1e-3, TF32 and float16 2e-3 to 3e-2, bfloat16 1e-2 to 1.5e-1

    "undo" and "ratio 1.0" must be equal to the bit. A check that raises does not hold; its row says what was
    raised.

    Raises ValueError or TypeError as apply_vtp does, and ValueError for inputs without an image.
    """
    root = unwrap(model)
    with prepared(model, inputs, config, tolerance, max_new_tokens, **overrides) as case:
        found = [run(case, name) for name in CHECKS]
    about = (type(root).__name__, case.bounds.precision, case.config.to_dict())
    return Report(*about, found, environment(next(root.parameters()).device))


@contextmanager
def prepared(
    model: nn.Module,
    inputs: dict,
    config: VTPConfig | str | os.PathLike | None = None,
    tolerance: float | None = None,
    max_new_tokens: int = 8,
    **overrides,
) -> Iterator[Measured]:
    """The arguments of `verify` as a case, with the model ready for checks inside the `with` block."""
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be a whole number of at least 1, not {max_new_tokens!r}")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be larger than 0, not {tolerance!r}")
    root = unwrap(model)
    pruned = applied(root)
    if pruned is not None and config is None:
        config = pruned.config
    with untouched(root), canary.quiet():
        with vtp(root, config, **overrides):
            config = applied(root).config
        yield Measured(root, dict(inputs), config, max_new_tokens, Bounds(precision(root), tolerance))


def run(case: Measured, name: str) -> Check:
    """One check of CHECKS."""
    sentence, function = CHECKS[name]
    try:
        outcome = function(case)
    except NotApplicable as reason:
        return Check(name, sentence, None, detail=f"{str(reason)[0].upper()}{str(reason)[1:]}")
    except Exception as error:  # whatever it is, it is what somebody would meet
        first = next(iter(str(error).splitlines()), "")
        return Check(name, sentence, False, detail=f"{type(error).__name__}: {first}")
    said = "; ".join(part for part in (outcome.wrong, outcome.detail) if part)
    return Check(name, sentence, outcome.holds, outcome.difference.relative, outcome.bound, said)


@contextmanager
def untouched(root: nn.Module) -> Iterator[None]:
    """The model unpruned, in eval mode and without gradients in a `with` block; as it was after it."""
    with unpruned(root):
        before = Footprint(root)
        try:
            root.eval()
            root.config.return_dict = True  # not tuples, whose places are not names
            with torch.no_grad():
                yield
        finally:
            before.restore()
