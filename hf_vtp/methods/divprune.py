"""DivPrune: the most diverse set, each time the token farthest from its nearest chosen one.

Paper: arXiv:2503.02175. Compared with vbdi/divprune, LLaVA/llava/model/llava_arch.py, commit 799e2d95, in
November 2026: the same tokens. Like that code it chooses among tokens behind the projector; inside a tower,
and where there is no language model, among hidden states.
"""

import torch
from torch import Tensor

from ..pruning.similarity import Cosines
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .table import register_method

LEAST = -2.0  # below every cosine


@register_selector("max_min_diversity", needs=("projected",), paper="DivPrune (arXiv:2503.02175)")
def max_min_diversity(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """Greedily the token farthest from its nearest chosen one; first the one whose nearest is farthest.

    Distance is 1 - cosine of the projected tokens, of hidden states where no projector comes next; scores are
    not looked at. `num_keep` steps of O(N·D). Returns [B, K].
    """
    cosines = Cosines(tokens.unit_projected_states())
    n, device = scores.shape[1], scores.device
    every = torch.arange(n, device=device, dtype=torch.float32)
    other = cosines.row_max(lambda i, j: ((every[i:j, None] - every).abs() * 4 + LEAST)[None])  # not itself
    chosen = other.argmin(dim=-1)  # [B]
    keep, closest = [chosen], torch.full_like(scores, LEAST)
    taken = torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(tokens.num_keep - 1):
        taken = taken.scatter(1, chosen[:, None], True)
        closest = torch.maximum(closest, cosines.of(chosen))
        chosen = closest.masked_fill(taken, -LEAST).argmin(dim=-1)
        keep.append(chosen)
    return torch.sort(torch.stack(keep, dim=1), dim=1).values


register_method(
    "divprune",
    scorer="equal",
    selector="max_min_diversity",
    merger="drop",
    summary="the most diverse set, farthest first",
    paper="DivPrune (arXiv:2503.02175)",
    layers="output",
)
