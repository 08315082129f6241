"""Nothing becomes of them."""

from torch import Tensor

from ...pruning.tokens import VisionTokens, take
from . import register_merger


@register_merger("drop", rows_differ=True)
def drop(tokens: VisionTokens, keep: Tensor) -> tuple[Tensor, None, None]:
    """The kept tokens as they are; the others are gone. Returns [B, K, D] and no groups."""
    return take(tokens.content, keep), None, None
