"""Outliers of the score."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.ragged import best, valid_scores
from ...pruning.tokens import VisionTokens
from . import register_selector


@register_selector("iqr", keep_ratio="unused", paper="LLaVA-PruMerge (arXiv:2403.15388)")
def iqr(scores: Tensor, tokens: VisionTokens, *, whisker: Annotated[float, (0.0, 100.0)] = 1.5) -> Tensor:
    """As many tokens as have a score above Q3 + whisker · (Q3 - Q1); the count follows the image.

    Quartiles are interpolated linearly between the sorted scores. `keep_ratio` is unused; `min_keep` and
    `max_keep` bound the count. Returns [B, K], padded with -1.
    """
    masked, have = valid_scores(scores, tokens)
    ordered = torch.sort(masked.masked_fill(masked == float("-inf"), float("inf")), dim=1).values

    def quantile(q: float) -> Tensor:
        place = q * (have - 1).double()
        low = place.floor().long()
        ends = [ordered.gather(1, i.clamp(max=ordered.shape[1] - 1)[:, None]) for i in (low, low + 1)]
        step = (place - low).to(scores.dtype)[:, None]
        return torch.where(step > 0, ends[0] + step * (ends[1] - ends[0]), ends[0])

    first, third = quantile(0.25), quantile(0.75)
    return best(scores, (masked > third + whisker * (third - first)).sum(dim=1), tokens)
