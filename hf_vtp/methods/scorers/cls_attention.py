"""Attention of the [CLS] token."""

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer("cls_attention", needs=("attention",), paper="FasterVLM (arXiv:2412.01818)")
def cls_attention(tokens: VisionTokens) -> Tensor:
    """Attention of [CLS] to each token, mean over the heads; received attention where there is no [CLS].

    One row of softmax(QKᵀ/√d), so it costs O(N). The fallback, published for Qwen2.5-VL, is the mean over all
    queries of the attention a token receives, summed over the patches of a merge unit. Returns [B, N].
    """
    return tokens.salience()
