"""Recoverable Compression: outliers of attention, what the prompt asks for, and centres that gather the rest.

Paper: arXiv:2409.01179. Compared with banjiuyufen/Recoverable-Compression,
llava/model/multimodal_encoder/clip_encoder.py, commit d9275944, in November 2026: the same tokens and values
for the same likeness to the prompt, with two slips of that code put right: it takes a share of the channels,
not of the tokens that remain, for the number of centres, and keys of other tokens for the centres' own.
"""

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from ..pruning.ragged import best, valid_scores
from ..pruning.similarity import top_mask
from ..pruning.tokens import VisionTokens, row_blocks, take
from .mergers import register_merger
from .mergers.knn_weighted import one_more, with_rest
from .scorers.text_relevance import ROUNDING, likeness_to_text
from .selectors import register_selector
from .selectors.top_k import rank_by
from .table import register_method

OUTLIER = 1.5  # a local outlier factor above it, as scikit-learn's "auto" has it


def local_outliers(values: Tensor, among: Tensor, neighbours: int) -> Tensor:
    """How many of each image's `values` [B, N] are outliers among those marked, [B].

    The local outlier factor (Breunig et al., SIGMOD 2000) of numbers: sorted, the nearest neighbours of each
    lie within so many places of it. Of two at one distance the smaller number is the neighbour. A factor
    above 1.5 makes an outlier, as in scikit-learn.
    """
    n, count = values.shape[1], among.sum(dim=1)
    x = torch.sort(values.double().masked_fill(~among, float("inf")), dim=1).values
    width = min(neighbours, n - 1)
    offsets = torch.tensor([o for o in range(-width, width + 1) if o], device=x.device, dtype=torch.long)
    if not len(offsets):
        return torch.zeros_like(count)
    place = torch.arange(n, device=x.device)[:, None] + offsets  # [N, 2·width]
    outside = (place < 0) | (place >= n)
    place = place.clamp(0, n - 1)
    own = torch.arange(n, device=x.device) < count[:, None]  # [B, N] what is marked comes first
    x = x.where(own, 0)
    gap = (x[:, place] - x.unsqueeze(-1)).abs()  # [B, N, 2·width]
    gap = gap.masked_fill(outside | ~own[:, place], float("inf"))
    near = (count - 1).clamp(min=0, max=width)[:, None, None]
    chosen = torch.sort(gap, dim=-1, stable=True).indices.argsort(dim=-1) < near
    farthest = gap.masked_fill(~chosen, 0).amax(dim=-1)  # [B, N] distance of the last neighbour
    reach = torch.maximum(farthest[:, place], gap).masked_fill(~chosen, 0)  # no product: inf · 0 is NaN
    density = 1 / (reach.sum(dim=-1) / near.squeeze(-1).clamp(min=1) + 1e-10)
    factor = density[:, place].masked_fill(~chosen, 0).sum(dim=-1) / near.squeeze(-1).clamp(min=1) / density
    return ((factor > OUTLIER) & own).sum(dim=1)


def similarity(tokens: VisionTokens) -> Tensor:
    """Cosine with the prompt over √D', [B, N]; 0 where all tokens are alike, lest rounding have outliers."""
    cosine, low, high = likeness_to_text(tokens)
    return torch.where(high - low > ROUNDING, cosine, 0.0) / tokens.text.shape[-1] ** 0.5


def highest_part(values: Tensor, among: Tensor, count: Tensor, of: Tensor) -> Tensor:
    """The ⌊of · count⌋ highest `values` of those marked, bool [B, N]; `count` is a share [B]."""
    return rank_by(among.float(), values) < (of * count).long()[:, None]


def outlier_share(values: Tensor, among: Tensor, neighbours: int) -> Tensor:
    """Share of the marked values that are local outliers, float64 [B], as the released code rounds it."""
    return local_outliers(values, among, neighbours).double() / among.sum(dim=1).clamp(min=1)


