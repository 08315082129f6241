"""Groups become their mean, as long as their tokens are."""

import torch
from torch import Tensor

from ...pruning.similarity import group_sum, groups_or_nearest
from ...pruning.tokens import VisionTokens
from . import register_merger


@register_merger("weighted_mean", weighs=True, paper="this project; weights after ToMe (arXiv:2210.09461)")
def weighted_mean(tokens: VisionTokens, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The groups that the selector made become their weighted mean, at the mean length of their tokens.

    Weights are those the selector grouped by, else sizes. A mean of unlike vectors is shorter than they are,
    and a layer then adds too much to it. After a selector that makes no groups each token that leaves joins
    the kept one most similar by the cosine of the hidden states. Later layers add log(size) to the attention
    logits of each key. Returns [B, K, M·D], the group of every token [B, N], and the groups' sizes [B, K] in
    float32.
    """
    count, sizes = keep.shape[1], tokens.weights()
    groups = groups_or_nearest(tokens.groups, keep, tokens.unit_hidden_states)
    weights = sizes if tokens.group_weights is None else tokens.group_weights
    content = tokens.content.float().unflatten(-1, (tokens.num_patches, -1))  # [B, N, M, D]
    lengths = torch.linalg.vector_norm(content, dim=-1)  # [B, N, M]
    totals = torch.cat([lengths * weights[..., None], weights[..., None], sizes[..., None]], dim=-1)
    length, weight, size = group_sum(totals, groups, count).split([tokens.num_patches, 1, 1], dim=-1)
    total = group_sum((content * weights[..., None, None]).flatten(2), groups, count)
    total = total.unflatten(-1, (tokens.num_patches, -1))  # the direction of the mean, [B, K, M, D]
    longer = length / weight.clamp(min=1e-12) / torch.linalg.vector_norm(total, dim=-1).clamp(min=1e-12)
    merged = (total * longer.unsqueeze(-1)).flatten(2)
    return merged.to(tokens.content.dtype), groups, size.squeeze(-1)
