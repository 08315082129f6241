"""Least like the pivots."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens, take
from . import register_selector
from .top_k import highest, highest_by


@register_selector("pivots", paper="DART (arXiv:2502.11494)")
def pivots(scores: Tensor, tokens: VisionTokens, *, pivots: Annotated[int, range(1, 4097)] = 8) -> Tensor:
    """The highest scores are pivots; with them stay the tokens least similar to the pivot they resemble most.

    Cosine of the hidden states. At most half of the kept are pivots, at least one. The paper takes the least
    similar tokens of each pivot in turn. Returns [B, K].
    """
    unit = tokens.unit_hidden_states()
    chosen = highest(scores, max(1, min(pivots, tokens.num_keep // 2)))
    closest = (unit @ take(unit, chosen).transpose(1, 2)).amax(dim=-1)  # [B, N]
    return highest_by(torch.zeros_like(scores).scatter(1, chosen, 1.0), -closest, tokens.num_keep)