@register_selector(
    "recovered",
    needs=("text",),
    keep_ratio="unused",
    paper="Recoverable Compression (arXiv:2409.01179)",
)
def recovered(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    neighbours: Annotated[int, range(1, 101)] = 20,
    centre_neighbours: Annotated[int, range(1, 101)] = 10,
) -> tuple[Tensor, Tensor]:
    """As many of the highest scores as are local outliers; of the rest what resembles the prompt; then of
    the scores again among what remains, the centres. The count follows the image.

    Likeness to the prompt has its outliers among all tokens, the first group at the least of it, and their
    share of the rest is recovered. `keep_ratio` is unused; `min_keep` and `max_keep` bound the count, and cut
    the centres first, then what the prompt recovered, each from its lowest; below `min_keep` the next highest
    scores fill up. Returns [B, K], padded with -1, and the place there of each centre [B, N], -1 for others.
    """
    there = valid_scores(scores, tokens)[0] > float("-inf")
    have = there.sum(dim=1)
    first = highest_part(scores, there, outlier_share(scores, there, neighbours), have)
    like = similarity(tokens)
    lowered = torch.where(first, like.where(there, float("inf")).amin(dim=1, keepdim=True), like)
    rest = there & ~first
    second = highest_part(lowered, rest, outlier_share(lowered, there, neighbours), rest.sum(dim=1))
    rest = rest & ~second
    centres = highest_part(scores, rest, outlier_share(scores, rest, centre_neighbours), rest.sum(dim=1))
    order = 3 * first + 2 * second + 1 * centres
    rank = rank_by(order.float(), torch.where(second, like, scores))
    keep = best(-rank.float(), (order > 0).sum(dim=1), tokens)
    kept = torch.zeros(len(keep), scores.shape[1] + 1, dtype=torch.bool, device=keep.device)
    kept = kept.scatter(1, keep.where(keep >= 0, scores.shape[1]), True)[:, :-1]
    return keep, (kept.cumsum(dim=1) - 1).where(centres & kept, -1)


@register_merger(
    "centres",
    needs=("attention", "next", "text"),
    extra=one_more,
    paper="Recoverable Compression (arXiv:2409.01179)",
)
def gather_at_centres(
    tokens: VisionTokens,
    keep: Tensor,
    *,
    neighbours: Annotated[int, range(1, 4097)] = 32,
    text_weight: Annotated[float, (0.0, 1e6)] = 50.0,
) -> tuple[Tensor, Tensor, None, Tensor]:
    """Centres add their nearest neighbours, weighted by attention; one more token sums up what leaves.

    Centres are those that the selector `recovered` made; the other kept tokens stay as they are, and where
    there is no centre nothing is summed up. After another selector all kept are centres. A centre takes from
    the `neighbours` tokens, centres and those that leave, with the largest cosine of the keys + text_weight ·
    likeness to the prompt over √D'; keys and attention as in `knn_weighted`. Returns as that does.
    """
    (b, n), every = tokens.shape, torch.arange(tokens.shape[1], device=keep.device)
    centre = torch.ones_like(keep, dtype=torch.bool)
    if tokens.groups is not None:
        centre = take(tokens.groups, keep) >= 0
    content, as_is = tokens.content.float(), take(tokens.content, keep).float()
    if tokens.groups is not None and not bool(centre.any()):
        return with_rest(replace(tokens, num_keep=1), keep, as_is, as_is)
    with torch.no_grad():
        as_one = tokens.next_as_one_head()
        unit, attention, like = as_one.unit_keys(), as_one.salience(), text_weight * similarity(tokens)
        apart = torch.zeros(b, n, dtype=torch.bool, device=keep.device).scatter(1, keep, ~centre)
    gathered = []
    for i, j in row_blocks(keep.shape[1], n) if n > 1 else ():
        own = keep[:, i:j, None] == every
        near = take(unit, keep[:, i:j]) @ unit.transpose(1, 2) + like.unsqueeze(1)
        near = near.masked_fill(own | apart.unsqueeze(1), float("-inf"))
        near = top_mask(near, min(neighbours, n - 1)) & (near > float("-inf"))
        gathered.append((near * attention.unsqueeze(1)) @ content)
    if gathered:
        as_is = as_is + torch.cat(gathered, dim=1) * centre.unsqueeze(2)
    return with_rest(tokens, keep, as_is, attention)


register_method(
    "recoverable",
    scorer="one_head_attention",
    selector="recovered",
    merger="centres",
    summary="outliers of attention, what the prompt asks for, and centres that gather the rest",
    paper="Recoverable Compression (arXiv:2409.01179)",
    layers="output",
    differs=(
        "Likeness to the prompt is the cosine in the language model's space, since these models carry no "
        "CLIP text encoder, and two slips of the released code are put right."
    ),
)
