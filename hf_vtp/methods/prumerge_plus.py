"""LLaVA-PruMerge+: as PruMerge, and tokens at even spaces stay too, the fewer outliers the farther apart.

Paper: arXiv:2403.15388. Compared with 42Shawn/LLaVA-PruMerge, llava/model/multimodal_encoder/clip_encoder.py,
commit 097c0411 (token_prune_merge_advanced_plus, the default there), in November 2026: the same tokens and
values. Where more than a third of the tokens are outliers that code fails; here all tokens stay.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.ragged import best, valid_scores
from ..pruning.tokens import VisionTokens
from .prumerge import outliers
from .selectors import register_selector
from .selectors.top_k import rank_by
from .table import register_method


@register_selector("iqr_and_stride", keep_ratio="unused", paper="LLaVA-PruMerge (arXiv:2403.15388)")
def iqr_and_stride(
    scores: Tensor, tokens: VisionTokens, *, whisker: Annotated[float, (0.0, 100.0)] = 1.5
) -> Tensor:
    """What `iqr` keeps, k of n tokens, and every ⌊⌊n / k⌋ / 3⌋th from the first on, save the last token.

    A stride of 0 counts as 1, k of 0 as 1. `keep_ratio` is unused; `min_keep` and `max_keep` bound the count,
    and cut what only the stride keeps first, from its lowest score. Returns [B, K], padded with -1.
    """
    outlier = outliers(scores, tokens, whisker)
    _, have = valid_scores(scores, tokens)
    share = outlier.sum(dim=1).clamp(min=1).double() / have  # as released: 1 / share is rounded twice
    step = (((1 / share).floor() / 3).floor().long()).clamp(min=1)[:, None]
    place = torch.arange(scores.shape[1], device=scores.device)
    spaced = (place % step == 0) & (place < have[:, None] - 1)
    rank = rank_by(torch.where(outlier, 2.0, spaced.float()), scores)
    return best(-rank.float(), (outlier | spaced).sum(dim=1), tokens)


register_method(
    "prumerge_plus",
    scorer="one_head_attention",
    selector="iqr_and_stride",
    merger="knn_weighted",
    summary="what PruMerge keeps, and tokens at even spaces; the count follows the image",
    paper="LLaVA-PruMerge (arXiv:2403.15388)",
    layers="output",
)
