"""VisionZip: the tokens stay that [CLS] attends to most; a few more sum up the rest.

Paper: arXiv:2412.04467. Compared with dvlab-research/VisionZip, visionzip/clip_encoder.py, commit 3151f6df,
in November 2026: the same tokens, and values equal to the bit.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.similarity import group_mean, group_sum, nearest
from ..pruning.tokens import VisionTokens, take
from .mergers import register_merger
from .table import register_method


def targets_among(num_keep: int, *, share: float = 10 / 64) -> int:
    """How many of the kept are targets: the share, at least one, and never all."""
    return min(max(1, round(share * num_keep)), num_keep - 1)


@register_merger("contextual", needs=("key",), extra=targets_among, paper="VisionZip (arXiv:2412.04467)")
def contextual(
    tokens: VisionTokens, keep: Tensor, *, share: Annotated[float, (0.0, 1.0)] = 10 / 64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Beside the tokens that the selector kept, as they are, targets take up all the others.

    Of `num_keep`, `share` are targets, rounded, at least one and never all: of the tokens that leave, each
    ⌊leaving / targets⌋th from the first on. Each other one joins the target most similar by the cosine of the
    mean keys, and a target becomes itself + the mean of those, weighted by their sizes. Where only one token
    is kept there is no target, and the others have no group, -1. Returns [B, K, M·D], the group of every
    token [B, N], sizes [B, K] in float32, and all places kept [B, K].
    """
    (b, n), kept = tokens.shape, keep.shape[1]
    number = min(targets_among(tokens.num_keep, share=share), n - kept)
    dropped = torch.ones(b, n, dtype=torch.float32, device=keep.device).scatter(1, keep, 0.0)
    rest = torch.sort(dropped, dim=1, descending=True, stable=True).indices[:, : n - kept]  # raster order
    targets = rest[:, :: max(1, (n - kept) // max(1, number))][:, :number]
    every = torch.cat([keep, targets], dim=1)
    order = torch.argsort(every, dim=1)
    every = every.gather(1, order)
    place = torch.zeros(b, n, dtype=torch.long, device=keep.device)
    place = place.scatter(1, every, torch.arange(kept + number, device=keep.device).expand_as(every))
    stays = torch.zeros(b, n, dtype=torch.bool, device=keep.device).scatter(1, every, True)
    groups = torch.where(stays, place, -1)
    content = tokens.content.float()
    if number:
        unit = tokens.unit_keys().detach()
        joined = targets.gather(1, nearest(unit, take(unit, targets)))  # [B, N]
        groups = torch.where(stays, place, place.gather(1, joined))
        weights = tokens.weights().masked_fill(stays, 0)
        merged = take(content, every) + group_mean(content, weights, groups, every.shape[1])[0]
    else:
        merged = take(content, every)
    sizes = group_sum(tokens.weights().unsqueeze(-1), groups, every.shape[1]).squeeze(-1)
    return merged.to(tokens.content.dtype), groups, sizes, every


register_method(
    "visionzip",
    scorer="cls_attention",
    selector="top_k",
    merger="contextual",
    summary="what [CLS] attends to most stays, a few more tokens sum up the rest",
    paper="VisionZip (arXiv:2412.04467)",
    layers="output",
)
