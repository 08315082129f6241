"""Groups become their mean."""

import torch
from torch import Tensor

from ...pruning.similarity import group_mean, nearest
from ...pruning.tokens import VisionTokens, take
from . import register_merger


@register_merger("bipartite", needs=("key",), weighs=True, paper="ToMe (arXiv:2210.09461)")
def bipartite(tokens: VisionTokens, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The groups that the selector of this name made become their mean, weighted by size.

    After any other selector each token that leaves joins the kept token most similar by the cosine of the
    mean keys. Later layers add log(size) to the attention logits of each key. [CLS] is never merged. Returns
    [B, K, M·D], the group of every token [B, N], and the groups' sizes [B, K] in float32.
    """
    count, groups = keep.shape[1], tokens.groups
    if groups is None:
        unit = tokens.unit_keys().detach()
        own = torch.arange(count, device=keep.device).expand_as(keep)
        groups = nearest(unit, take(unit, keep)).scatter(1, keep, own)
    merged, sizes = group_mean(tokens.content, tokens.weights(), groups, count)
    return merged.to(tokens.content.dtype), groups, sizes
