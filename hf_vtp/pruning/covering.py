"""Greedy coverage: columns of a matrix that together cover its rows."""

import torch
from torch import Tensor


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
