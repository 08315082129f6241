"""Rank, then suppress what repeats a token ranked above it."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from ...pruning.similarity import Cosines, outranked, ranks
from ...pruning.tokens import VisionTokens, take
from . import register_selector
from .top_k import highest

BOUND = 2.0  # above every cosine


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
    return farthest_in_rounds(
        scores,
        tokens.num_keep,
        rounds,
        lambda rank: -cosines.row_max(lambda i, j: outranked(rank, i, j, BOUND)),
        lambda columns: -(unit @ take(unit, columns).transpose(1, 2)).amax(dim=-1),
    )


def farthest_in_rounds(
    scores: Tensor,
    num_keep: int,
    rounds: int,
    to_outranking: Callable[[Tensor], Tensor],
    to: Callable[[Tensor], Tensor],
    bonus: Tensor | float = 0.0,
) -> Tensor:
    """The places, [B, num_keep], that are farthest from all that outrank them, chosen in `rounds`.

    `to_outranking(rank)` is the distance of each token to the nearest of a smaller `rank` [B, N], of the one
    without such anything; `to(columns)` that to the nearest at `columns` [B, K]; both are [B, N]. `bonus` [B,
    N] is added to a token's distance. The first round ranks by `scores` [B, N], each later one by the
    distance to what is chosen.
    """
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    nearest = torch.full_like(scores, float("inf"))  # distance to what is chosen
    bounds = [num_keep * r // rounds for r in range(rounds + 1)]
    for count in (b - a for a, b in zip(bounds, bounds[1:], strict=False) if b > a):
        rank = ranks(scores)
        above = to_outranking(rank).masked_fill(rank == 0, float("inf"))
        far = (torch.minimum(above, nearest) + bonus).masked_fill(chosen, float("-inf"))
        new = highest(far, count)
        chosen = chosen.scatter(1, new, True)
        nearest = torch.minimum(nearest, to(new))
        scores = nearest + bonus
    return highest(chosen.float(), num_keep)
