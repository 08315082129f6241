"""The highest scores."""

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_selector


def highest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest of `scores` [B, N], ascending, [B, count]; ties go to the lower index.

    A stable sort, because `topk` breaks ties anyhow, and differently on every device.
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.sort(order[:, :count], dim=-1).values


def rank_by(first: Tensor, second: Tensor) -> Tensor:
    """Rank of each token, 0 the best: by `first` [B, N], then by `second`, then by index. Returns [B, N]."""
    order = torch.sort(second, dim=-1, descending=True, stable=True).indices
    again = torch.sort(first.gather(1, order), dim=-1, descending=True, stable=True).indices
    return order.gather(1, again).argsort(dim=-1)


def highest_by(first: Tensor, second: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest by `first` [B, N], then by `second`, ascending, [B, count]."""
    return highest(-rank_by(first, second).float(), count)


@register_selector("top_k")
def top_k(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The `num_keep` tokens with the highest scores. Returns [B, K]."""
    return highest(scores, tokens.num_keep)
