"""Rank, then suppress what repeats a token ranked above it."""

from typing import Annotated

import torch
from torch import Tensor

from ..similarity import Cosines
from ..tokens import VisionTokens, take
from . import register_selector
from .top_k import highest

LEAST = -2.0  # below every cosine


@register_selector("nms", paper="this project; after Fast NMS (YOLACT, arXiv:1904.02689)")
def nms(scores: Tensor, tokens: VisionTokens, *, rounds: Annotated[int, range(1, 1001)] = 1) -> Tensor:
    """The `num_keep` tokens least similar to any token that outranks them.

    red_i = max over tokens j ranked above i of cos(x_i, x_j); the smallest red stay; the first of all
    outranks every one. With more `rounds` each chooses its share of the places (round r those from r·K //
    rounds on, and one with none is left out): from the second on, tokens rank by their distance to what is
    chosen already, and resembling the chosen counts as redundant too. No step within a round depends on
    another, unlike the greedy farthest-first search that it comes near to. Returns [B, K].
    """
    unit = tokens.unit_hidden_states()
    cosines = Cosines(unit)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    covered = torch.full_like(scores, LEAST)  # similarity to the nearest chosen token
    bounds = [tokens.num_keep * r // rounds for r in range(rounds + 1)]
    for count in (b - a for a, b in zip(bounds, bounds[1:], strict=False) if b > a):
        rank = torch.sort(scores, dim=-1, descending=True, stable=True).indices.argsort(
            dim=-1
        )  # 0 is the best
        above = cosines.row_max(lambda i, j, rank=rank: rank[:, i:j, None] > rank[:, None], LEAST)
        redundancy = torch.maximum(above, covered).masked_fill(chosen, float("inf"))
        new = highest(-redundancy, count)
        chosen = chosen.scatter(1, new, True)
        covered = torch.maximum(covered, (unit @ take(unit, new).transpose(1, 2)).amax(dim=-1))
        scores = -covered
    return highest(chosen.float(), tokens.num_keep)
