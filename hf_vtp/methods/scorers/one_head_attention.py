"""Attention of the [CLS] token in the next layer, as if that had one head."""

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer("one_head_attention", needs=("attention", "next"), paper="LLaVA-PruMerge (arXiv:2403.15388)")
def one_head_attention(tokens: VisionTokens) -> Tensor:
    """Attention of [CLS] to each token, one softmax over the queries and keys of all heads side by side.

    They are those that the layer after the stage would make of its states; after a tower's last layer, that
    layer's own. The mean over the queries of received attention where there is no [CLS], of a merge unit the
    sum over its patches. Returns [B, N].
    """
    return tokens.next_as_one_head().salience()
