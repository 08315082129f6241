"""How much a few tokens attend to each."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer(
    "importance", needs=("attention",), paper="this project; [CLS]: FasterVLM (arXiv:2412.01818)"
)
def importance(tokens: VisionTokens, *, queries: Annotated[int, range(1, 1 << 20)] = 64) -> Tensor:
    """Attention of [CLS] to each token, or of about so many evenly spaced tokens, mean over the heads.

    The second where there is no [CLS]: a sample of the attention that a token receives, in O(N) where all of
    it is O(N²). Of a merge unit the mean over its patches. Returns [B, N].
    """
    if tokens.num_prefix_tokens:
        return tokens.cls_attention().mean(dim=1)
    rows, sampled = spaced(tokens, queries)
    received = tokens.attention(rows).mean(dim=1)  # [B, queries, N·M]
    if sampled is None:
        return tokens.per_token(received.mean(dim=1))
    received = received.masked_fill(~sampled.unsqueeze(-1), 0)
    return tokens.per_token(received.sum(dim=1) / sampled.sum(dim=1, keepdim=True))


def spaced(tokens: VisionTokens, queries: int) -> tuple[slice | Tensor, Tensor | None]:
    """Places of evenly spaced queries, [B, R] with which of them are some, where rows are padded.

    Each row is spaced by its own number of queries, for a row's scores are its own whatever is beside it.
    """
    length = tokens.full_query.shape[2]
    if tokens.valid is None:
        step = max(1, length // queries)
        return slice(step // 2, None, step), None
    own = tokens.valid_patches().sum(dim=1, keepdim=True)
    step = (own // queries).clamp(min=1)
    most = min(length, 2 * queries - 1)  # as many as fewer than two to a step can be
    places = step // 2 + step * torch.arange(most, device=own.device)
    return places.minimum(own - 1), places < own
