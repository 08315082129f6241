"""Recoverable Compression: outliers of attention, what the prompt asks for, and centres that gather the rest.

Paper: arXiv:2409.01179. Compared with banjiuyufen/Recoverable-Compression,
llava/model/multimodal_encoder/clip_encoder.py, commit d9275944, in November 2026: other tokens and values,
for the reasons that `differs` gives.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.ragged import best
from ..pruning.tokens import VisionTokens
from .scorers.text_relevance import text_relevance
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


@register_selector(
    "recovered",
    needs=("text",),
    keep_ratio="unused",
    paper="Recoverable Compression (arXiv:2409.01179)",
)
def recovered(
    scores: Tensor, tokens: VisionTokens, *, neighbours: Annotated[int, range(1, 101)] = 20
) -> Tensor:
    """As many of the highest scores as are local outliers, then the same of the likeness to the prompt among
    the rest, then of the scores again among what remains; the count follows the image.

    The last are centres for a merger to gather the others in. `keep_ratio` is unused; `min_keep` and
    `max_keep` bound the count, and cut the centres first, then what the prompt recovered, each from its
    lowest; below `min_keep` the next highest scores fill up. Returns [B, K], padded with -1.
    """
    rest = torch.ones_like(scores, dtype=torch.bool) if tokens.valid is None else tokens.valid
    order = torch.zeros_like(scores)
    like = text_relevance(tokens)
    for importance, values in ((3, scores), (2, like), (1, scores)):
        count = local_outliers(values, rest, neighbours)
        new = rank_by(rest.float(), values) < count[:, None]
        order, rest = order + importance * new, rest & ~new
    rank = rank_by(order, torch.where(order == 2, like, scores))
    return best(-rank.float(), (order > 0).sum(dim=1), tokens)


register_method(
    "recoverable",
    scorer="cls_attention",
    selector="recovered",
    merger="knn_weighted",
    summary="outliers of attention, what the prompt asks for, and centres that gather the rest",
    paper="Recoverable Compression (arXiv:2409.01179)",
    layers="output",
    differs=(
        "All kept tokens gather others, as released the centres alone; attention is per head; and the "
        "prompt's outliers are sought among what remains, as released among all tokens."
    ),
)
