"""Weighted Ward clustering."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.similarity import relevance
from ...pruning.tokens import Choice, VisionTokens
from ...pruning.ward import WINDOW
from ...pruning.ward import ward as cluster
from . import register_selector
from .top_k import highest

LEAST = 1e-3  # of an image's mean score: what a token without any counts, or it would weigh nothing


@register_selector("ward", paper="this project; Ward's criterion (JASA 58, 1963)")
def ward(scores: Tensor, tokens: VisionTokens, *, power: Annotated[float, (0, 10)] = 0.5) -> Choice:
    """Groups of tokens whose hidden states are nearest to their weighted means: Ward's clustering.

    The two groups merge, again and again, whose union adds least to the sum over tokens of
    w · |x − mean of its group|², the means weighted too; w = size · score^power, so that tokens the scorer
    calls important merge late and their means stay close to them. Scores below 0 count as 0. A group stays at
    the place of its heaviest part. Of more than 1,024 tokens those merge that are neighbours along a Z-order
    curve, in windows of equal size. The choice holds groups and weights.
    """
    scores = relevance(scores.float())
    scores = scores.maximum(scores.mean(dim=1, keepdim=True) * LEAST)
    weights = tokens.weights() * scores.pow(power)
    weights = weights / weights.mean(dim=1, keepdim=True)
    order = z_order(tokens) if scores.shape[1] > WINDOW else None
    leader = cluster(tokens.hidden_states, weights, tokens.num_keep, order)
    leads = leader == torch.arange(leader.shape[1], device=leader.device)
    group = leads.cumsum(dim=1) - 1  # of a token that its group goes by
    return Choice(highest(leads.float(), tokens.num_keep), group.gather(1, leader), weights)


def z_order(tokens: VisionTokens) -> Tensor:
    """Tokens such that neighbours in the list are near in the image: by their bits interleaved, [B, N]."""
    _, rows, columns = tokens.grid
    place, bits = tokens.place(), max(tokens.grid).bit_length()
    axes = (place // (rows * columns), place // columns % rows, place % columns)
    key = torch.zeros_like(place)
    for bit in range(bits):
        for shift, axis in enumerate(reversed(axes)):
            key = key | ((axis >> bit) & 1) << (3 * bit + shift)
    return torch.argsort(key, dim=1, stable=True)
