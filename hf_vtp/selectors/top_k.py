"""The highest scores."""

import torch
from torch import Tensor

from ..tokens import VisionTokens
from . import register_selector


def highest(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest of `scores` [B, N], ascending, [B, count]; ties go to the lower index.

    A stable sort, because `topk` breaks ties anyhow, and differently on every device.
    """
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    return torch.sort(order[:, :count], dim=-1).values


@register_selector("top_k")
def top_k(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The `num_keep` tokens with the highest scores. Returns [B, K]."""
    return highest(scores, tokens.num_keep)
