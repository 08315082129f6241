"""How much a few tokens attend to each."""

from typing import Annotated

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer(
    "importance", needs=("attention",), paper="this project; [CLS]: FasterVLM (arXiv:2412.01818)"
)
def importance(tokens: VisionTokens, *, queries: Annotated[int, range(1, 1 << 20)] = 64) -> Tensor:
    """Attention of [CLS] to each token, or of about so many evenly spaced tokens, mean over the heads.

    The second where there is no [CLS]: a sample of the attention that a token receives, in O(N) where all of
    it is O(N²). Of a merge unit the mean over its patches. Returns [B, N].
    """
    if tokens.num_prefix_tokens:
        return tokens.cls_attention().mean(dim=1)
    step = max(1, tokens.full_query.shape[2] // queries)
    rows = tokens.attention(slice(step // 2, None, step))  # [B, H, queries, N·M]
    return tokens.per_token(rows.mean(dim=(1, 2)))
