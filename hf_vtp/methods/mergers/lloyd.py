"""Lloyd's rounds of k-means: a refinement of any merger."""

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...pruning.similarity import group_mean, nearest
from ...pruning.tokens import VisionTokens


def lloyd(
    tokens: VisionTokens, keep: Tensor, hidden_states: Tensor, *, rounds: Annotated[int, range(101)] = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Every token joins the centre it resembles most, each centre becomes its group's mean; so many times.

    The centres begin as `hidden_states` [B, K, M·D], what a merger returned. Similarity is the cosine of the
    hidden states with the mean over the patches of a centre; a token that stands for several counts as
    several; the token at `keep` stays in its own group. Returns the means [B, K, M·D], the group of every
    token [B, N], and the groups' sizes [B, K] in float32.
    """
    count = keep.shape[1]
    own = torch.arange(count, device=keep.device).expand_as(keep)
    unit = tokens.unit_hidden_states().detach()
    weights = tokens.weights()
    centres = hidden_states.detach()
    for last in [False] * (rounds - 1) + [True]:
        if tokens.patches is not None:
            centres = centres.unflatten(-1, tokens.patches.shape[2:]).mean(dim=-2)
        groups = nearest(unit, normalize(centres.float(), dim=-1))
        groups = groups.scatter(1, keep, own)  # a kept token stays in its own group, also beside an equal one
        content = tokens.content if last else tokens.content.detach()
        centres, sizes = group_mean(content, weights, groups, count)
    return centres.to(tokens.content.dtype), groups, sizes
