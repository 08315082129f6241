"""Least like what is chosen already."""

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens, take
from . import register_selector


@register_selector("least_similar", paper="ToDRE (arXiv:2505.18757)")
def least_similar(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """Greedily the token with the least sum of cosines to the chosen; first the one with the least to all.

    Scores are not looked at. `num_keep` steps of O(N·D). Returns [B, K].
    """
    unit = tokens.unit_hidden_states()
    similarity = (unit @ unit.sum(dim=1).unsqueeze(-1)).squeeze(-1)  # [B, N]
    total, keep = torch.zeros_like(similarity), []
    taken = torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(tokens.num_keep):
        keep.append(similarity.masked_fill(taken, float("inf")).argmin(dim=-1))
        taken = taken.scatter(1, keep[-1][:, None], True)
        total = total + (unit @ take(unit, keep[-1][:, None]).transpose(1, 2)).squeeze(-1)
        similarity = total
    return torch.sort(torch.stack(keep, dim=1), dim=1).values
