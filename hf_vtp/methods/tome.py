"""ToMe: the most similar pairs of tokens merge after every layer, and groups weigh in attention by their
size.

Paper: Token Merging: Your ViT But Faster, arXiv:2210.09461. Compared with facebookresearch/ToMe,
tome/merge.py, commit af95e4b1, in November 2026: the same groups, sizes and values round after round, with
[CLS] and without; the tokens stand in raster order all the same.
"""

import torch
from torch import Tensor

from ..pruning.similarity import group_mean, groups_or_nearest, nearest_with_similarity
from ..pruning.tokens import Choice, VisionTokens, take
from .layers import every_layer
from .mergers import register_merger
from .selectors import register_selector
from .table import register_method


@register_selector("bipartite", needs=("key",), paper="ToMe (arXiv:2210.09461)")
def match(scores: Tensor, tokens: VisionTokens) -> Choice:
    """Tokens at even places are matched with those at odd places; the most similar pairs become groups.

    Each even token has an edge to the odd token most similar to it, by the cosine of the mean keys; as many
    of the best edges are merged as tokens have to leave, at most half of the tokens in one round. Of equal
    edges the first merges. Where more must leave, rounds follow on what remains, a group at the place and
    with the key of its odd token. Places are those of ToMe: prefix tokens come first and never merge, then
    raster order; after a round the even tokens that stay (from the best edge on, in order where there are
    prefix tokens), then the odd ones. ToMe merges between a layer's attention and its MLP, which hooks cannot
    reach: here it is at the layer's end, with that layer's keys. Scores are not looked at. The
    choice holds groups, and the places of the kept for the next stage.
    """
    b, n = scores.shape
    unit, prefix = tokens.unit_keys(), tokens.num_prefix_tokens
    every = torch.arange(n, device=scores.device).expand(b, n)
    there = every if tokens.order is None else torch.argsort(tokens.order, dim=1)  # in ToMe's order
    leader = every  # [B, N] the token that each one's group goes by
    while there.shape[1] > tokens.num_keep:
        even, odd = there[:, prefix % 2 :: 2], there[:, 1 - prefix % 2 :: 2]
        partner, similarity = nearest_with_similarity(take(unit, even), take(unit, odd))
        best = torch.sort(similarity, dim=1, descending=True, stable=True).indices
        edges, others = best.tensor_split([min(there.shape[1] - tokens.num_keep, there.shape[1] // 2)], dim=1)
        others = torch.sort(others, dim=1).values if prefix else others
        joins = odd.gather(1, partner.gather(1, edges))
        leader = leader.scatter(1, even.gather(1, edges), joins).gather(1, leader)
        there = torch.cat([even.gather(1, others), odd], dim=1)
    keep, turn = torch.sort(there, dim=1)
    own = torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
    place = torch.zeros_like(leader).scatter(1, keep, own)
    return Choice(keep, place.gather(1, leader), order=turn)


@register_merger("bipartite", needs=("key",), weighs=True, averages=True, paper="ToMe (arXiv:2210.09461)")
def merge(tokens: VisionTokens, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The groups that the selector of this name made become their mean, weighted by size.

    After any other selector each token that leaves joins the kept token most similar by the cosine of the
    mean keys. Later layers add log(size) to the attention logits of each key. [CLS] is never merged. Returns
    [B, K, M·D], the group of every token [B, N], and the groups' sizes [B, K] in float32.
    """
    groups = groups_or_nearest(tokens.groups, keep, tokens.unit_keys)
    merged, sizes = group_mean(tokens.content, tokens.weights(), groups, keep.shape[1])
    return merged.to(tokens.content.dtype), groups, sizes


register_method(
    "tome",
    scorer="equal",
    selector="bipartite",
    merger="bipartite",
    summary="the most similar pairs merge after every layer",
    paper="ToMe (arXiv:2210.09461)",
    layers=every_layer,
    schedule="linear",
    differs="Pairs merge at the layer's end, as released between attention and MLP, where no hook acts.",
)
