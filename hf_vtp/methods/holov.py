"""HoloV: every crop of the image keeps its share.

Paper: arXiv:2510.02912. Compared in November 2026 with the paper's formulas on square crops: the same tokens.
The released code, obananas/HoloV, llava/model/utils.py, commit 1d2e65e9, departs from them: its crops are
N / 16 tokens that follow each other in raster order, V counts .09, and inside a crop attention alone decides.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.similarity import Cosines, rank_within
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .selectors.top_k import highest_by
from .table import register_method

LEAST = 1e-12
ROUNDING = 1e-6  # shares closer than this are equal


def crop_of(tokens: VisionTokens, crops: int) -> Tensor:
    """Which of frames × crops × crops crops each token lies in, [B, N]."""
    _, rows, columns = tokens.grid
    place = tokens.place()
    frame, row, column = place // (rows * columns), place // columns % rows, place % columns
    return (frame * crops + row * crops // rows) * crops + column * crops // columns


def variance_in_crop(tokens: VisionTokens, crop: Tensor) -> Tensor:
    """Variance of each token's cosines with its crop of m tokens, [B, N].

    As released: its own entry is 0 instead of 1 and the divisor m - 1, of the mean too. 0 for a crop of one.
    """
    cosines, variance = Cosines(tokens.unit_projected_states()), []
    for i, j in cosines.blocks:
        same = (crop[:, i:j, None] == crop[:, None]).float()
        others = (same.sum(dim=-1) - 1).clamp(min=1)
        rows = cosines.rows(i, j)
        own = rows[:, :, i:j].diagonal(dim1=1, dim2=2)  # taken off sums, so that equal tokens have equal ones
        mean = ((rows * same).sum(dim=-1) - own) / others
        squares = ((rows - mean.unsqueeze(-1)).square() * same).sum(dim=-1) - (own - mean).square()
        variance.append((squares + mean.square()) / others)
    return torch.cat(variance, dim=1)


@register_selector("crop_quota", needs=("projected",), paper="HoloV (arXiv:2510.02912)")
def crop_quota(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    crops: Annotated[int, range(1, 65)] = 4,
    power: Annotated[float, (0.0, 10.0)] = 1.0,
) -> Tensor:
    """Each crop keeps a share of its best tokens that follows how good its tokens are.

    Of crops × crops, share ∝ mean(H)^power with H = A + γV: A the score, V the variance of a token's cosines
    with the others of its crop behind the projector, γ = mean|A| / mean|V| of the crop; a mean(H) below 1e-6
    of the image's mean|A| counts as that. Crop (r, c) of a frame has the tokens at row · crops // rows = r
    and column · crops // columns = c. A crop keeps ⌊share · num_keep⌋ tokens; what remains, also where a crop
    has too few, goes to the crops by falling share, one each, round after round. Best are those with the
    highest H. Returns [B, K].
    """
    crop = crop_of(tokens, crops)
    number = tokens.grid[0] * crops * crops
    member = crop.unsqueeze(1) == torch.arange(number, device=crop.device)[:, None]  # [B, crops, N]
    size = member.sum(dim=-1).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        """Of each crop, [B, crops]; 0 for an empty one."""
        return (member.to(x.dtype) @ x.unsqueeze(-1)).squeeze(-1) / size

    variance = variance_in_crop(tokens, crop)
    gamma = mean(scores.abs()) / mean(variance).clamp(min=LEAST)
    quality = scores + gamma.gather(1, crop) * variance
    least = ROUNDING * scores.double().abs().mean(dim=1, keepdim=True) + LEAST
    weight = mean(quality.double()).maximum(least) ** power
    share = weight.masked_fill(~member.any(dim=-1), 0.0)
    share = (share / share.sum(dim=1, keepdim=True)).gather(1, crop)  # of each token's crop, [B, N]
    share = (share / ROUNDING).round() * ROUNDING
    places = ((share + ROUNDING) * tokens.num_keep).floor()
    beyond = (rank_within(crop, quality) + 1 - places).clamp(min=0)  # the round that a token waits for
    return highest_by(-beyond, share, tokens.num_keep)


register_method(
    "holov",
    scorer="cls_attention",
    selector="crop_quota",
    merger="drop",
    summary="every crop of the image keeps its share",
    paper="HoloV (arXiv:2510.02912)",
    layers="output",
    differs=(
        "Crops are squares and tokens rank by attention and variance, as in the paper; as released crops are "
        "runs of tokens in raster order, and within one attention alone decides."
    ),
)
