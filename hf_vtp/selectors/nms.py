"""Rank, then suppress what repeats a token ranked above it."""

import torch
from torch import Tensor

from ..similarity import row_blocks
from ..tokens import VisionTokens, take
from . import register_selector
from .top_k import highest


@register_selector("nms", paper="this project; after Fast NMS (YOLACT, arXiv:1904.02689)")
def nms(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The `num_keep` tokens least similar to any token that outranks them.

    red_i = max over tokens j ranked above i of cos(x_i, x_j); the smallest red stay. One N×N product in row
    blocks, a masked max and a sort: no step depends on the one before. Returns [B, K].
    """
    rank = torch.sort(scores, dim=-1, descending=True, stable=True).indices  # [B, N]
    ranked = take(tokens.unit_hidden_states(), rank)  # [B, N, D]
    n = ranked.shape[1]
    redundancy = []
    for start, stop in row_blocks(n, n):
        cosine = ranked[:, start:stop] @ ranked[:, :stop].transpose(1, 2)  # [B, rows, stop]
        below = torch.ones(stop - start, stop, dtype=torch.bool, device=cosine.device).triu(start)
        redundancy.append(cosine.masked_fill(below, -2.0).amax(dim=-1))  # the first has nothing above it: -2
    redundancy = torch.cat(redundancy, dim=1)
    return highest(-redundancy.gather(1, rank.argsort(dim=-1)), tokens.num_keep)  # back to raster order first
