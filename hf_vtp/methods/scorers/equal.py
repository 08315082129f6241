"""No ranking."""

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer("equal")
def equal(tokens: VisionTokens) -> Tensor:
    """Zero for every token: for selectors that choose by similarity alone. Returns [B, N]."""
    return torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.hidden_states.device)
