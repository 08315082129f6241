"""Every token that leaves joins the kept token it resembles most."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..similarity import group_sum, nearest
from ..tokens import VisionTokens, take
from . import register_merger


@register_merger("absorb", weighs=True, paper="this project; weights after ToMe (arXiv:2210.09461)")
def absorb(
    tokens: VisionTokens, keep: Tensor, *, lloyd: Annotated[int, range(101)] = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """A kept token becomes the mean of all tokens that resemble it most, and carries their number.

    Similarity is the cosine of the hidden states; a token that stands for several counts as several. `lloyd`
    rounds of k-means follow on request: every token that left joins the group whose mean it resembles most.
    Later layers add log(size) to the attention logits of each key where the family's attention takes a bias.
    Returns [B, K, M·D], the group of every token [B, N], and the groups' sizes [B, K] in float32.
    """
    count = keep.shape[1]
    own = torch.arange(count, device=keep.device).expand_as(keep)
    states = tokens.hidden_states.detach().float()
    unit = tokens.unit_hidden_states().detach()
    weights = tokens.weights().unsqueeze(-1)  # [B, N, 1]
    weighted = torch.cat([tokens.content.float() * weights, weights], dim=-1)  # [B, N, M·D + 1]
    centres = take(unit, keep)
    for refinement in range(lloyd + 1):
        groups = nearest(unit, centres)
        groups = groups.scatter(1, keep, own)  # a kept token stays in its own group, also beside an equal one
        if refinement < lloyd:
            centres = normalize(group_sum(states * weights, groups, count), dim=-1)
    sums = group_sum(weighted, groups, count)  # [B, K, M·D + 1]
    sizes = sums[..., -1].detach()
    return (sums[..., :-1] / sums[..., -1:]).to(tokens.content.dtype), groups, sizes
