"""Attention a token receives."""

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer("received_attention", needs=("attention",), paper="FoPru (arXiv:2411.14164)")
def received_attention(tokens: VisionTokens) -> Tensor:
    """Attention a token receives from all tokens, [CLS] included, summed, mean over the heads.

    Column sums of softmax(QKᵀ/√d) of the layer, in blocks of rows; of a merge unit the mean over its patches.
    Returns [B, N].
    """
    return tokens.received_attention().mean(dim=1)
