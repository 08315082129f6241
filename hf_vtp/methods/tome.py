"""ToMe: the most similar pairs of tokens merge after every layer, and groups weigh in attention by their
size.

Paper: Token Merging: Your ViT But Faster, arXiv:2210.09461. Compared with facebookresearch/ToMe,
tome/merge.py, commit af95e4b1, in November 2026: one round without [CLS] makes the same groups.
"""

import torch
from torch import Tensor

from ..pruning.similarity import group_mean, nearest, nearest_with_similarity
from ..pruning.tokens import VisionTokens, take
from .layers import every_layer
from .mergers import register_merger
from .selectors import register_selector
from .selectors.top_k import highest
from .table import register_method


@register_selector("bipartite", needs=("key",), paper="ToMe (arXiv:2210.09461)")
def match(scores: Tensor, tokens: VisionTokens) -> tuple[Tensor, Tensor]:
    """Tokens at even places are matched with those at odd places; the most similar pairs become groups.

    Each even token has an edge to the odd token most similar to it, by the cosine of the mean keys; as many
    of the best edges are merged as tokens have to leave, at most half of the tokens in one round. Where more
    must leave, rounds follow on what remains, a group at the place and with the key of its odd token. ToMe
    merges between a layer's attention and its MLP, which hooks cannot reach: here it is at the layer's end,
    with that layer's keys. Of equal edges that of the lower index merges. Scores are not looked at. Returns
    [B, K], and the group of every token [B, N].
    """
    b, n = scores.shape
    unit = tokens.unit_keys()
    keep = torch.arange(n, device=scores.device).expand(b, n)
    leader = keep  # [B, N] the token that each one's group goes by
    while keep.shape[1] > tokens.num_keep:
        even, odd = keep[:, ::2], keep[:, 1::2]
        partner, similarity = nearest_with_similarity(take(unit, even), take(unit, odd))
        edges = highest(similarity, min(keep.shape[1] - tokens.num_keep, odd.shape[1]))
        leaves, joins = even.gather(1, edges), odd.gather(1, partner.gather(1, edges))
        leader = leader.scatter(1, leaves, joins).gather(1, leader)
        stays = torch.ones_like(keep, dtype=torch.float32).scatter(1, 2 * edges, 0.0)
        keep = keep.gather(1, highest(stays, keep.shape[1] - edges.shape[1]))
    place = torch.zeros_like(leader).scatter(
        1, keep, torch.arange(keep.shape[1], device=keep.device).expand_as(keep)
    )
    return keep, place.gather(1, leader)


@register_merger("bipartite", needs=("key",), weighs=True, paper="ToMe (arXiv:2210.09461)")
def merge(tokens: VisionTokens, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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


register_method(
    "tome",
    scorer="equal",
    selector="bipartite",
    merger="bipartite",
    summary="the most similar pairs merge after every layer",
    paper="ToMe (arXiv:2210.09461)",
    layers=every_layer,
    schedule="linear",
    differs=(
        "Pairs merge at the layer's end, since hooks cannot act between attention and MLP, and stay in "
        "raster order without [CLS] when even and odd places are told apart."
    ),
)
