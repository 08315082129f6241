"""SCOPE: greedily the token that covers most of the rest, weighted by the attention of [CLS].

Paper: arXiv:2510.24214. Compared with kinredon/SCOPE, scope/clip_encoder.py, commit 6bf73069, in November
2026: the same tokens on equal tensors.
"""

from typing import Annotated

from torch import Tensor

from ..pruning.covering import most_covering
from ..pruning.similarity import relevance
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .table import register_method


@register_selector("scope", paper="SCOPE (arXiv:2510.24214)", limit=4096)
def scope(scores: Tensor, tokens: VisionTokens, *, alpha: Annotated[float, (0.0, 10.0)] = 1.0) -> Tensor:
    """Greedily the token that adds most to the cosines that cover all tokens, times its score^alpha.

    gain_j = Σ_i max(0, cos_ij - cover_i), cover_i the largest cosine of i with a chosen token, 0 at first.
    Scores below 0 count as 0, as ones where an image has none above. `num_keep` steps of O(N²). Returns [B,
    K].
    """
    unit, weight = tokens.unit_hidden_states(), relevance(scores) ** alpha
    return most_covering(unit @ unit.transpose(1, 2), weight, tokens.num_keep)


register_method(
    "scope",
    scorer="cls_attention",
    selector="scope",
    merger="drop",
    summary="greedily the token that covers most of the rest, weighted by attention of [CLS]",
    paper="SCOPE (arXiv:2510.24214)",
    layers="output",
)
