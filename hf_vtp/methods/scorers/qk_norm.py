"""L2 norm of queries and keys."""

from typing import Literal

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import Order, register_scorer


@register_scorer("qk_norm", needs=("query", "key"), paper="Vision-Token-Pruning (denis7-jean, 2025)")
def qk_norm(tokens: VisionTokens, *, of: Literal["k", "q", "qk"] = "k", order: Order = "largest") -> Tensor:
    """L2 norm of the layer's keys, queries or both, per head, then averaged over the heads.

    Rotary embeddings preserve it. Published precedents disagree on the sign, so `order` says whether the
    "largest" or the "smallest" norms are kept; `of` is "k", "q" or "qk" (the sum). Of a merge unit the mean
    over its patches. Returns [B, N].
    """
    states = {"k": (tokens.key,), "q": (tokens.query,), "qk": (tokens.query, tokens.key)}[of]
    norms = sum(x.float().norm(dim=-1).mean(dim=1) for x in states)  # [B, N·M]
    scores = tokens.per_token(norms)  # [B, N]
    return {"largest": scores, "smallest": -scores}[order]
