"""LLaVA-PruMerge: outliers of the attention of [CLS] stay and gather their neighbours; the count follows the
image.

Paper: arXiv:2403.15388. Compared with 42Shawn/LLaVA-PruMerge, llava/model/multimodal_encoder/clip_encoder.py,
commit 097c0411 (token_prune_merge_advanced), in November 2026: the same tokens and values. That code reads
queries and keys of the layer behind the features (layers[23] of CLIP-L, whose hidden_states[-2] LLaVA takes)
as one head. The page prumerge_plus has its repository's default.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.ragged import best, valid_scores
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .table import register_method


def outliers(scores: Tensor, tokens: VisionTokens, whisker: float) -> Tensor:
    """Where a score lies above Q3 + whisker · (Q3 - Q1) of its image, bool [B, N].

    Quartiles are interpolated linearly between the sorted scores.
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
    return masked > third + whisker * (third - first)


@register_selector("iqr", keep_ratio="unused", paper="LLaVA-PruMerge (arXiv:2403.15388)")
def iqr(scores: Tensor, tokens: VisionTokens, *, whisker: Annotated[float, (0.0, 100.0)] = 1.5) -> Tensor:
    """As many tokens as have a score above Q3 + whisker · (Q3 - Q1); the count follows the image.

    Quartiles are interpolated linearly between the sorted scores. `keep_ratio` is unused; `min_keep` and
    `max_keep` bound the count. Returns [B, K], padded with -1.
    """
    return best(scores, outliers(scores, tokens, whisker).sum(dim=1), tokens)


register_method(
    "prumerge",
    scorer="one_head_attention",
    selector="iqr",
    merger="knn_weighted",
    summary=(
        "outliers of the attention of [CLS] stay and gather their neighbours; the count follows the image"
    ),
    paper="LLaVA-PruMerge (arXiv:2403.15388)",
    layers="output",
)
