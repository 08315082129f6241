"""L2 norm of hidden states."""

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import Order, register_scorer

ROUNDING = 1e-5  # norms of one image that differ by less than this share of their mean are equal


@register_scorer("token_norm", paper="Dynamic Token Pruning (ECE1512 report, 2024)")
def token_norm(tokens: VisionTokens, *, order: Order = "largest") -> Tensor:
    """L2 norm of the token's hidden state; `order` keeps the "largest" or the "smallest".

    Tokens that a norm without weights made equally long get one score, since their lengths differ by rounding
    only and would make an image depend on its neighbours in the batch. Returns [B, N].
    """
    norms = tokens.hidden_states.float().norm(dim=-1)
    mean = norms.mean(dim=1, keepdim=True)
    apart = (norms - mean).abs().amax(dim=1, keepdim=True)
    norms = norms.where(apart > ROUNDING * mean, mean)
    return norms if order == "largest" else -norms
