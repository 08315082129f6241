"""L2 norm of the hidden state."""

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import Order, register_scorer


@register_scorer("token_norm", paper="Dynamic Token Pruning (ECE1512 report, 2024)")
def token_norm(tokens: VisionTokens, *, order: Order = "largest") -> Tensor:
    """L2 norm of the token's hidden state; `order` keeps the "largest" or the "smallest". Returns [B, N]."""
    scores = tokens.hidden_states.float().norm(dim=-1)
    return {"largest": scores, "smallest": -scores}[order]
