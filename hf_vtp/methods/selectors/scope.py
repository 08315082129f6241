"""Coverage, weighted by the score."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.similarity import relevance
from ...pruning.tokens import VisionTokens
from . import register_selector


@register_selector("scope", paper="SCOPE (arXiv:2510.24214)", limit=4096)
def scope(scores: Tensor, tokens: VisionTokens, *, alpha: Annotated[float, (0.0, 10.0)] = 1.0) -> Tensor:
    """Greedily the token that adds most to the cosines that cover all tokens, times its score^alpha.

    gain_j = Σ_i max(0, cos_ij - cover_i), cover_i the largest cosine of i with a chosen token, 0 at first.
    Scores below 0 count as 0, as ones where an image has none above. `num_keep` steps of O(N²). Returns [B,
    K].
    """
    unit, weight = tokens.unit_hidden_states(), relevance(scores) ** alpha
    return most_covering(unit @ unit.transpose(1, 2), weight, tokens.num_keep)


def most_covering(rows: Tensor, weight: Tensor, count: int) -> Tensor:
    """Columns of `rows` [B, R, N] chosen greedily by Σ_r max(0, rows_rj - cover_r) · weight_j, [B, count].

    cover_r is the largest entry of row r in a chosen column, 0 at first.
    """
    cover = torch.zeros_like(rows[:, :, :1])
    taken = torch.zeros_like(weight, dtype=torch.bool)
    keep, more = [], torch.empty_like(rows)
    for _ in range(count):
        gain = torch.sub(rows, cover, out=more).clamp_(min=0).sum(dim=1)  # [B, N]
        chosen = (gain * weight).masked_fill(taken, -1.0).argmax(dim=-1)[:, None]
        keep.append(chosen)
        taken = taken.scatter(1, chosen, True)
        column = rows.gather(2, chosen.unsqueeze(1).expand(-1, rows.shape[1], -1))
        cover = torch.maximum(cover, column)
    return torch.sort(torch.cat(keep, dim=1), dim=1).values
