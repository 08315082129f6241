"""HoloV: every crop of the image keeps its share.

Paper: arXiv:2510.02912. Compared with obananas/HoloV, llava/model/utils.py, commit 1d2e65e9, and with the
paper's formulas, which that code does not follow (its crops are runs of tokens), in November 2026: other
tokens than either, for the reasons that `differs` gives.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.similarity import Cosines, rank_within
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .selectors.top_k import highest
from .table import register_method


def crop_of(tokens: VisionTokens, crops: int) -> Tensor:
    """Which of frames × crops × crops crops each token lies in, [B, N]."""
    _, rows, columns = tokens.grid
    place = tokens.place()
    frame, row, column = place // (rows * columns), place // columns % rows, place % columns
    return (frame * crops + row * crops // rows) * crops + column * crops // columns


@register_selector("crop_quota", paper="HoloV (arXiv:2510.02912)")
def crop_quota(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    crops: Annotated[int, range(1, 65)] = 4,
    power: Annotated[float, (0.0, 10.0)] = 1.0,
) -> Tensor:
    """Each crop keeps a share of its best tokens that follows how good its tokens are.

    Of crops × crops, quota ∝ mean(H)^power with H = A + γV: A the score, V the variance of a token's cosines
    with its crop (itself included), γ = mean|A| / mean|V|; a mean(H) below 1e-12 counts as that. Crop (r, c)
    of a frame has the tokens at row · crops // rows = r and column · crops // columns = c. Where there are
    tokens enough every crop keeps its best. Best are those with the highest H. Quotas are drawn by the method
    of Sainte-Laguë (token r of a crop counts quota / (2r + 1)), which hands on what a crop cannot use; the
    paper redistributes in rounds. Returns [B, K].
    """
    crop = crop_of(tokens, crops)
    cosines, variance = Cosines(tokens.unit_hidden_states()), []
    for i, j in cosines.blocks:
        same = (crop[:, i:j, None] == crop[:, None]).float()
        rows, count = cosines.rows(i, j), same.sum(dim=-1)
        mean = (rows * same).sum(dim=-1) / count
        variance.append(((rows - mean.unsqueeze(-1)).square() * same).sum(dim=-1) / count)
    variance = torch.cat(variance, dim=1)  # [B, N]
    scale = scores.abs().mean(dim=1, keepdim=True) / variance.abs().mean(dim=1, keepdim=True).clamp(min=1e-12)
    quality = scores + scale * variance
    number = tokens.grid[0] * crops * crops
    member = crop.unsqueeze(1) == torch.arange(number, device=crop.device)[:, None]  # [B, crops, N]
    size = member.sum(dim=-1)
    mean = (member.to(quality.dtype) @ quality.unsqueeze(-1)).squeeze(-1) / size.clamp(min=1)
    quota = mean.clamp(min=1e-12).gather(1, crop) ** power
    rank = rank_within(crop, quality)
    enough = (size > 0).sum(dim=1, keepdim=True) <= tokens.num_keep
    claim = (quota / (2 * rank + 1)).masked_fill((rank == 0) & enough, float("inf"))
    return highest(claim, tokens.num_keep)


register_method(
    "holov",
    scorer="cls_attention",
    selector="crop_quota",
    merger="drop",
    summary="every crop of the image keeps its share",
    paper="HoloV (arXiv:2510.02912)",
    layers="output",
    differs=(
        "γ is of the whole image, a token counts in its own variance, quotas are Sainte-Laguë's, and the "
        "features are the tower's, as released those behind the projector with runs of tokens as crops."
    ),
)
