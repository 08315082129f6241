"""Kept tokens take from their neighbours, one more token from all that leave."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.similarity import top_mask
from ...pruning.tokens import VisionTokens, row_blocks, take
from . import register_merger


def one_more(num_keep: int, **options) -> int:
    return int(num_keep > 1)


@register_merger(
    "knn_weighted", needs=("attention", "next"), extra=one_more, paper="LLaVA-PruMerge (arXiv:2403.15388)"
)
def knn_weighted(
    tokens: VisionTokens, keep: Tensor, *, neighbours: Annotated[int, range(1, 4097)] = 32
) -> tuple[Tensor, Tensor, None, Tensor]:
    """A kept token adds its nearest neighbours, weighted by attention; one more token sums up what leaves.

    x_i + Σ a_j x_j over the `neighbours` other tokens most similar by the cosine of the keys, kept or not, a
    the attention of [CLS] (received attention without one); both of the next layer, heads side by side as one
    (scorer `one_head_attention`). Of several tokens kept, one is Σ a_j x_j of all that leave, at the place of
    the most attended of these. Returns [B, K, M·D], for every token its own place or that one [B, N] (-1
    where only one is kept), no sizes, and all places kept [B, K].
    """
    n, kept = tokens.shape[1], keep.shape[1]
    with torch.no_grad():
        as_one = tokens.next_as_one_head()
        unit, attention = as_one.unit_keys(), as_one.salience()  # [B, N, H·d], [B, N]
    content, merged = tokens.content.float(), []
    every = torch.arange(n, device=keep.device)
    for i, j in row_blocks(kept, n) if n > 1 else ():
        own = keep[:, i:j, None] == every
        similar = (take(unit, keep[:, i:j]) @ unit.transpose(1, 2)).masked_fill(own, -2.0)
        near = top_mask(similar, min(neighbours, n - 1))
        merged.append((near * attention.unsqueeze(1)) @ content)
    states = take(content, keep) + (torch.cat(merged, dim=1) if merged else 0)
    return with_rest(tokens, keep, states, attention)


def with_rest(
    tokens: VisionTokens, keep: Tensor, states: Tensor, attention: Tensor
) -> tuple[Tensor, Tensor, None, Tensor]:
    """What a merger made of the kept tokens, [B, K, M·D], and the token that sums up what leaves."""
    (b, n), kept, content = tokens.shape, keep.shape[1], tokens.content.float()
    dropped = torch.ones(b, n, dtype=torch.bool, device=keep.device).scatter(1, keep, False)
    if one_more(tokens.num_keep) and kept < n:
        weight = attention * dropped
        states = torch.cat([states, weight.unsqueeze(1) @ content], dim=1)
        most = weight.masked_fill(~dropped, -1.0).argmax(dim=-1)[:, None]
        order = torch.argsort(torch.cat([keep, most], dim=1), dim=1)
        keep, states = torch.cat([keep, most], dim=1).gather(1, order), take(states, order)
        extra = torch.argmax((order == kept).to(torch.uint8), dim=1, keepdim=True)  # where the new one went
        groups = extra.expand(b, n)
    else:
        groups = torch.full((b, n), -1, device=keep.device)
    own = torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
    return states.to(tokens.content.dtype), groups.scatter(1, keep, own), None, keep
