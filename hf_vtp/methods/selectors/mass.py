"""The fewest tokens that hold most of the score."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.ragged import best, valid_scores
from ...pruning.tokens import VisionTokens
from . import register_selector

WHOLE = 1 << 50  # what all of a score counts; the rounding of single ones is allowed for


@register_selector("mass", keep_ratio="unused", paper="after nucleus sampling (arXiv:1904.09751)")
def mass(scores: Tensor, tokens: VisionTokens, *, p: Annotated[float, (0.0, 1.0)] = 0.9) -> Tensor:
    """The smallest set of tokens that holds the share `p` of the scores' sum; the count follows the image.

    Where a score lies below zero all are shifted up so that the least is zero; where none is above zero then,
    every token holds the same share. `keep_ratio` is unused; `min_keep` and `max_keep` bound the count.
    Returns [B, K], padded with -1.
    """
    masked, have = valid_scores(scores, tokens)
    least = masked.masked_fill(masked == float("-inf"), float("inf")).amin(dim=1, keepdim=True)
    weight = (masked - least.clamp(max=0)).clamp(min=0).double()
    total = weight.sum(dim=1, keepdim=True)
    even = (torch.arange(scores.shape[1], device=scores.device) < have[:, None]) / have[:, None].double()
    share = torch.where(total > 0, torch.sort(weight, dim=1, descending=True).values / total, even)
    # whole numbers: a running sum of floats is not the same each time on a GPU
    running = (share * WHOLE).round().long().cumsum(dim=1)
    counts = (running < round(p * WHOLE) - scores.shape[1]).sum(dim=1) + 1
    return best(scores, counts, tokens)
