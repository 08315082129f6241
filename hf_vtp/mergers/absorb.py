"""Every token that leaves joins the kept token it resembles most."""

import torch
from torch import Tensor

from ..similarity import group_sum, nearest
from ..tokens import VisionTokens, take
from . import register_merger


@register_merger("absorb", weighs=True, paper="this project; weights after ToMe (arXiv:2210.09461)")
def absorb(tokens: VisionTokens, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A kept token becomes the mean of all tokens that resemble it most, and carries their number.

    Similarity is the cosine of the hidden states; a token that stands for several counts as several. Later layers
    add log(size) to the attention logits of each key where the family's attention takes a bias. Returns
    [B, K, D], the group of every token [B, N], and the groups' sizes [B, K] in float32.
    """
    with torch.no_grad():
        unit = tokens.unit_hidden_states()
        groups = nearest(unit, take(unit, keep))
        own = torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
        groups = groups.scatter(1, keep, own)  # a kept token stays in its own group, also beside an equal one
    weights = tokens.weights().unsqueeze(-1)  # [B, N, 1]
    weighted = torch.cat([tokens.hidden_states.float() * weights, weights], dim=-1)
    sums = group_sum(weighted, groups, keep.shape[1])  # [B, K, D + 1]
    sizes = sums[..., -1]
    return (sums[..., :-1] / sums[..., -1:]).to(tokens.hidden_states.dtype), groups, sizes
