"""Farthest first."""

import torch
from torch import Tensor

from ...pruning.similarity import Cosines
from ...pruning.tokens import VisionTokens
from . import register_selector

LEAST = -2.0  # below every cosine


@register_selector("max_min_diversity", paper="DivPrune (arXiv:2503.02175)")
def max_min_diversity(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """Greedily the token farthest from its nearest chosen one; first the one whose nearest is farthest.

    Distance is 1 - cosine of the hidden states; scores are not looked at. `num_keep` steps of O(N·D).
    Returns [B, K].
    """
    cosines = Cosines(tokens.unit_hidden_states())
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
