"""How hard a token is to regenerate, times how much others take from it."""

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer("own_and_received", needs=("attention",), paper="GTP-ViT (arXiv:2311.03035)")
def own_and_received(tokens: VisionTokens) -> Tensor:
    """A token's attention to itself times the attention it receives from all, each the mean over the heads.

    The first is large where a token cannot be made from others, the second, a sum over the queries, where
    others are made from it. Of a merge unit each is the mean over its patches. Returns [B, N].
    """
    own, received = [], 0.0
    for start, stop, rows in tokens.attention_blocks():
        mean = rows.mean(dim=1)  # [B, stop - start, P + N·M]
        own.append(mean[:, :, start:stop].diagonal(dim1=1, dim2=2).clone())  # a view would hold it all
        received = received + mean.sum(dim=1)
    scores = (tokens.per_token(x[:, tokens.num_prefix_tokens :]) for x in (torch.cat(own, dim=1), received))
    return next(scores) * next(scores)
