"""A row on its own against the same row in a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import apply as patch
from ..differences import Difference, between
from .batch import images_of_rows, row_alone, with_neighbour
from .case import Case, Seen
from .checks import needs_prompt
from .full_prompt import compared, full_mask
from .outcome import NotApplicable, Outcome
from .rounding import Measured

MOST_ROWS = 4  # of a batch that are run on their own
FEW = 0.05  # share of the kept tokens that rounding in a low precision may choose otherwise


def batch(case: Measured) -> Outcome:
    if case.prompted:
        needs_prompt(case)
        return _prompts(case)
    return _images(case)


def _prompts(case: Measured) -> Outcome:
    within: Case = case
    if len(case.inputs["input_ids"]) == 1:
        if case.decodes:
            raise NotApplicable("an encoder counts columns of padding, which make another prompt of one row")
        within = Case(case.model, with_neighbour(case, row_alone(case, 0)), case.config)
    mask, owners, together = full_mask(within), images_of_rows(within), within.pruned
    first, kept, pairs, all_kept = 0, [], [], within.kept(within.pruned)
    starts = {}
    for name, rows in owners.items():
        starts[name], first = first, first + sum(map(len, rows))
    for r in range(min(len(mask), MOST_ROWS)):
        images = [starts[name] + i for name, rows in owners.items() for i in rows[r]]
        alone = _pruned(case, row_alone(within, r), bool(images))
        if images:
            kept += zip(within.kept(alone), (all_kept[i] for i in images), strict=True)
        there = compared(within)[r]
        pairs.append((together.outputs["hidden states"][r][there], alone.outputs["hidden states"][0]))
    what = f"rows 0 to {len(pairs) - 1} of {len(mask)}"
    what = what if within is case else "the only row, and beside it one with more text in front"
    return _outcome(case, case.prompt_noise, kept, pairs, what)


def _images(case: Measured) -> Outcome:
    pixels, together, inputs = case.inputs["pixel_values"], case.pruned, case.inputs
    what = f"images 0 to {min(len(pixels), MOST_ROWS) - 1} of {len(pixels)}"
    if len(pixels) == 1:
        inputs = {name: torch.cat([x, x]) if _one_an_image(x, 1) else x for name, x in inputs.items()}
        pixels = inputs["pixel_values"] = torch.cat([pixels, pixels.flip(-1)])
        what, together = "the only image, and beside it its mirror image", _pruned(case, inputs)
    kept, pairs, prefix = [], [], case.tower.num_prefix_tokens
    for b in range(min(len(pixels), MOST_ROWS)):
        own = {name: x[b : b + 1] if _one_an_image(x, len(pixels)) else x for name, x in inputs.items()}
        alone = _pruned(case, own)
        stats = (alone.stats.keep_indices[0], together.stats.keep_indices[b])
        kept.append(stats)
        rows = zip((together.last_layer[b], alone.last_layer[0]), reversed(stats), strict=True)
        pairs.append(tuple(x[: prefix + len(keep)] for x, keep in rows))
    return _outcome(case, case.tower_noise, kept, pairs, what)


def _one_an_image(x: object, count: int) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == count


def _pruned(case: Measured, inputs: dict, pictured: bool = True) -> Seen:
    with patch.vtp(case.model, case.config):
        return case.look_pruned(inputs) if pictured else case.look(inputs)


def _outcome(
    case: Measured,
    noise: Difference,
    kept: list[tuple[Tensor, Tensor]],
    pairs: list[tuple[Tensor, Tensor]],
    what: str,
) -> Outcome:
    """Of what was kept, alone and together, and of the states (together, alone) that follow from it."""
    other = [len(set(a.tolist()) ^ set(b.tolist())) for a, b in kept]
    worst = Difference()
    for together, alone in pairs:
        if together.shape == alone.shape:  # else other numbers were kept, as `other` says
            worst = worst | between(together, alone)
    outcome = Outcome(worst, case.bounds.over(noise), detail=what)
    if any(other):
        said = f"{sum(map(bool, other))} of {len(kept)} images kept other tokens"
        few = sum(other) <= FEW * sum(len(a) + len(b) for a, b in kept)
        if few and case.bounds.precision not in ("float32", "float64"):
            outcome.undecided = True
            outcome.detail += f"; {said}: rounding may choose among equals, load the model in float32 to tell"
        else:
            outcome.wrong = said
    return outcome
